"""sink-reshapes."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from harness import apply, fires, misses, parse, unchanged

NAME = "sink-reshapes"
MATTERS = ["the shape matters to what lies between"]
OTHER = ["the result is not known to have just the shape that there was"]
NUMBERS = {
    "half": np.float32(0.5),
    "ones": np.full((1, 1, 1), 3, np.float32),
    "vector": np.linspace(1, 2, 4).astype(np.float32),
    "rows": np.array([[1], [2]], np.float32),
    "w": np.linspace(-1, 1, 32).astype(np.float32).reshape(4, 8),
    "low": np.float32(0),
}


def graph(body: str, shape: str = "N,3,4", result: str = "N,3,4", inputs: str = "", **targets: list[int]) -> ir.Model:
    weights = {name: np.asarray(one) for name, one in NUMBERS.items() if name in body}
    weights |= {name: np.array(target, np.int64) for name, target in targets.items()}
    return parse(f"agraph (float[{shape}] x{inputs}) => (float[{result}] y) {{ {body} }}", weights)


@pytest.mark.parametrize(
    ("between", "after"),
    [
        ("b = Relu (a)", ["y = Relu(x)"]),
        ("c = Mul (a, half) b = Exp (c)", ["Mul_1 = Mul(x, half)", "y = Exp(Mul_1)"]),
        ("b = Mul (vector, a)", ["y = Mul(vector, x)"]),
        ("b = Clip (a, low)", ["y = Clip(x, low)"]),
    ],
)
def test_the_shape_is_restored(between: str, after: list[str]) -> None:
    body = f"a = Reshape (x, s) {between} y = Reshape (b, t)"
    fires(NAME, graph(body, s=[-1, 4], t=[-1, 3, 4]), after)


@pytest.mark.parametrize(("first", "last"), [("Unsqueeze", "Squeeze"), ("Squeeze", "Unsqueeze")])
def test_axes_that_come_and_go(first: str, last: str) -> None:
    shape = "N,1,4" if first == "Squeeze" else "N,4"
    fires(NAME, graph(f"a = {first} (x, d) b = Neg (a) y = {last} (b, d)", shape, shape, d=[1]), ["y = Neg(x)"])


def test_another_shape_takes_one_reshape() -> None:
    result = fires(NAME, graph("a = Flatten (x) b = Relu (a) y = Reshape (b, t)", result="N,6,2", t=[0, 6, 2]))
    assert [node.op_type for node in result.graph] == ["Relu", "Reshape"]


def test_product_with_a_matrix() -> None:
    body = "a = Reshape (x, s) b = MatMul (a, w) c = Relu (b) y = Reshape (c, t)"
    fires(NAME, graph(body, result="N,3,8", s=[-1, 4], t=[-1, 3, 8]), ["MatMul_1 = MatMul(x, w)", "y = Relu(MatMul_1)"])


def test_product_of_two_that_got_an_axis() -> None:
    body = "a = Reshape (x, s) b = Unsqueeze (z, d) c = MatMul (a, b) y = Squeeze (c, d)"
    model = graph(body, "3,4", "3,5", ", float[4,5] z", s=[1, 3, 4], d=[0])
    fires(NAME, model, ["y = MatMul(x, z)"])


def test_opset_7_reads_no_broadcast() -> None:
    text = """<ir_version: 3, opset_import: ["" : 7]>
    agraph (float[2,6] x) => (float[2,6] y) { a = Flatten <axis = 0> (x) b = Sigmoid (a) y = Reshape (b, t) }"""
    unchanged(NAME, parse(text, {"t": np.array([2, 6], np.int64)}))


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("a = Reshape (x, s) b = Mul (a, rows) y = Reshape (b, t)", MATTERS),  # along the rows of [-1, 2]
        ("a = Reshape (x, s) b = Mul (a, ones) c = Reshape (b, t) y = Relu (c)", MATTERS),  # an axis more
        ("a = Reshape (x, s) b = Softmax (a) y = Reshape (b, t)", []),
        ("a = Reshape (x, s) b = Mul (a, a) y = Reshape (b, t)", []),
        ("a = Reshape (x, s) b = Relu (a) c = Reshape (b, t) d = Abs (b) e = Reshape (d, t) y = Add (c, e)", []),
    ],
)
def test_the_shape_matters(body: str, reason: list[str]) -> None:
    assert misses(NAME, graph(body, "N,2", "N,2", s=[-1, 2, 1] if "ones" in body else [2, -1], t=[-1, 2])) == reason


def test_square_where_a_vector_lies_along_another_axis() -> None:
    """The trap: as many rows as columns, but they are others after the Reshape."""
    body = "a = Reshape (x, s) b = Mul (a, vector) y = Reshape (b, t)"
    assert misses(NAME, graph(body, "4,2,2", "4,2,2", s=[4, 4], t=[4, 2, 2])) == MATTERS
    fires(NAME, graph(body, "2,2,4", "2,2,4", s=[4, 4], t=[2, 2, 4]), ["y = Mul(x, vector)"])


@pytest.mark.parametrize(
    ("first", "target", "reason"),
    [
        ([-1, 4], [3, -1, 8], OTHER),  # parts them in another way
        ([-1, 2, 4], [-1, 3, 8], None),
    ],
)
def test_product_whose_rows_are_parted(first: list[int], target: list[int], reason: list[str] | None) -> None:
    body = "a = Reshape (x, s) b = MatMul (a, w) y = Reshape (b, t)"
    model = graph(body, "2,3,4" if reason is None else "N,3,4", "A,B,C", s=first, t=target)
    if reason is None:
        fires(NAME, model, ["y = MatMul(x, w)"])
    else:
        assert misses(NAME, model) == reason


def test_product_over_another_axis() -> None:
    body = "a = Reshape (x, s) b = MatMul (a, w) y = Reshape (b, t)"
    assert misses(NAME, graph(body, "3,2,2", "3,8", s=[3, 4], t=[3, 8])) == MATTERS


def test_product_with_a_bias_stays_a_gemm() -> None:
    body = "a = Reshape (x, s) b = MatMul (a, w) c = Add (b, half) y = Reshape (c, t)"
    reason = ["a product of two axes and its bias are one Gemm, which is faster"]
    assert misses(NAME, graph(body, result="N,3,8", s=[-1, 4], t=[-1, 3, 8])) == reason


def test_symbolic_axes_that_only_look_alike() -> None:
    body = "a = Reshape (x, s) b = Relu (a) y = Reshape (b, t)"
    result = fires(NAME, graph(body, "N,M", "A,B", s=[-1], t=[2, -1]), sizes={"N": 4, "M": 3})
    assert [node.op_type for node in result.graph] == ["Relu", "Reshape"]
    model = graph("a = Flatten <axis = 0> (x) b = Relu (a) y = Reshape (b, t)", "N,M", "A,B", ", int64[2] t")
    assert misses(NAME, model) == OTHER


def test_inside_a_function_and_a_graph_output() -> None:
    text = """<ir_version: 10, opset_import: ["" : 21, "own" : 1]>
    agraph (float[N,4] x) => (float[N,4] y, float[A] z) {
        z = Reshape (x, s)
        b = Relu (z)
        c = Reshape (b, t)
        y = own.f (c)
    }
    <domain: "own", opset_import: ["" : 21]>
    f (v) => (w) { w = Neg (v) }"""
    _, stats, _ = apply(parse(text, {"s": np.array([-1]), "t": np.array([-1, 4])}), NAME)
    assert not stats.counts
