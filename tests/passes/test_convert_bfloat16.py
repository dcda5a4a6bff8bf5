"""convert-bfloat16: what it does otherwise than convert-float16, whose tests see to the rest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import pytest
from harness import apply, lines, parse

import graphopt
from graphopt import proto
from graphopt.errors import ModelError
from graphopt.pipeline.base import Context

BRAIN, SINGLE = ir.DataType.BFLOAT16, ir.DataType.FLOAT
SPEC = "convert-bfloat16"


def model(body: str, opset: int = 22, x: str = "float[N,4] x", **weights: Any) -> ir.Model:
    held = {name: np.asarray(contents, np.float32) for name, contents in weights.items()}
    return parse(f'<ir_version: 10, opset_import: ["" : {opset}]> agraph ({x}) => (float[N,4] y) {{ {body} }}', held)


def converted(before: ir.Model, spec: str = SPEC) -> ir.Model:
    result, stats, _ = apply(before, spec)
    assert stats.counts[SPEC]
    message = proto.to_proto(result)
    onnx.checker.check_model(onnx.shape_inference.infer_shapes(message, check_type=True, strict_mode=True))
    assert not apply(result, spec)[1].counts, "not idempotent"
    return result


def kinds(result: ir.Model, op_type: str) -> list[ir.DataType | None]:
    shapes = Context(result).shapes
    return [shapes.dtype(node.outputs[0]) for node in result.graph if node.op_type == op_type]


def weight(result: ir.Model, name: str) -> np.ndarray[Any, Any]:
    tensor = result.graph.initializers[name].const_value
    assert tensor is not None
    return tensor.numpy()


def test_weights_and_what_is_computed() -> None:
    held = np.linspace(-3, 3, 16).reshape(4, 4)
    result = converted(model("t = MatMul (x, w) y = Relu (t)", w=held))
    assert lines(result) == [
        "x_bfloat16 = Cast<to=16>(x)",
        "t = MatMul(x_bfloat16, w)",
        "y_float = Relu(t)",
        "y = Cast<to=1>(y_float)",
    ]
    np.testing.assert_array_equal(weight(result, "w"), held.astype(np.float32).astype(ml_dtypes.bfloat16))


def test_what_needs_range_is_converted_and_what_needs_digits_is_not() -> None:
    result = converted(model("e = Exp (x) p = Mul (e, e) s = Sin (p) y = Neg (s)"))
    assert kinds(result, "Exp") == kinds(result, "Mul") == kinds(result, "Neg") == [BRAIN]
    assert kinds(result, "Sin") == [SINGLE]


def test_the_largest_number_of_float32_does_not_become_infinite() -> None:
    lowest = float(np.finfo(np.float32).min)
    body = "k = Less (x, z) y = Where (k, w, x)"
    result = converted(model(body, z=0.0, w=lowest))
    assert -np.inf < float(weight(result, "w")) < -1e38


@pytest.mark.parametrize(("opset", "kind"), [(21, SINGLE), (22, BRAIN)])
def test_operators_that_have_no_bfloat16_yet(opset: int, kind: ir.DataType) -> None:
    body = "u = Unsqueeze (x, a) c = Conv (u, w) r = Relu (c) y = Squeeze (r, a)"
    before = parse(
        f"""<ir_version: 10, opset_import: ["" : {opset}]> agraph (float[N,4] x) => (float[N,4] y) {{ {body} }}""",
        {"w": np.ones((4, 4, 1), np.float32), "a": np.array([2])},
    )
    result = converted(before)
    assert kinds(result, "Conv") == [kind]
    assert kinds(result, "Relu") == [BRAIN]


def test_operator_sets_that_have_no_bfloat16_yet() -> None:
    with pytest.raises(ModelError, match="operator set 12, for which the model is written, has no bfloat16"):
        apply(model("y = Relu (x)", 12), SPEC)
    body = """y = If (c) <then_branch = g1 () => (float[N,4] a) { a = Relu (x) },
        else_branch = g2 () => (float[N,4] b) { b = Neg (x) }>"""
    for opset, kind in ((13, SINGLE), (16, BRAIN)):
        assert kinds(converted(model(body, opset, "float[N,4] x, bool c")), "If") == [kind]


def test_it_is_dropped_where_nothing_runs_it(tmp_path: Path) -> None:
    """ONNX Runtime's CPU provider has no such kernels, and says so; nothing is claimed that is not proven."""
    before = model("t = MatMul (x, w) y = Relu (t)", w=np.eye(4))
    result, report = graphopt.optimize(before, [SPEC], with_report=True)
    assert lines(result) == lines(before)
    assert "the candidate does not run" in report.dropped[0].reason
    assert "Could not find an implementation" in report.dropped[0].reason
    unproven, report = graphopt.optimize(before, [SPEC], validate=False, with_report=True)
    assert (report.status, kinds(unproven, "MatMul")) == ("unverified", [BRAIN])
    graphopt.save(unproven, tmp_path / "b.onnx")
    assert lines(graphopt.load(tmp_path / "b.onnx")) == lines(unproven)


@pytest.mark.parametrize("keep_io", ["yes", "no"])
def test_the_interface(keep_io: str) -> None:
    result = apply(model("t = MatMul (x, w) y = Relu (t)", w=np.eye(4)), f"{SPEC}:keep-io={keep_io}")[0]
    assert result.graph.inputs[0].dtype == result.graph.outputs[0].dtype == (SINGLE if keep_io == "yes" else BRAIN)
