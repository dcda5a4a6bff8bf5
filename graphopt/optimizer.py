"""``optimize``: passes, then proof, then the model. Lossy passes come first: see :mod:`graphopt.pipeline.lossy`."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from graphopt.errors import NotEquivalent, UsageError
from graphopt.interop import ir_passes
from graphopt.interop.kinds import Source
from graphopt.pipeline import lossy, registry, runner
from graphopt.pipeline.base import Context, Pass, Safety, Target
from graphopt.pipeline.report import DroppedPass, PassCount, Report, Summary
from graphopt.proto import signatures
from graphopt.verify import structure
from graphopt.verify.bisect import first_bad

if TYPE_CHECKING:
    from graphopt.verify.equivalence import Verifier
    from graphopt.verify.result import Equivalence

__all__ = ["optimize"]

_PRESET = {Target.PORTABLE: "default", Target.ORT_CPU: "ort-cpu", Target.ORT_CUDA: "ort-cuda"}


def optimize(
    source: Any,
    passes: Iterable[str | Pass | ir.passes.PassBase] | None = None,
    *,
    skip: Iterable[str] = (),
    target: str = "portable",
    exact: bool = False,
    validate: bool = True,
    strict: bool = False,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    inputs: str | Path | None = None,
    mask: str | Path | None = None,
    provider: str = "cpu",
    seed: int = 0,
    time_limit: float = 600,
    memory_limit: int | None = None,
    custom_ops: Sequence[str] = (),
    allow_loss: bool = False,
    explain: bool = False,
    debug: bool = False,
    progress: Callable[[str], None] | None = None,
    with_report: bool = False,
) -> Any:
    """Rewrites a model into a smaller, faster one and proves that it does the same job.

    Lossy passes, which only run where ``passes`` asks for them, come before all others. Each must equal the model that
    it claims to (the one with zeros in place of what it removed); the others are compared with what they left.

    Args:
        source: A path, an ``onnx_ir.Model``, an ``onnx.ModelProto`` or an ``onnx_graphsurgeon.Graph``; never changed.
        passes: Pass specs, presets, pass objects or stock onnx_ir passes; the target's preset if ``None``.
        skip: Names of passes to leave out.
        target: ``portable``, ``ort-cpu`` or ``ort-cuda``.
        exact: Only passes that change no bit of any result.
        validate: Compare the result with the original (after its lossy passes) in ONNX Runtime.
        strict: A pass that makes the result wrong is an error, not dropped; so is an original that cannot be run.
        input_shapes: Shapes of inputs to validate with, by input name.
        inputs: A file of inputs to validate with, instead of generated ones.
        mask: A file that says which weights are zero (:func:`graphopt.channels.apply_mask`). It is applied before
            everything, so the result is compared with the masked model.
        provider: Execution provider to validate on.
        seed: Of generated inputs.
        time_limit: Seconds that validation may take.
        memory_limit: Bytes that the validating process may use.
        custom_ops: Custom-operator libraries to load; none otherwise.
        allow_loss: Accept that a graphsurgeon graph cannot hold all of the model.
        explain: Keep the reasons why passes did not apply.
        debug: Check the structure of the model after every rewrite.
        progress: Called with the name of what happens next.
        with_report: Return ``(model, report)``.

    Returns:
        The optimized model, of the kind that came in (a path gives an ``onnx_ir.Model``).

    Raises:
        ModelError: The model, the inputs or the mask cannot be read, or do not fit each other.
        UsageError: An unknown pass, preset, target or option.
        NotEquivalent: ``strict`` and the result differs, or no pass is to blame.
        LimitReached: Validation ran out of time or memory.
    """
    for name, given in (("passes", passes), ("skip", skip)):
        if isinstance(given, str):
            raise UsageError(f"{name} takes a list of names", hint=f"Write {name}=[{given!r}] for one.")
    platform = _target(target)
    wanted = [_PRESET[platform]] if passes is None else [_as_pass(one) for one in passes]
    chosen = registry.resolve(wanted, skip)
    if exact:
        chosen = [one for one in chosen if one.safety is Safety.EXACT]
    origin = Source.of(source, allow_loss=allow_loss)
    if mask is not None:
        origin = _masked(origin, Path(mask))
    verification: dict[str, Any] = {
        "shapes": dict(input_shapes or {}),
        "feeds_file": Path(inputs).absolute() if inputs is not None else None,
        "provider": provider,
        "seed": seed,
        "time_limit": time_limit,
        "memory_limit": memory_limit,
        "custom_ops": custom_ops,
    }
    losing, chosen = lossy.apart(chosen)
    loss = None
    if losing:
        loss = lossy.lose(
            origin.read(),
            losing,
            verification if validate else None,
            target=platform,
            strict=strict,
            check=structure.check if debug else None,
            progress=progress,
        )
        origin = dataclasses.replace(Source.of(loss.model), give_back=origin.give_back)
    with contextlib.ExitStack() as stack:
        verifier: Verifier | None = None
        if validate:
            from graphopt.verify.equivalence import Verifier

            # Bits are promised on the provider that folds the constants.
            exactly = provider == "cpu" and all(one.safety is Safety.EXACT for one in chosen)
            verifier = stack.enter_context(Verifier(origin.original, **verification, exact=exactly))
        job = _Job(origin, platform, verifier, strict=strict, explain=explain, debug=debug, progress=progress)
        model, report = job.run(chosen)
    if loss is not None:
        loss.put_into(report)
    if mask is not None:
        report.notes.append(f"compared with the model under the mask {mask}")
    result = origin.give_back(model)
    return (result, report) if with_report else result


def _masked(origin: Source, mask: Path) -> Source:
    """The same model with weights zero, and what it is compared with too."""
    from graphopt.channels.liveness.masks import put_mask

    model = origin.read()
    put_mask(model, mask)
    return dataclasses.replace(Source.of(model), give_back=origin.give_back)


def _as_pass(item: str | Pass | ir.passes.PassBase) -> str | Pass:
    return ir_passes.wrap(item) if isinstance(item, ir.passes.PassBase) else item


def _target(name: str) -> Target:
    from graphopt.pipeline.spec import close_match

    try:
        return Target(name)
    except ValueError:
        raise UsageError(
            f"there is no target '{name}'", hint=close_match(name, [one.value for one in Target])
        ) from None


class _Job:
    """One optimisation: run, verify, and while the result is wrong find the guilty pass and run without it."""

    def __init__(
        self,
        origin: Source,
        target: Target,
        verifier: Verifier | None,
        *,
        strict: bool,
        explain: bool,
        debug: bool,
        progress: Callable[[str], None] | None,
    ) -> None:
        self._origin = origin
        self._target = target
        self._verifier = verifier
        self._strict = strict
        self._explain = explain
        self._check = structure.check if debug else None
        self._progress = progress or (lambda _: None)
        self._seconds: dict[str, float] = {}

    def run(self, passes: list[Pass]) -> tuple[ir.Model, Report]:
        """Runs ``passes``, proves the result, and returns it with the record."""
        dropped: list[DroppedPass] = []
        model, report = self._attempt(passes)
        equivalence = self._verify(model)
        if equivalence is not None and equivalence.status == "unproven":
            passes, removed = self._exact_only(passes, equivalence)
            dropped += removed
            if removed:
                model, report = self._attempt(passes)
        while equivalence is not None and equivalence.status == "different":
            passes, guilty = self._without_guilty(passes, equivalence)
            dropped.append(guilty)
            model, report = self._attempt(passes)
            equivalence = self._verify(model)
        report.dropped = dropped
        report.equivalence = equivalence
        report.notes += equivalence.notes if equivalence is not None else ()
        status = "unverified" if equivalence is None else equivalence.status
        report.status = "proven" if status == "equal" else status
        report.seconds = dict(self._seconds)
        return model, report

    def _attempt(self, passes: Sequence[Pass]) -> tuple[ir.Model, Report]:
        with self._timed("load"):
            model = self._origin.read()
            signatures.check(model)
        before = Summary.of(model)
        with self._timed("passes"):
            runner.drop_initializer_inputs(model)
            context = Context(model, target=self._target, explain=self._explain)
            stats = runner.run(model, passes, context, check=self._check, progress=self._progress)
        misses = {
            name: {reason: (count, context.examples[name, reason]) for reason, count in reasons.most_common()}
            for name, reasons in context.misses.items()
        }
        report = Report(
            before,
            Summary.of(model),
            [PassCount(one.name, one.safety.name.lower(), stats.counts[one.name]) for one in passes],
            status="unverified",
            target=self._target.value,
            rounds=stats.rounds,
            misses=misses,
        )
        return model, report

    def _verify(self, model: ir.Model) -> Equivalence | None:
        if self._verifier is None:
            return None
        self._progress("verify")
        with self._timed("verify"):
            return self._verifier.check(model)

    def _exact_only(self, passes: list[Pass], equivalence: Equivalence) -> tuple[list[Pass], list[DroppedPass]]:
        if self._strict:
            raise NotEquivalent(
                f"the original cannot be run, so nothing can be proven: {equivalence.message}",
                hint="Without --strict, exact passes are applied and the result is marked unproven.",
            )
        exact = [one for one in passes if one.safety is Safety.EXACT]
        reason = "it is not exact, and the original cannot be run to prove the result"
        return exact, [DroppedPass(one.name, reason) for one in passes if one.safety is not Safety.EXACT]

    def _without_guilty(self, passes: list[Pass], equivalence: Equivalence) -> tuple[list[Pass], DroppedPass]:
        self._progress("bisect")

        def is_good(prefix: Sequence[Pass]) -> bool:
            verdict = self._verify(self._attempt(prefix)[0])
            return verdict is None or verdict.status != "different"

        guilty = first_bad(passes, is_good)
        if guilty is None:
            raise NotEquivalent(
                f"the model differs from itself when nothing is changed: {equivalence.message}",
                hint="It is not deterministic, or too sensitive for generated inputs; give real ones with --inputs.",
            )
        if self._strict:
            raise NotEquivalent(
                f"pass '{guilty.name}' makes the result differ: {equivalence.message}",
                hint=f"Leave it out with --skip {guilty.name}, and please report it.",
            )
        return [one for one in passes if one is not guilty], DroppedPass(guilty.name, equivalence.message)

    @contextlib.contextmanager
    def _timed(self, step: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self._seconds[step] = self._seconds.get(step, 0.0) + time.perf_counter() - start
