"""Builds a variant and says how good it is: everything that may run in another process, on another machine.

A trial reads what it needs from the folder of the run, and leaves its models there. Latency is not measured here:
trials may run beside each other.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from graphopt import io
from graphopt.compression.context import Context
from graphopt.compression.gates import Check
from graphopt.compression.judging import Judge
from graphopt.compression.metrics import classes
from graphopt.compression.points import Variant
from graphopt.errors import GraphoptError
from graphopt.pruning.report import Size

__all__ = ["Outcome", "Trial", "run"]


@dataclasses.dataclass(frozen=True)
class Trial:
    """Variants that share all but the precision, in the folder of a run."""

    folder: str
    variants: tuple[Variant, ...]


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of a variant.

    Attributes:
        variant: Which.
        size: What it costs.
        score: On the samples to choose by.
        lost: Of the original's score, as a share of it.
        drop: The same, in percentage points, or in the metric's own unit.
        complaint: The gate that it failed there, or why it could not be built; empty if all is well.
        broken: Whether it could not be built.
        grain: What one sample counts for in the score, where that is a share of right answers; else 0.
    """

    variant: Variant
    size: Size
    score: float
    lost: float
    drop: float
    complaint: str
    broken: bool = False
    grain: float = 0.0


def run(trial: Trial, context: Context | None = None) -> list[Outcome]:
    """Runs a trial; what is there from an earlier run is taken.

    A variant that cannot be built is an outcome, too: the search goes on with the others.
    """
    from threadpoolctl import threadpool_limits

    own = context or Context.open(trial.folder)
    # Sums come out a little different with other numbers of threads: the same everywhere, if they were named.
    with threadpool_limits(own.settings.threads):
        return [_outcome(own, one) for one in trial.variants]


def _outcome(context: Context, variant: Variant) -> Outcome:
    name = f"variants/{variant.name}.json"
    kept = context.workspace.read(name)
    if kept is not None:
        with contextlib.suppress(KeyError, TypeError):  # damaged: it is judged again
            return _from_dict(kept)
    try:
        path = context.variant(variant)
        found = _judged(context, variant, path)
    except GraphoptError as error:
        if variant.is_whole and variant.precision == "float32":
            raise
        nothing = Size(0, 0, 0, 0, 0)
        # Not kept: the next run may have what was lacking.
        return Outcome(variant, nothing, -math.inf, math.inf, math.inf, error.message, broken=True)
    context.workspace.write(name, dataclasses.asdict(found))
    return found


def _judged(context: Context, variant: Variant, path: Path) -> Outcome:
    judge = context.chooser
    audit = judge.audit(path)
    first = audit.checks[0]
    base, after = judge.base, first.after
    lost = (base - after) * judge.metric.is_better / max(abs(base), 1e-30)
    failed = audit.failed
    complaint = _described(failed[0]) if failed else _close_call(first, judge, path)
    size = context.size(io.load(path))
    if not math.isfinite(after):
        return Outcome(variant, size, -math.inf, math.inf, math.inf, complaint or f"{first.name}: {after}")
    grain = 1 / max(1, len(judge.truth)) if judge.counts_classes else 0.0
    return Outcome(variant, size, after * judge.metric.is_better, lost, first.harm, complaint, grain=grain)


def _close_call(check: Check, judge: Judge, path: Path) -> str:
    """Whether a drop is within its limit only by the luck of the draw: closer to it than a standard error.

    Other samples would fail it as often as not. Only where samples are right or wrong.
    """
    if check.limit is None or check.harm <= 0 or not judge.counts_classes:
        return ""
    truth = judge.truth
    old, new = (classes(one, truth) == truth for one in (judge.before, judge.outputs(path)))
    error = 100 * float((old.astype(int) - new).std()) / math.sqrt(max(1, old.size))
    if check.harm + error <= check.limit:
        return ""
    return f"{check.name}: {check.harm:.3g} ± {error:.2g} lost, {check.limit:.3g} allowed"


def _described(check: Check) -> str:
    """A failed gate in a few words."""
    where = f" {check.where}" if check.where else ""
    return (
        f"{check.name}{where} {check.before:.4g} to {check.after:.4g}, {check.harm:.3g} lost, {check.limit:.3g} allowed"
    )


def _from_dict(data: Mapping[str, Any]) -> Outcome:
    return Outcome(
        Variant(**(data["variant"] | {"sizes": tuple(map(tuple, data["variant"]["sizes"]))})),
        Size(**data["size"]),
        *(data[name] for name in ("score", "lost", "drop", "complaint", "broken", "grain")),
    )
