"""Decides what goes for so much of the way: units of groups, by importance, against a table of measured latencies; and
residual blocks as a whole, by how much the model misses them.

Ranking is done once; each way is then an allocation, which takes a moment. Nothing is measured here but operators,
once: given the same table, the same units go.
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from graphopt.compression.points import Step, Variant
from graphopt.interop.kinds import Source
from graphopt.pruning.allocation import Cost, matching
from graphopt.pruning.goal import Goal
from graphopt.pruning.importance import criterion
from graphopt.pruning.job import Job
from graphopt.pruning.latency.table import LatencyTable
from graphopt.pruning.plan import Plan
from graphopt.pruning.plan import Settings as Pruning
from graphopt.pruning.rundirectory import RunDirectory

if TYPE_CHECKING:
    from graphopt.channels.atoms import Mask
    from graphopt.channels.groups import ChannelGraph
    from graphopt.compression.clock import Table
    from graphopt.compression.settings import Settings
    from graphopt.datasets.column import Dataset
    from graphopt.pruning.allocation import Candidate
    from graphopt.pruning.depth.blocks import Block
    from graphopt.pruning.importance import Ranking
    from graphopt.pruning.targets import Target

__all__ = ["Chooser", "pruning_settings"]

_HALF: Final = 0.5
_FARTHEST: Final = 8.0  # halvings, or what the goal asks for as often
_BISECTIONS: Final = 6
_SLACK: Final = 1e-6
_UNSEEN: Final = 0.1  # of what multiply-accumulates go down by
_LEAST: Final = 1e-9


def pruning_settings(settings: Settings) -> Pruning:
    """How to prune in a compression: what was optimized before is not optimized again."""
    return Pruning(
        importance=settings.importance,
        optimize=False,
        samples=settings.samples,
        seed=settings.seed,
        provider=settings.provider,
        threads=settings.threads,
    )


def _level(one: Candidate, units: Sequence[int]) -> int:
    """How many of a group's units go."""
    gone = set(units)
    return sum(unit.index in gone for unit in one.group.units)


def _replaced(one: Candidate, units: Sequence[int], level: int) -> list[int]:
    """The units that go if so many of a group do, the least important ones."""
    own = {unit.index for unit in one.group.units}
    return [*(unit for unit in units if unit not in own), *one.ranking.order[:level].tolist()]


class _Aimed:
    """A target on the way to another one, met by what is predicted: see :class:`~graphopt.pruning.targets.Target`.

    Args:
        target: Whose limits count.
        way: How far towards it.
        multiple: Channels that suit the hardware, if others than the target's.
        is_measured: Whether speed is what counts, so that kept sizes are multiples at any price; if not as the target
            says.
    """

    def __init__(
        self, target: Target, way: float, *, multiple: int | None = None, is_measured: bool | None = None
    ) -> None:
        self._target = target
        self._way = way
        self.multiple = target.multiple if multiple is None else multiple
        self.is_measured = target.is_measured if is_measured is None else is_measured

    def __enter__(self) -> _Aimed:
        return self

    def __exit__(self, *_: object) -> None:
        """The target stays open."""

    def toward(self, share: float) -> Cost:
        return self._target.toward(share * self._way)

    def meet(self, choose: Callable[[Cost], Mask]) -> None:
        choose(self._target.toward(self._way))

    def is_met_by(self, gone: Mask) -> bool:
        return self._target.toward(self._way)(gone) <= 1 + _SLACK


class Chooser:
    """Chooses units; a context manager, since a session stays open.

    Args:
        model: Path of the optimized model.
        calibration: What to rank with.
        goal: What is to be reached, as shares of the original.
        settings: How.
        folder: Keeps rankings.
        table: Keeps what operators take.
        progress: Called with what is done.
    """

    def __init__(
        self,
        model: Path,
        calibration: Dataset,
        goal: Mapping[str, float],
        settings: Settings,
        folder: Path,
        table: Table,
        progress: Callable[[str, float | None], None],
    ) -> None:
        directory = RunDirectory(folder)
        self._settings = settings
        self._job = Job(Source.of(model), pruning_settings(settings), progress, directory, check=True)
        self._job.load(calibration, "")
        self._stack = contextlib.ExitStack()
        self._criterion = criterion(settings.importance)
        self._candidates: Sequence[Candidate] = ()
        if not self.graph.groups:
            return
        self._wanted = {name: min(limit, 1.0) for name, limit in (goal or {"latency": _HALF}).items()}
        wanted, counted = map(Goal.of, (self._wanted, {"macs": _HALF}))
        self._target = self._stack.enter_context(self._job.target(wanted, table.operators, settings.batch))
        self._counted = self._stack.enter_context(self._job.target(counted, None, settings.batch))
        kept = directory.latency_table()
        if table.operators is None and kept is not None:
            table.operators = LatencyTable.load(kept)
            table.keep()

    def __enter__(self) -> Chooser:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def graph(self) -> ChannelGraph:
        """The channels of the model."""
        return self._job.graph

    def plan(self, variant: Variant) -> tuple[Plan, bool]:
        """What goes, and whether that is all that may go."""
        aimed = self._aimed(variant.way)
        units = self._choose(aimed)
        left = Goal.of({name: limit**variant.way for name, limit in self._wanted.items()})
        is_last = not aimed.is_met_by(self.graph.gone(units))
        blocks = self.blocks[: variant.blocks]
        return self._job.plan(self._resized(units, variant), str(left), blocks), is_last

    @functools.cached_property
    def blocks(self) -> Sequence[Block]:
        """The residual blocks that may go, those first that the model misses least for what they cost."""
        if "depth" in self._settings.skip:
            return ()
        matched = matching(self.graph, self._settings.exclude)
        excluded = {node for group in self.graph.groups if group.index in matched for node in group.nodes}
        return [block for block in self._job.blocks_by_worth() if excluded.isdisjoint(block.nodes)]

    def macs(self, gone: Mask) -> float:
        """The share of the multiply-accumulates that is left."""
        return self._counted.toward(0.0)(gone)

    def steps(self, variant: Variant) -> list[Step]:
        """The next sizes of each group that the hardware likes, one more and one less, as far as there are any."""
        units = self._resized(self._choose(self._aimed(variant.way)), variant)
        here = self._way(units)
        dropped = {node for block in self.blocks[: variant.blocks] for node in block.nodes}
        found = []
        for number, one in enumerate(self._grid):
            if dropped.issuperset(one.group.nodes):
                continue
            level = _level(one, units)
            less = min((other for other in one.levels if other > level), default=None)
            more = max((other for other in one.levels if other < level), default=None)
            for after in (less, more):
                if after is not None:
                    harm = float(one.ranking.harm[after] - one.ranking.harm[level])
                    gain = self._way(_replaced(one, units, after)) - here
                    found.append(Step(number, len(one.group.units) - after, harm, gain))
        return found

    def _way(self, units: Sequence[int]) -> float:
        """How far towards the goal a removal is, as predicted.

        Multiply-accumulates count a little, too: where a table sees no gain there may be some, most likely there.
        """
        gone = self.graph.gone(units)
        left = self._target.toward(0.0)(gone)
        return (math.log(left) + _UNSEEN * math.log(max(self.macs(gone), _LEAST))) / self._pace

    @functools.cached_property
    def _pace(self) -> float:
        return max((math.log(limit) for limit in self._wanted.values() if limit < 1), default=math.log(_HALF))

    @functools.cached_property
    def _grid(self) -> Sequence[Candidate]:
        """The groups that may shrink, and the numbers of units to remove so that sizes suit the hardware."""
        self._choose(_Aimed(self._target, 0.0))
        return self._candidates

    def _resized(self, units: Sequence[int], variant: Variant) -> Sequence[int]:
        """The units that go after single steps."""
        for number, kept in variant.sizes:
            one = self._grid[number]
            units = _replaced(one, units, len(one.group.units) - kept)
        return units

    def _choose(self, aimed: Any) -> Sequence[int]:
        limits = {"groups": (), "exclude": self._settings.exclude, "keep": self._settings.keep}
        choice = self._job.choose(self._criterion, None, aimed, None, limits)
        self._candidates = choice.candidates
        return choice.units

    def _aimed(self, way: float) -> _Aimed:
        """Predicted latency as far as it goes; from there on multiply-accumulates, down at the same pace.

        Small models take most of their time beside the products, which a table of operators hardly sees: there is more
        to gain than was predicted. The sizes that the hardware likes come first, any others when these have come to
        their end.
        """
        if not self._target.is_measured:
            return _Aimed(self._target, way)
        for aim, end, _ in self._ends:
            if way <= end:
                return aim(way)
        return self._counting(*self._ends[-1][1:])(way)

    def _counting(self, start: float, macs: float, **sizes: Any) -> Callable[[float], _Aimed]:
        """Aims at multiply-accumulates, from so many at a way on."""
        return lambda way: _Aimed(
            self._counted, (math.log(macs) + (way - start) * self._pace) / math.log(_HALF), **sizes
        )

    @functools.cached_property
    def _ends(self) -> list[tuple[Callable[[float], _Aimed], float, float]]:
        """What to aim at first, and then, and how far each goes, and the multiply-accumulates that are left there."""
        first = functools.partial(_Aimed, self._target)
        end, macs = self._end(first, 0.0, 1.0)
        then = self._counting(end, macs, multiple=self._target.multiple, is_measured=True)
        return [(first, end, macs), (then, *self._end(then, end, macs))]

    def _end(self, aim: Callable[[float], _Aimed], start: float, macs: float) -> tuple[float, float]:
        """The farthest way that is met, and the share of the multiply-accumulates that is left there."""
        low, high, left = start, start + _FARTHEST, macs
        for _ in range(_BISECTIONS):
            middle = (low + high) / 2
            gone = self.graph.gone(self._choose(aim(middle)))
            if aim(middle).is_met_by(gone):
                low, left = middle, self.macs(gone)
            else:
                high = middle
        return low, left

    def rankings(self) -> list[Ranking]:
        """In which order the units of each group go."""
        if not self._candidates:
            self._choose(self._aimed(1.0))
        return [one.ranking for one in self._candidates]

    def harm(self) -> dict[str, tuple[float, ...]]:
        """By group, the estimated harm of each number of removed units, once something was chosen."""
        return {one.group.name: tuple(one.ranking.harm.tolist()) for one in self._candidates}
