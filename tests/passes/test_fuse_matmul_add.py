"""fuse-matmul-add."""

from __future__ import annotations

import numpy as np
import pytest
from harness import fires, lines, misses, parse

NAME = "fuse-matmul-add"


def weight(*shape: int, dtype: str = "float32") -> np.ndarray:
    return np.random.default_rng(7).standard_normal(shape).astype(dtype)


LINEAR = """agraph (float[N,4] x) => (float[N,6] y) {
    m = MatMul (x, w)
    y = Add (m, b)
}"""


@pytest.mark.parametrize("shape", [(6,), (1, 6), (), (1,), (1, 1)])
@pytest.mark.parametrize("add", ["Add (m, b)", "Add (b, m)"])
def test_bias(add: str, shape: tuple[int, ...]) -> None:
    text = LINEAR.replace("Add (m, b)", add)
    fires(NAME, parse(text, {"w": weight(4, 6), "b": weight(*shape)}), ["y = Gemm(x, w, b)"])


@pytest.mark.parametrize("opset", [7, 9, 11, 13, 21])
def test_opsets(opset: int) -> None:
    text = f'<ir_version: 4, opset_import: ["" : {opset}]>\n{LINEAR}'
    fires(NAME, parse(text, {"w": weight(4, 6), "b": weight(6)}), ["y = Gemm(x, w, b)"])


@pytest.mark.parametrize(("kind", "dtype"), [("float16", "float16"), ("double", "float64")])
def test_other_types(kind: str, dtype: str) -> None:
    text = LINEAR.replace("float[", f"{kind}[")
    fires(NAME, parse(text, {"w": weight(4, 6, dtype=dtype), "b": weight(6, dtype=dtype)}), count=1)


def test_computed_operands_of_known_shape() -> None:
    text = """agraph (float[N,K] x, float[K,6] v, float[6] b) => (float[N,6] y) {
        t = Relu (x)
        m = MatMul (t, v)
        c = Exp (b)
        y = Add (c, m)
    }"""
    result = fires(NAME, parse(text), count=1, sizes={"K": 5})
    assert lines(result)[-1] == "y = Gemm(t, v, c)"


def test_names_and_metadata_survive() -> None:
    model = parse(LINEAR, {"w": weight(4, 6), "b": weight(6)})
    model.graph[0].name, model.graph[1].name = "product", "bias"
    model.graph[0].metadata_props["scope"] = "layer"
    node = fires(NAME, model, count=1).graph[0]
    assert (node.name, dict(node.metadata_props)) == ("bias", {"scope": "layer"})


def test_inside_a_branch_and_a_function() -> None:
    text = """<ir_version: 10, opset_import: ["" : 21, "local" : 1]>
    agraph (float[N,4] x, bool c) => (float[N,6] y) {
        y = If (c) <
            then_branch = left () => (float[N,6] l) { m = MatMul (x, w)  l = Add (m, b) },
            else_branch = right () => (float[N,6] r) { r = local.block (x, w) }
        >
    }
    <domain: "local", opset_import: ["" : 21]>
    block (x, w) => (y) {
        a = Constant <value = float[2,3] {1,2,3,4,5,6}> ()
        b = Constant <value_floats = [1.0, 2.0, 3.0]> ()
        c = Constant <value = float[2,2] {1,2,3,4}> ()
        m = MatMul (c, a)
        n = Add (m, b)
        s = ReduceSum <keepdims = 0> (n)
        p = MatMul (x, w)
        y = Add (p, s)
    }"""
    result = fires(NAME, parse(text, {"w": weight(4, 6), "b": weight(6)}), count=2)
    assert lines(result.graph[0].attributes["then_branch"].as_graph()) == ["l = Gemm(x, w, b)"]
    assert "Gemm" in {node.op_type for node in next(iter(result.functions.values()))}


COLUMN = ["the bias is not one number a column"]


@pytest.mark.parametrize("shape", [(6, 1), (6, 6), (1, 1, 6), (2, 1, 6)])
def test_bias_of_another_shape(shape: tuple[int, ...]) -> None:
    text = f"""agraph (float[6,4] x) => (float[{"A," * (len(shape) > 2)}6,6] y) {{
        m = MatMul (x, w)
        y = Add (m, b)
    }}"""
    assert misses(NAME, parse(text, {"w": weight(4, 6), "b": weight(*shape)})) == COLUMN


def test_one_column_that_would_become_many() -> None:
    assert misses(NAME, parse(LINEAR, {"w": weight(4, 1), "b": weight(6)})) == COLUMN


def test_one_row_that_would_become_many() -> None:
    text = LINEAR.replace("float[N,4] x", "float[1,4] x")
    assert misses(NAME, parse(text, {"w": weight(4, 6), "b": weight(3, 6)})) == COLUMN


def test_bias_of_another_symbolic_length() -> None:
    text = "agraph (float[N,4] x, float[4,M] v, float[K] b) => (float[N,M] y) { m = MatMul (x, v)  y = Add (m, b) }"
    assert misses(NAME, parse(text)) == COLUMN


@pytest.mark.parametrize("x", ["float[2,N,4]", "float[4]", "float"])
def test_operands_with_other_axes(x: str) -> None:
    text = LINEAR.replace("float[N,4] x", f"{x} x").replace("float[N,6] y", "float[A,B,6] y")
    if x == "float[4]":
        text = text.replace("A,B,6", "6")
    assert misses(NAME, parse(text, {"w": weight(4, 6), "b": weight(6)})) == [
        "the operands are not known to have two axes"
    ]


def test_stacked_weights() -> None:
    text = LINEAR.replace("float[N,6] y", "float[2,N,6] y")
    assert misses(NAME, parse(text, {"w": weight(2, 4, 6), "b": weight(6)})) == [
        "the operands are not known to have two axes"
    ]


def test_product_read_elsewhere_or_put_out() -> None:
    text = """agraph (float[N,4] x) => (float[N,6] y, float[N,6] z) {
        m = MatMul (x, w)
        y = Add (m, b)
        z = Relu (m)
    }"""
    weights = {"w": weight(4, 6), "b": weight(6)}
    assert misses(NAME, parse(text, weights)) == ["the product is read elsewhere"]
    text = LINEAR.replace("(float[N,6] y)", "(float[N,6] y, float[N,6] m)")
    assert misses(NAME, parse(text, weights)) == ["the product is read elsewhere"]
    text = LINEAR.replace("Add (m, b)", "Add (m, m)")
    assert misses(NAME, parse(text, weights)) == ["the product is read elsewhere"]


def test_integers() -> None:
    text = LINEAR.replace("float[", "int32[")
    assert misses(NAME, parse(text, {"w": np.ones((4, 6), np.int32), "b": np.ones(6, np.int32)})) == [
        "the type is not known to be a floating-point one"
    ]


def test_quantized_weight() -> None:
    text = """agraph (float[N,4] x) => (float[N,6] y) {
        d = DequantizeLinear (q, s)
        m = MatMul (x, d)
        y = Add (m, b)
    }"""
    weights: dict[str, np.ndarray] = {"q": np.ones((4, 6), np.int8), "s": np.array(0.5, np.float32), "b": weight(6)}
    assert misses(NAME, parse(text, weights)) == ["an operand is dequantized"]


def test_before_opset_7() -> None:
    text = """<ir_version: 4, opset_import: ["" : 6]>
    agraph (float[N,4] x) => (float[N,6] y) {
        m = MatMul (x, w)
        y = Add <broadcast = 1> (m, b)
    }"""
    assert misses(NAME, parse(text, {"w": weight(4, 6), "b": weight(6)})) == [
        "before opset 7, arithmetic broadcasts by attributes"
    ]
