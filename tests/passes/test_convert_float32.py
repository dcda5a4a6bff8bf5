"""convert-float32."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import pytest
from harness import apply, lines, parse, run

import graphopt
from graphopt import proto
from graphopt.pipeline.base import Context
from graphopt.verify.facts import Facts

RANDOM = np.random.default_rng(0)
SINGLE = ir.DataType.FLOAT


def model(
    body: str, kind: str = "float16", x: str = "{kind}[N,4] x", y: str = "{kind}[N,4] y", **weights: Any
) -> ir.Model:
    dtype = {"float16": np.float16, "bfloat16": ml_dtypes.bfloat16, "float": np.float32}[kind]
    held = {
        name: ir.tensor(np.asarray(contents).astype(dtype), name=name)
        if kind == "bfloat16"
        else np.asarray(contents, dtype)
        for name, contents in weights.items()
    }
    header = '<ir_version: 10, opset_import: ["" : 22]>'
    return parse(f"{header} agraph ({x.format(kind=kind)}) => ({y.format(kind=kind)}) {{ {body} }}", held)


def converted(before: ir.Model, spec: str = "convert-float32") -> ir.Model:
    result, stats, _ = apply(before, spec)
    assert stats.counts["convert-float32"]
    message = proto.to_proto(result)
    onnx.checker.check_model(onnx.shape_inference.infer_shapes(message, check_type=True, strict_mode=True))
    assert not apply(result, spec)[1].counts, "not idempotent"
    return result


def floats(result: ir.Model) -> set[str]:
    """The float types that nodes other than Cast read."""
    shapes = Context(result).shapes
    nodes = [node for node in ir.traversal.RecursiveGraphIterator(result.graph) if node.op_type != "Cast"]
    found = [shapes.dtype(value) for node in nodes for value in node.inputs if value is not None]
    return {kind.name for kind in found if kind is not None and kind.is_floating_point()}


@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
@pytest.mark.parametrize("keep_io", ["yes", "no"])
def test_everything_computes_in_float32(kind: str, keep_io: str) -> None:
    held = RANDOM.standard_normal((4, 4))
    before = model("t = MatMul (x, w) e = Exp (t) y = Mul (e, e)", kind, w=held)
    spec = f"convert-float32:keep-io={keep_io}"
    result = converted(before, spec)
    assert floats(result) == {"FLOAT"}
    weight, old = result.graph.initializers["w"].const_value, before.graph.initializers["w"].const_value
    assert weight is not None
    assert old is not None
    np.testing.assert_array_equal(weight.numpy(), old.numpy().astype(np.float32))
    assert (result.graph.inputs[0].dtype == SINGLE) == (keep_io == "no")
    x = RANDOM.standard_normal((3, 4)).astype(np.float32)
    wanted = np.exp(x @ weight.numpy()) ** 2
    if keep_io == "no":
        np.testing.assert_allclose(run(result, {"x": x})[0], wanted, rtol=1e-4)


def test_bodies() -> None:
    body = """y = If (c) <
        then_branch = g1 () => (float16[N,4] a) { a = MatMul (x, w) },
        else_branch = g2 () => (float16[N,4] b) { k = Constant <value = float16[1] {0}> () b = Add (x, k) }>"""
    before = model(body, x="float16[N,4] x, bool c", w=np.eye(4))
    result = converted(before)
    assert floats(result) == {"FLOAT"}
    for condition in (True, False):
        given = {"x": RANDOM.standard_normal((3, 4)).astype(np.float16), "c": np.array(condition)}
        np.testing.assert_array_equal(run(result, given)[0], run(before, given)[0])


def test_there_and_back() -> None:
    held = RANDOM.standard_normal((4, 4)).astype(np.float32)
    before = model("t = MatMul (x, w) e = Exp (t) y = Neg (e)", "float", w=held)
    for there in ("convert-float16", "convert-bfloat16"):
        result = converted(apply(before, there)[0])
        assert floats(result) == {"FLOAT"}
        assert {node.attributes.get_int("to") for node in result.graph if node.op_type == "Cast"} <= {1}
        assert result.graph.initializers["w"].dtype == SINGLE


def test_the_optimizer_proves_it() -> None:
    before = model("t = MatMul (x, w) y = Softmax (t)", w=RANDOM.standard_normal((4, 4)))
    for spec in ("convert-float32", "convert-float32:keep-io=no"):
        result, report = graphopt.optimize(before, [spec], with_report=True)
        assert (report.status, report.dropped) == ("proven", [])
        assert floats(result) == {"FLOAT"}


@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
def test_the_tolerance_is_that_of_the_old_type(kind: str) -> None:
    before = model("t = MatMul (x, w) y = Relu (t)", kind, w=np.eye(4))
    reference = apply(before, "convert-float32")[1].references["convert-float32"]
    assert reference is not None
    assert Facts.of(reference, {}).precision == kind


def test_nothing_to_do() -> None:
    before = model("y = Relu (x)", "float")
    result, stats, _ = apply(before, "convert-float32")
    assert not stats.counts
    assert lines(result) == lines(before)
