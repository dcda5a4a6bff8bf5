"""What a goal means for a model: how far a removal is from it, measured where a table only predicts."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from graphopt.channels.atoms import Mask
from graphopt.channels.groups import ChannelGraph
from graphopt.channels.slicing import cut
from graphopt.errors import Infeasible
from graphopt.human import times
from graphopt.pruning.allocation import Cost
from graphopt.pruning.expense import Expense
from graphopt.pruning.goal import Goal
from graphopt.pruning.importance.evidence import Progress

if TYPE_CHECKING:
    from graphopt.benchmark.stats import Interval
    from graphopt.pruning.latency.table import LatencyTable

__all__ = ["Target"]

_MULTIPLE = 8
"""Channels that suit the vector units of most processors, where latency is not measured."""
_CLOSE = 0.03
"""How far from the goal a measured latency may be; it is tried again otherwise."""
_TRIES = 6
_FAR = 0.10
"""How much slower than the goal the best try may be to count as reached: what measuring may be off by."""


class Target:
    """A goal for one model; a context manager, since measuring latency keeps a session open.

    Args:
        graph: The model's channels.
        goal: The limits.
        expense: Counts of the model.
        feeds: What to run where latency is measured.
        table: A latency table measured before, or its file.
        save: Called with a table that was measured now.
        seed: Of the measurement.
        provider: Execution provider.
        threads: Intra-op threads.
        progress: Called with what is done.

    Attributes:
        multiple: Kept channels that suit the hardware.
    """

    def __init__(
        self,
        graph: ChannelGraph,
        goal: Goal,
        expense: Expense,
        feeds: Mapping[str, Any],
        *,
        table: LatencyTable | str | Path | None,
        save: Callable[[LatencyTable], None],
        seed: int,
        provider: str,
        threads: int | None,
        progress: Progress,
    ) -> None:
        self._graph = graph
        self._goal = goal
        self._expense = expense
        self._feeds = feeds
        self._running: dict[str, Any] = {"provider": provider, "threads": threads}
        self._seed = seed
        self._progress = progress
        self._stack = contextlib.ExitStack()
        self.multiple = _MULTIPLE
        self._limits = {name: one.share(expense.total[name]) for name, one in goal.limits.items() if name != "latency"}
        if self.is_measured:
            self._time(table, save)

    def __enter__(self) -> Target:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def is_measured(self) -> bool:
        """Whether latency is a goal."""
        return "latency" in self._goal.limits

    def _time(self, table: Any, save: Callable[[LatencyTable], None]) -> None:
        from graphopt.pruning.latency.measure import Stopwatch
        from graphopt.pruning.latency.predictor import LatencyModel
        from graphopt.pruning.latency.table import LatencyTable

        if isinstance(table, str | Path):
            table = LatencyTable.load(table)
        if table is None:
            shapes = {name: tuple(array.shape) for name, array in self._feeds.items() if hasattr(array, "shape")}
            table = LatencyTable.measure(self._graph, shapes, seed=self._seed, progress=self._progress, **self._running)
            save(table)
        self.multiple = max(table.settings.multiples.values(), default=_MULTIPLE)
        self._model = LatencyModel(self._graph, table)
        self._whole = self._model.total(self._graph.marked(np.zeros(0, np.int64)))
        self._watch = self._stack.enter_context(
            Stopwatch(self._graph.model, self._feeds, seed=self._seed, **self._running)
        )
        self._latency = self._goal.limits["latency"].share(self._whole)

    def _counted(self, gone: Mask) -> float:
        """The largest of what is left, in shares of what may be left."""
        return max((self._expense.exceeded(gone, name, limit) for name, limit in self._limits.items()), default=0.0)

    def _predicted(self, gone: Mask) -> float:
        """The share of the latency that is left, by the table."""
        return self._model.total(gone) / self._whole

    def _aiming(self, aim: float) -> Cost:
        """What a removal costs where the table should predict a share of the latency, and counts have their limits."""
        return lambda gone: max(self._counted(gone), self._predicted(gone) / aim)

    def toward(self, share: float) -> Cost:
        """What a removal costs on the way to the goal, 1 being ``share`` of the way, in logarithms.

        Latency is predicted, not measured.
        """

        def cost(gone: Mask) -> float:
            left = [self._expense.exceeded(gone, name, limit**share) for name, limit in self._limits.items()]
            if self.is_measured:
                left.append(self._predicted(gone) / self._latency**share)
            return max(left)

        return cost

    def meet(self, choose: Callable[[Cost], Mask]) -> Interval | None:
        """Lets ``choose`` look for a removal until the goal is met.

        Args:
            choose: Given what a removal costs (1 being the goal), makes a choice; the last one counts.

        Returns:
            The measured speedup, where latency is a goal.

        Raises:
            Infeasible: Even the most that may go does not meet it.
        """
        if not self.is_measured:
            gone = choose(self._counted)
            self._check_counts(gone)
            return None
        aim, best = self._latency, None
        for attempt in range(_TRIES):
            self._progress("allocate", attempt / _TRIES)
            cost = self._aiming(aim)
            gone = choose(cost)
            self._check_counts(gone)
            measured = self._watch.ratio(cut(self._graph, gone))
            left = 1 / measured.value
            if best is None or _distance(left, self._latency) < best[0]:
                best = _distance(left, self._latency), aim, measured
            if _distance(left, self._latency) <= _CLOSE:
                return measured
            if cost(gone) > 1 and left > self._latency:
                break  # all that may go has gone
            # What was measured says how far off the prediction is around here.
            aim = self._predicted(gone) * self._latency / left
        assert best is not None
        _, aim, measured = best
        choose(self._aiming(aim))
        if 1 / measured.value > self._latency * (1 + _FAR):
            raise Infeasible(
                f"latency={self._goal.limits['latency']} cannot be reached: removal gets to {1 / measured.value:.2f} "
                f"of the original's ({times(measured.value)} as fast) here",
                hint="What stays may be frozen ('graphopt inspect --groups'), or held by keep, groups and exclude.",
            )
        return measured

    def _check_counts(self, gone: Mask) -> None:
        for name, limit in self._limits.items():
            left = self._expense.left(gone, name)
            if left > limit * (1 + 1e-9):
                raise Infeasible(
                    f"{name}={self._goal.limits[name]} cannot be reached: {left:.3f} of the original's is left "
                    "when all goes that may go",
                    hint="Set a goal above that, lower keep, or see with 'graphopt inspect --groups' what is frozen.",
                )


def _distance(left: float, limit: float) -> float:
    """How far a latency is from its limit; below it counts half, since faster is no failure."""
    off = left / limit - 1
    return off if off > 0 else -off / 2
