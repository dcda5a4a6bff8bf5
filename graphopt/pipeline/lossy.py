"""Lossy passes come first, and what they leave is the new original.

Their results differ from the original on purpose, so comparing with it would call each of them a bug. Instead each
names a model that it must equal (the masked one, say) and is compared with that; whatever runs afterwards is compared
with what they left.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from graphopt.errors import NotEquivalent
from graphopt.pipeline import runner
from graphopt.pipeline.base import Context, Pass, Safety, Target
from graphopt.pipeline.report import DroppedPass, PassCount, Report, Summary
from graphopt.proto import signatures

if TYPE_CHECKING:
    from graphopt.verify.result import Equivalence

__all__ = ["Loss", "apart", "lose"]


def apart(passes: Sequence[Pass]) -> tuple[list[Pass], list[Pass]]:
    """The lossy passes, and the others, each in order."""
    lossy = [one for one in passes if one.safety is Safety.LOSSY]
    return lossy, [one for one in passes if one.safety is not Safety.LOSSY]


@dataclasses.dataclass(slots=True)
class Loss:
    """What lossy passes did to a model.

    Attributes:
        model: What they left.
        before: The model as it came.
        passes: Each pass with its number of changes.
        dropped: Those that were left out, because what they left is not what they claim or that cannot be proven.
        notes: What a user should know.
        seconds: Wall time by step.
    """

    model: ir.Model
    before: Summary
    passes: list[PassCount] = dataclasses.field(default_factory=list)
    dropped: list[DroppedPass] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)
    seconds: dict[str, float] = dataclasses.field(default_factory=dict)

    def put_into(self, report: Report) -> None:
        """Adds all this to the report of the passes that ran on what was left."""
        report.before = self.before
        report.passes[:0] = self.passes
        report.dropped[:0] = self.dropped
        report.notes[:0] = self.notes
        report.seconds = {
            step: self.seconds.get(step, 0.0) + report.seconds.get(step, 0.0)
            for step in dict.fromkeys((*report.seconds, *self.seconds))
        }
        changed = [one.name for one in self.passes if one.count]
        if changed:
            report.baseline = f"the model after {', '.join(changed)}"
            if report.equivalence is not None:
                report.notes.append(f"compared with {report.baseline}")


def lose(
    model: ir.Model,
    passes: Sequence[Pass],
    verification: Mapping[str, Any] | None,
    *,
    target: Target = Target.PORTABLE,
    strict: bool = False,
    check: Callable[[ir.Model], None] | None = None,
    progress: Callable[[str], None] | None = None,
) -> Loss:
    """Runs lossy passes in order, each once, and proves that each left what it claims.

    Args:
        model: The model; changed.
        passes: What to run.
        verification: Arguments of :class:`~graphopt.verify.equivalence.Verifier`; nothing is proven if ``None``.
        target: Where the result must run.
        strict: What cannot be proven is an error, not dropped.
        check: Called after each pass with the model (debug mode).
        progress: Called with the name of what happens next.

    Raises:
        NotEquivalent: ``strict``, and a pass left something else than it claims, or ONNX Runtime cannot run it.
        LimitReached: The comparison ran out of time or memory.
        GraphoptError: A pass cannot do what is asked of it.
    """
    signatures.check(model)
    loss = Loss(model, Summary.of(model))
    runner.drop_initializer_inputs(model)
    for one in passes:
        start = time.perf_counter()
        candidate = loss.model.clone()  # a pass that fails its proof leaves no trace
        candidate.meta.update(loss.model.meta)
        stats = runner.run(candidate, [one], Context(candidate, target=target), check=check, progress=progress)
        count = stats.counts[one.name]
        middle = time.perf_counter()
        refusal = ""
        if count and verification is not None:
            refusal = _prove(one, stats.references.get(one.name), candidate, verification, loss, strict, progress)
        for step, seconds in (("passes", middle - start), ("verify", time.perf_counter() - middle)):
            loss.seconds[step] = loss.seconds.get(step, 0.0) + seconds
        if refusal:
            loss.dropped.append(DroppedPass(one.name, refusal))
            count = 0
        else:
            loss.model = candidate
        loss.passes.append(PassCount(one.name, one.safety.name.lower(), count))
    return loss


def _prove(
    one: Pass,
    reference: ir.Model | None,
    candidate: ir.Model,
    verification: Mapping[str, Any],
    loss: Loss,
    strict: bool,
    progress: Callable[[str], None] | None,
) -> str:
    """Why the pass must be left out; empty if it left what it claims, or claims nothing."""
    if reference is None:
        loss.notes.append(f"{one.name} is lossy, and there is nothing that its own result could be compared with")
        return ""
    if progress is not None:
        progress("verify")
    verdict = _compare(reference, candidate, verification)
    if verdict.status == "equal":
        loss.notes.append(f"{one.name}: equal to the model that it stands for. {verdict.message}".strip())
        return ""
    if verdict.status == "unproven":
        message = f"the original cannot be run, so nothing can be proven: {verdict.message}"
        hint = "Without --strict, exact passes are applied and the result is marked unproven."
        reason = f"it is not exact, and the original cannot be run to prove the result: {verdict.message}"
    else:
        message = f"pass '{one.name}' did not leave what it claims: {verdict.message}"
        hint = f"Leave it out with --skip {one.name}, and please report it."
        reason = f"it did not leave what it claims: {verdict.message}"
    if strict:
        raise NotEquivalent(message, hint=hint)
    return reason


def _compare(reference: ir.Model, candidate: ir.Model, verification: Mapping[str, Any]) -> Equivalence:
    from graphopt.verify.equivalence import Verifier

    with Verifier(reference, **verification) as verifier:
        return verifier.check(candidate)
