"""Has variants built and judged where trials run, and measured here: what the search asks for, made into points."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from collections.abc import Callable, Iterable, Sequence

from graphopt.compression.choosing import Chooser
from graphopt.compression.clock import Clock
from graphopt.compression.context import Context
from graphopt.compression.executors import Executor
from graphopt.compression.points import Point, Variant
from graphopt.compression.trial import Outcome, Trial
from graphopt.compression.workspace import Workspace
from graphopt.pruning.expense import COUNTED
from graphopt.pruning.plan import Plan
from graphopt.pruning.report import Size

__all__ = ["Evaluator", "write_plan"]


class Evaluator:
    """Makes points of variants, all of a list at once.

    Args:
        context: What all trials share.
        before: What the original costs.
        chooser: Says what goes; ``None`` if nothing can.
        clock: Tells latencies.
        run: Where trials run.
        progress: Called with what is done.
        note: Called with what a user should know.
    """

    def __init__(
        self,
        context: Context,
        before: Size,
        *,
        chooser: Chooser | None,
        clock: Clock,
        run: Executor,
        progress: Callable[[str, float | None], None],
        note: Callable[[str], None],
    ) -> None:
        self._context = context
        self._before = before
        self._chooser = chooser
        self._clock = clock
        self._run = run
        self._progress = progress
        self._note = note
        self._ends: set[float] = set()
        self._noted: set[str] = set()
        self._cuts: dict[str, Variant] = {}
        self._first: dict[str, Variant] = {}

    def __call__(self, variants: Sequence[Variant]) -> list[Point]:
        """One point for each variant."""
        built = [self._built(one) for one in variants]
        trials = [Trial(str(self._context.workspace.folder), own) for own in _grouped(built)]
        self._progress(f"{len(variants)} variants, {variants[0].name} first", None)
        outcomes = {one.variant: one for one in itertools.chain.from_iterable(self._run(trials))}
        return [self._point(variant, outcomes[twin]) for variant, twin in zip(variants, built, strict=True)]

    def _built(self, variant: Variant) -> Variant:
        """The variant to build for one: itself, unless the same goes from an earlier one.

        Sizes that the hardware likes are few, so that many ways lead to the same.
        """
        if variant.is_whole:
            return variant
        if variant.cut not in self._cuts:
            assert self._chooser is not None
            plan, is_last = self._chooser.plan(variant)
            if is_last:
                self._ends.add(variant.way)
            write_plan(plan, self._context.workspace, variant)
            gone = json.dumps([sorted(plan.removed.items()), plan.blocks])
            self._cuts[variant.cut] = self._first.setdefault(gone, variant)
        return dataclasses.replace(self._cuts[variant.cut], precision=variant.precision, trained=variant.trained)

    def _point(self, variant: Variant, outcome: Outcome) -> Point:
        twin = None if outcome.variant == variant else outcome.variant
        if outcome.broken:
            if outcome.complaint not in self._noted:
                self._noted.add(outcome.complaint)
                self._note(f"{variant.name} could not be built: {outcome.complaint}")
            left = dict.fromkeys((*COUNTED, "latency"), math.inf)
        else:
            left = {name: _share(getattr(outcome.size, name), getattr(self._before, name)) for name in COUNTED}
            left["latency"] = self._clock.share(self._context.variant(outcome.variant))
        found = (outcome.score, outcome.lost, outcome.drop, outcome.complaint)
        return Point(variant, left, *found, variant.way in self._ends, outcome.grain, twin)


def write_plan(plan: Plan, workspace: Workspace, variant: Variant) -> None:
    """Leaves what goes in the folder of the run, for trials."""
    name = f"plans/{variant.cut}.json"
    if workspace.read(name) is None:
        workspace.write_text(name, plan.to_json())


def _share(after: int, before: int) -> float:
    """What is left; of nothing, all."""
    return after / before if before else 1.0


def _grouped(variants: Iterable[Variant]) -> list[tuple[Variant, ...]]:
    """Those that differ in the precision only, together."""
    found: dict[tuple[str, bool], dict[Variant, None]] = {}
    for one in variants:
        found.setdefault((one.cut, one.trained), {})[one] = None
    return [tuple(own) for own in found.values()]
