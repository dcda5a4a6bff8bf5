"""Puts onnx's own node cases through the passes and compares what ONNX Runtime computes before and after.

``python tests/equivalence/backend.py --all`` prints the figures; ``--rivals`` adds those of other optimizers.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import onnxruntime as ort

ROOT = Path(__file__).parents[2]
if __name__ == "__main__":
    sys.path[:1] = [str(ROOT), str(ROOT / "passes"), str(ROOT / "tests")]

from equivalence.cases import VARIANTS, Case  # noqa: E402
from equivalence.compare import difference, open_quietly, outputs  # noqa: E402

import graphopt  # noqa: E402
from graphopt.pipeline import registry  # noqa: E402
from graphopt.pipeline.base import Safety  # noqa: E402
from graphopt.runtime import ort_errors  # noqa: E402

__all__ = ["Verdict", "judge", "pass_names", "reference", "tally", "unharmed", "validated"]

Status = Literal["ran", "random", "not run", "not written"]


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What happened to one case in one variant.

    Attributes:
        case: Its name.
        variant: The variant's name.
        status: Whether ONNX Runtime runs the original.
        changed: How many passes (the default pipeline counts as one) changed something.
        failures: What went wrong, one line each.
    """

    case: str
    variant: str
    status: Status
    changed: int = 0
    failures: tuple[str, ...] = ()


@functools.cache
def pass_names() -> tuple[str, ...]:
    """Every installed pass that is not lossy."""
    return tuple(name for name in registry.catalogue() if registry.load_class(name).safety is not Safety.LOSSY)


def reference(case: Case) -> tuple[Status, list[Any]]:
    """What ONNX Runtime computes for the original; twice, to know whether it is random."""
    try:
        results = []
        for seed in (1, 2):
            ort.set_seed(seed)
            results.append(outputs(open_quietly(case.model.SerializeToString()), case.feeds))
    except ort_errors():
        return "not run", []
    if difference(results[0], results[1], exact=True):
        return "random", []
    return "ran", results[0]


def judge(case: Case, variant: str, specs: Sequence[str]) -> Verdict:
    """Runs each of ``specs`` alone on a variant of ``case``, validation off, and compares the results."""
    written = VARIANTS[variant](case)
    if written is None:
        return Verdict(case.name, variant, "not written")
    status, expected = reference(written)
    if status != "ran":
        return Verdict(case.name, variant, status)
    failures, changed, seen = [], 0, set()
    for spec in specs:
        try:
            model, report = graphopt.optimize(written.model, [spec], validate=False, with_report=True)
        except Exception as error:  # noqa: BLE001 -- any error is a failure of this case, and the rest shall run
            failures.append(f"{spec}: {type(error).__name__}: {error}")
            continue
        changed += report.changed
        data = model.SerializeToString(deterministic=True)
        exact = all(one.safety == "exact" for one in report.passes if one.count)
        if (data, exact) in seen:
            continue
        seen.add((data, exact))
        if problem := _problem(written, model, data, expected, exact=exact):
            fired = ", ".join(one.name for one in report.passes if one.count)
            failures.append(f"{spec}: {problem} (fired: {fired or 'nothing'})")
    return Verdict(case.name, variant, status, changed, tuple(failures))


def _problem(case: Case, model: onnx.ModelProto, data: bytes, expected: list[Any], *, exact: bool) -> str:
    if _interface(case.model) != _interface(model):
        return "the interface changed"
    half = _computes_in_half(case.model)
    try:
        actual = outputs(data, case.feeds)
        return difference(expected, actual, exact=exact and not half, at_least=_HALF if half else 0)
    except ort_errors() as error:
        return f"the result does not run: {' '.join(str(error).split())[:300]}"


def _computes_in_half(model: onnx.ModelProto) -> bool:
    """Whether bits may change although a pass is exact.

    ONNX Runtime has few float16 kernels on the CPU: it computes in float32 between Casts of its own, and which of
    them cancel out depends on the nodes around.
    """
    values = [*model.graph.input, *model.graph.output, *model.graph.value_info]
    half = (onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16)
    return any(one.type.tensor_type.elem_type in half for one in values)


_HALF = 4e-3


def _interface(model: onnx.ModelProto) -> list[tuple[str, bytes]]:
    weights = {one.name for one in model.graph.initializer} if model.ir_version < 4 else set()
    inputs = [one for one in model.graph.input if one.name not in weights]
    return [(one.name, one.type.SerializeToString(deterministic=True)) for one in [*inputs, *model.graph.output]]


def validated(case: Case) -> str:
    """With validation on: what is wrong; empty when the result is proven and no pass was dropped.

    Where generated inputs do not fit (the case is about pads or sizes that must fit each other), its own are given.
    """
    _, report = graphopt.optimize(case.model, with_report=True)
    if report.status == "unproven":
        with tempfile.TemporaryDirectory() as folder:
            feeds = Path(folder) / "feeds.npz"
            np.savez(feeds, **case.feeds)
            _, report = graphopt.optimize(case.model, inputs=feeds, with_report=True)
    if report.dropped:
        return f"{case.name}: dropped {report.dropped[0].name}: {report.dropped[0].reason}"
    return "" if report.status == "proven" else f"{case.name}: {report.status}: {report.proof()}"


def unharmed(case: Case) -> tuple[str, bool]:
    """For a case that ONNX Runtime cannot run, validation on.

    Returns:
        What is wrong (it must come out unproven, by exact passes only, and mean the same), and whether onnx's
        reference evaluator could run it.
    """
    model, report = graphopt.optimize(case.model, with_report=True)
    if report.status == "proven":
        return "", False  # it runs on other inputs than its own
    if report.status != "unproven":
        return f"{case.name}: {report.status}", False
    if wrong := [one.name for one in report.passes if one.safety != "exact"]:
        return f"{case.name}: ran {wrong[0]}, which is not exact", False
    if _interface(case.model) != _interface(model):
        return f"{case.name}: the interface changed", False
    before = _evaluate(case.model, case)
    if before is None or difference(_plain(before), _plain(_evaluate(case.model, case) or []), exact=True):
        return "", False  # not supported, or random
    after = _evaluate(model, case)
    if after is None:
        return f"{case.name}: the reference evaluator ran the original and not the result", True
    found = difference(_plain(before), _plain(after), exact=True)
    return (f"{case.name}: {found}" if found else ""), True


def _evaluate(model: onnx.ModelProto, case: Case) -> list[Any] | None:
    from onnx.reference import ReferenceEvaluator

    try:
        result = list(ReferenceEvaluator(model).run(None, dict(case.feeds)))
    except Exception:  # noqa: BLE001 -- it raises anything at what it does not support
        return None
    return result


def _plain(results: list[Any]) -> list[Any]:
    """ml_dtypes arrays as their bits, so that they compare like any other."""
    return [
        one.view(f"u{one.dtype.itemsize}") if getattr(one, "dtype", None) is not None and one.dtype.kind == "V" else one
        for one in results
    ]


def tally(verdicts: Sequence[Verdict]) -> dict[str, int]:
    """Counts by variant and status."""
    counts: collections.Counter[str] = collections.Counter()
    for one in verdicts:
        counts[f"{one.variant}: {one.status}"] += 1
        if one.status == "ran":
            counts[f"{one.variant}: equal"] += not one.failures
            counts[f"{one.variant}: changes by a pass"] += one.changed
    return dict(counts)


if __name__ == "__main__":
    from equivalence.backend_figures import main

    main()
