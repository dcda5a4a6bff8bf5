"""Runs a list of passes over a model until nothing changes."""

from __future__ import annotations

import collections
import dataclasses
import time
from collections.abc import Callable, Sequence

import onnx_ir as ir

from graphopt import collector
from graphopt.errors import GraphoptError
from graphopt.names import key
from graphopt.pipeline.base import Context, GraphPass, Pass, RulePass, Safety
from graphopt.rewrite.driver import Driver

__all__ = ["RunStats", "drop_initializer_inputs", "run"]

MAX_ROUNDS = 50
"""A bound against passes that undo each other; real models settle in two or three rounds."""


@dataclasses.dataclass(slots=True)
class RunStats:
    """What a run did.

    Attributes:
        counts: Changes made, by pass name.
        seconds: Time spent, by graph-pass name; all rules together under ``"rules"``.
        rounds: How often the list was gone through.
        references: What the lossy passes that changed something must be compared with, by name.
    """

    counts: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    seconds: dict[str, float] = dataclasses.field(default_factory=lambda: collections.defaultdict(float))
    rounds: int = 0
    references: dict[str, ir.Model | None] = dataclasses.field(default_factory=dict)


def run(
    model: ir.Model,
    passes: Sequence[Pass],
    context: Context,
    *,
    check: Callable[[ir.Model], None] | None = None,
    progress: Callable[[str], None] | None = None,
) -> RunStats:
    """Rewrites ``model`` in place.

    All rule passes share one driver, placed where the first of them stands; whole-graph passes run in the order
    given. The sequence is repeated while anything changes, and then looks only at what did; late passes wait until
    nothing else does. A lossy whole-graph pass runs once: it would always find more to take away.

    Args:
        model: The model to change.
        passes: What to run.
        context: Knowledge about ``model``; made for it.
        check: Called after each rewrite and each whole-graph pass with the model (debug mode).
        progress: Called with the name of what runs next.

    Raises:
        GraphoptError: ``check`` failed; the message names the pass.
    """
    stats = RunStats()
    checked = _checker(model, check)
    stages = _stages(passes, context, checked)
    last_change = dict.fromkeys(range(len(stages)), -1)
    changes = 0
    operators = _Operators(context)
    with collector.paused():
        while stats.rounds < MAX_ROUNDS:
            stats.rounds += 1
            before = changes
            for index, stage in enumerate(stages):
                if last_change[index] == changes or (changes != before and isinstance(stage, GraphPass) and stage.late):
                    continue
                if isinstance(stage, GraphPass) and stage.safety is Safety.LOSSY and last_change[index] >= 0:
                    continue
                if isinstance(stage, GraphPass) and not operators.has_any(stage.needs, changes):
                    last_change[index] = changes
                    continue
                name = "rules" if isinstance(stage, Driver) else stage.name
                if progress is not None:
                    progress(name)
                start = time.perf_counter()
                changes += _run_stage(stage, stages, model, context, stats)
                stats.seconds[name] += time.perf_counter() - start
                last_change[index] = changes
                if not isinstance(stage, Driver) and checked is not None:
                    checked(stage.name)
            if changes == before:
                break
    return stats


class _Operators:
    """The operator types of a model, looked at again only after it changed."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._found: frozenset[str] = frozenset()
        self._changes = -1

    def has_any(self, needs: frozenset[str], changes: int) -> bool:
        """Whether the model, after so many changes, has any operator of ``needs``, if these are any."""
        if not needs:
            return True
        if self._changes != changes:
            self._found = frozenset(key(node) for scope in self._context.scopes() for node in scope.graph)
            self._changes = changes
        return not self._found.isdisjoint(needs)


def _stages(passes: Sequence[Pass], context: Context, check: Callable[[str], None] | None) -> list[Driver | GraphPass]:
    rules = [one for one in passes if isinstance(one, RulePass)]
    stages: list[Driver | GraphPass] = []
    driver: Driver | None = None
    for one in passes:
        if isinstance(one, GraphPass):
            stages.append(one)
        elif driver is None:
            driver = Driver(context, rules, check)
            driver.enqueue_all()
            stages.append(driver)
    return stages


def _run_stage(
    stage: Driver | GraphPass,
    stages: Sequence[Driver | GraphPass],
    model: ir.Model,
    context: Context,
    stats: RunStats,
) -> int:
    if isinstance(stage, Driver):
        before = stage.counts.copy()
        count = stage.run()
        stats.counts.update(stage.counts - before)
        return count
    outcome = stage.run(model, context)
    if not outcome.count:
        return 0
    stats.counts[stage.name] += outcome.count
    if stage.safety is Safety.LOSSY:
        stats.references[stage.name] = outcome.reference
    touched = None if outcome.touched is None else [node for node in outcome.touched if node.graph is not None]
    if touched == []:
        return 0  # nothing changed that another pass could see
    for other in stages:
        if isinstance(other, Driver):
            if touched is None:
                other.enqueue_all()
            else:
                other.enqueue(touched)
    return outcome.count


def _checker(model: ir.Model, check: Callable[[ir.Model], None] | None) -> Callable[[str], None] | None:
    if check is None:
        return None

    def checked(name: str) -> None:
        try:
            check(model)
        except GraphoptError as error:
            error.message = f"pass '{name}' left the model broken: {error.message}"
            error.args = (error.message,)
            raise

    return checked


def drop_initializer_inputs(model: ir.Model) -> int:
    """Takes initializers out of the graph inputs of a model older than IR version 4, and lifts it to version 4.

    Those versions had to list every initializer as an input, although no runtime lets a caller override one there
    (ONNX Runtime treats them as constants). Later versions need no such listing, and without it they can fold.

    Returns:
        How many listings went away.
    """
    if model.ir_version >= 4:
        return 0
    inputs = model.graph.inputs
    kept = [value for value in inputs if not value.is_initializer()]
    dropped = len(inputs) - len(kept)
    inputs.clear()
    inputs.extend(kept)
    model.ir_version = 4
    return dropped
