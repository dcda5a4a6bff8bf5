"""What pass tests share: models from ONNX text, running one pass, and the proof that nothing changed."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import onnxruntime as ort

from graphopt import proto
from graphopt.pipeline import registry, runner
from graphopt.pipeline.base import Context, Safety, Target
from graphopt.verify import structure

__all__ = ["apply", "calls", "feeds", "fires", "lines", "misses", "parse", "run", "unchanged"]

Array = npt.NDArray[Any]
_TOLERANCE = {"float16": 4e-3, "float32": 2e-5, "float64": 1e-12, "bfloat16": 4e-2}


def parse(text: str, weights: Mapping[str, Any] | None = None) -> ir.Model:
    """A model from ONNX text; ``weights`` (arrays or ``onnx_ir`` tensors) become initializers of the main graph.

    The header may be left out: ``agraph (float[N,4] x) => (float[N,4] y) {...}`` gets IR version 10 and opset 21.
    """
    if not text.lstrip().startswith("<"):
        text = '<ir_version: 10, opset_import: ["" : 21]>\n' + text
    parsed = onnx.parser.parse_model(text)
    for name, contents in (weights or {}).items():
        tensor = onnx.numpy_helper.from_array(contents, name) if isinstance(contents, np.ndarray) else None
        parsed.graph.initializer.append(tensor if tensor is not None else ir.to_proto(contents))
    return proto.from_proto(parsed)


def apply(model: ir.Model, *specs: str, target: Target = Target.PORTABLE) -> tuple[ir.Model, runner.RunStats, Context]:
    """Runs passes on a copy of ``model``, checking the structure after every rewrite."""
    copy = proto.from_proto(proto.to_proto(model))
    runner.drop_initializer_inputs(copy)
    context = Context(copy, target=target, explain=True)
    stats = runner.run(copy, registry.resolve(specs), context, check=structure.check)
    return copy, stats, context


def lines(model: ir.Model | ir.Graph | ir.Function) -> list[str]:
    """One line a node, ``z = Relu(x)``, attributes sorted and in ``<>``, tensors and graphs left out of them."""
    graph = model.graph if isinstance(model, ir.Model) else model
    return [_line(node) for node in graph]


def _line(node: ir.Node) -> str:
    name = f"{node.domain}::{node.op_type}" if node.domain else node.op_type
    plain = [
        f"{key}={attribute.value!r}" if not attribute.is_ref() else f"{key}=@{attribute.ref_attr_name}"
        for key, attribute in sorted(node.attributes.items())
        if attribute.is_ref() or attribute.type.name in ("INT", "INTS", "FLOAT", "FLOATS", "STRING", "STRINGS")
    ]
    attributes = f"<{', '.join(plain)}>" if plain else ""
    inputs = ", ".join(value.name or "" if value is not None else "" for value in node.inputs)
    return f"{', '.join(output.name or '' for output in node.outputs)} = {name}{attributes}({inputs})"


def calls(function: Callable[[], object]) -> int:
    """How many calls, of Python's functions and of built-in ones, ``function`` makes in this thread.

    What a test of linear growth compares: unlike a time, it is the same on a busy machine.
    """
    count = 0

    def profile(_frame: object, event: str, _argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(profile)
    try:
        function()
    finally:
        sys.setprofile(before)
    return count


def feeds(model: ir.Model, seed: int = 0, sizes: Mapping[str, int] | None = None) -> dict[str, Array]:
    """Seeded inputs; a symbolic dim is 3 unless ``sizes`` says otherwise."""
    random = np.random.default_rng(seed)
    made: dict[str, Array] = {}
    for value in model.graph.inputs:
        if value.is_initializer():
            continue
        assert value.name is not None
        assert value.shape is not None
        assert value.dtype is not None
        shape = [dim if isinstance(dim, int) else (sizes or {}).get(str(dim), 3) for dim in value.shape]
        kind = value.dtype.numpy()
        if kind.kind == "b":
            made[value.name] = np.asarray(random.random(shape) < 0.5)
        elif kind.kind in "iu":
            made[value.name] = np.asarray(random.integers(0, 3, shape), kind)
        else:
            made[value.name] = np.asarray(random.standard_normal(shape), kind)
    return made


def run(model: ir.Model, inputs: Mapping[str, Array]) -> list[Any]:
    """The outputs under ONNX Runtime, its own optimisations off."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    session = ort.InferenceSession(proto.to_proto(model).SerializeToString(), options, ["CPUExecutionProvider"])
    return list(session.run(None, dict(inputs)))


def fires(
    name: str,
    before: ir.Model,
    after: Sequence[str] | None = None,
    *,
    count: int | None = None,
    sizes: Mapping[str, int] | None = None,
    target: Target = Target.PORTABLE,
) -> ir.Model:
    """Asserts that the pass changes ``before`` into ``after`` and that the results stay the same.

    Checked besides: the structure after every rewrite, the interface, that a second run finds nothing, that the
    model still passes onnx's checker, and equal results on three seeded inputs (bit-equal for an exact pass).

    Args:
        name: Pass spec.
        before: The model.
        after: The expected :func:`lines`; not compared if ``None``.
        count: The expected number of changes; at least one if ``None``.
        sizes: Values of symbolic dims for the numeric check.
        target: Where the result must run.
    """
    result, stats, context = apply(before, name, target=target)
    pass_name = name.partition(":")[0]
    assert stats.counts[pass_name] == count if count is not None else stats.counts[pass_name] > 0, context.misses
    if after is not None:
        assert lines(result) == list(after)
    _same_interface(before, result)
    onnx.checker.check_model(proto.to_proto(result))
    _, again, _ = apply(result, name, target=target)
    assert not again.counts, f"not idempotent: {again.counts}"
    exact = registry.create(name).safety is Safety.EXACT
    for seed in range(3):
        inputs = feeds(before, seed, sizes)
        _assert_equal(run(before, inputs), run(result, inputs), exact)
    return result


def unchanged(name: str, before: ir.Model, target: Target = Target.PORTABLE) -> None:
    """Asserts that the pass finds nothing to change."""
    result, stats, _ = apply(before, name, target=target)
    assert not stats.counts
    assert lines(result) == lines(before)


def misses(name: str, before: ir.Model, target: Target = Target.PORTABLE) -> list[str]:
    """The reasons the pass gives for not applying; asserts that it changes nothing."""
    result, stats, context = apply(before, name, target=target)
    assert not stats.counts
    assert lines(result) == lines(before)
    return list(context.misses.get(name.partition(":")[0], {}))


def _same_interface(before: ir.Model, after: ir.Model) -> None:
    def interface(values: Sequence[ir.Value]) -> list[tuple[Any, ...]]:
        return [(value.name, value.type, value.shape) for value in values if not value.is_initializer()]

    assert interface(before.graph.inputs) == interface(after.graph.inputs)
    assert [value.name for value in before.graph.outputs] == [value.name for value in after.graph.outputs]
    assert [value.shape for value in before.graph.outputs] == [value.shape for value in after.graph.outputs]


def _assert_equal(expected: Sequence[Any], actual: Sequence[Any], exact: bool) -> None:
    assert len(expected) == len(actual)
    for one, other in zip(expected, actual, strict=True):
        if isinstance(one, list):
            _assert_equal(one, other, exact)
            continue
        assert one.dtype == other.dtype
        assert one.shape == other.shape
        if exact or one.dtype.kind not in "fV":
            np.testing.assert_array_equal(one, other)
            if one.dtype.kind == "f":
                np.testing.assert_array_equal(np.signbit(one), np.signbit(other))  # -0.0 == 0.0
        else:
            scale = float(np.max(np.abs(one), initial=0, where=np.isfinite(one)))
            bound = _TOLERANCE[one.dtype.name]
            np.testing.assert_allclose(other, one, rtol=bound, atol=bound * scale)
