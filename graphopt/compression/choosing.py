"""Decides what goes for so much of the way: units of groups, by importance, against a table of measured latencies.

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

from graphopt.interop.kinds import Source
from graphopt.pruning.allocation import Cost
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
    from graphopt.pruning.importance import Ranking
    from graphopt.pruning.targets import Target

__all__ = ["Chooser", "pruning_settings"]

_HALF: Final = 0.5
_FARTHEST: Final = 8.0  # halvings, or what the goal asks for as often
_BISECTIONS: Final = 6
_SLACK: Final = 1e-6


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


class _Aimed:
    """A target on the way to another one, met by what is predicted: see :class:`~graphopt.pruning.targets.Target`."""

    def __init__(self, target: Target, way: float) -> None:
        self._target = target
        self._way = way
        self.multiple = target.multiple
        self.is_measured = target.is_measured

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
        self._rankings: list[Ranking] = []
        if not self.graph.groups:
            return
        self._wanted = Goal.of(goal or {"latency": _HALF})
        self._target = self._stack.enter_context(self._job.target(self._wanted, table.operators, settings.batch))
        self._counted = self._stack.enter_context(self._job.target(Goal({"macs": _HALF}), None, settings.batch))
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

    def plan(self, way: float) -> tuple[Plan, bool]:
        """What goes, and whether that is all that may go."""
        aimed = self._aimed(way)
        units = self._choose(aimed)
        left = Goal({name: limit**way for name, limit in self._wanted.limits.items()})
        return self._job.plan(units, str(left)), not aimed.is_met_by(self.graph.gone(units))

    def _choose(self, aimed: Any) -> Sequence[int]:
        limits = {"groups": (), "exclude": self._settings.exclude, "keep": self._settings.keep}
        choice = self._job.choose(self._criterion, None, aimed, None, limits)
        self._rankings = list(choice.rankings)
        return choice.units

    def _aimed(self, way: float) -> _Aimed:
        """Predicted latency as far as it goes; from there on multiply-accumulates, down at the same pace.

        Small models take most of their time beside the products, which a table of operators hardly sees, and channels
        come in multiples where latency counts; there is more to gain beyond that than was predicted.
        """
        if not self._target.is_measured or way <= self._end[0]:
            return _Aimed(self._target, way)
        end, macs = self._end
        slowest = max(math.log(limit) for limit in self._wanted.limits.values() if limit < 1)
        return _Aimed(self._counted, (math.log(macs) + (way - end) * slowest) / math.log(_HALF))

    @functools.cached_property
    def _end(self) -> tuple[float, float]:
        """How far latency is predicted to come down, and the share of the multiply-accumulates that is left there."""
        low, high, left = 0.0, _FARTHEST, 1.0
        for _ in range(_BISECTIONS):
            middle = (low + high) / 2
            aimed = _Aimed(self._target, middle)
            gone = self.graph.gone(self._choose(aimed))
            if aimed.is_met_by(gone):
                low, left = middle, self._counted.toward(0.0)(gone)
            else:
                high = middle
        return low, left

    def rankings(self) -> list[Ranking]:
        """In which order the units of each group go."""
        if not self._rankings:
            self.plan(1.0)
        return self._rankings

    def harm(self) -> dict[str, tuple[float, ...]]:
        """By group, the estimated harm of each number of removed units, once something was chosen."""
        return {one.group.name: tuple(one.harm.tolist()) for one in self._rankings}
