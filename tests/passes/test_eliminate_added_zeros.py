"""eliminate-added-zeros."""

from __future__ import annotations

import numpy as np
import pytest
from harness import fires, lines, misses, parse, unchanged

NAME = "eliminate-added-zeros"
SHAPE = ["the constant may give the result another shape"]


def graph(body: str, kind: str = "float", opset: int = 21) -> str:
    return f"""<ir_version: 10, opset_import: ["" : {opset}]>
    agraph ({kind}[N,4] x) => ({kind}[A,B] y) {{ {body}  y = Neg(t) }}"""


@pytest.mark.parametrize("body", ["t = Add(x, c)", "t = Add(c, x)", "t = Sub(x, c)"])
@pytest.mark.parametrize("shape", [(), (4,), (1, 1), (1, 4)])
@pytest.mark.parametrize("zero", [0.0, -0.0])
def test_zeros(body: str, shape: tuple[int, ...], zero: float) -> None:
    fires(NAME, parse(graph(body), {"c": np.full(shape, zero, np.float32)}), ["y = Neg(x)"])


@pytest.mark.parametrize(("kind", "dtype"), [("float16", "float16"), ("double", "float64"), ("int64", "int64")])
def test_other_types(kind: str, dtype: str) -> None:
    fires(NAME, parse(graph("t = Add(x, c)", kind), {"c": np.zeros(4, dtype)}), ["y = Neg(x)"])


def test_zeros_minus_something() -> None:
    unchanged(NAME, parse(graph("t = Sub(c, x)"), {"c": np.zeros((), np.float32)}))


@pytest.mark.parametrize("value", [1.0, 1e-38, np.nan])
def test_something_else_than_zeros(value: float) -> None:
    unchanged(NAME, parse(graph("t = Add(x, c)"), {"c": np.array([0, 0, 0, value], np.float32)}))


@pytest.mark.parametrize("shape", [(3, 4), (1, 1, 4)])
def test_zeros_that_make_the_result_larger(shape: tuple[int, ...]) -> None:
    text = graph("t = Add(x, c)").replace("float[A,B] y", "float[A,B,C] y" if len(shape) == 3 else "float[A,B] y")
    assert misses(NAME, parse(text, {"c": np.zeros(shape, np.float32)})) == SHAPE


def test_zeros_of_the_caller() -> None:
    text = graph("t = Add(x, c)").replace("x)", "x, float[4] c)", 1)
    unchanged(NAME, parse(text, {"c": np.zeros(4, np.float32)}))


def test_zeros_are_shared() -> None:
    text = "agraph (float[N,4] x) => (float[A,B] y, float[C,D] z) { t = Add(x, c)  y = Neg(t)  z = Max(x, c) }"
    fires(NAME, parse(text, {"c": np.zeros(4, np.float32)}), ["y = Neg(x)", "z = Max(x, c)"])


def test_wrong_opset() -> None:
    text = graph("t = Add<broadcast = 1>(x, c)", opset=6)
    reason = ["before opset 7, arithmetic broadcasts by attributes"]
    assert misses(NAME, parse(text, {"c": np.zeros(4, np.float32)})) == reason


def test_interface_needs_the_node() -> None:
    text = "agraph (float[N,4] x) => (float[N,4] y) { y = Add(x, c) }"
    reason = ["it computes a graph output that cannot be renamed away"]
    assert misses(NAME, parse(text, {"c": np.zeros(4, np.float32)})) == reason


def test_inside_a_branch() -> None:
    text = """agraph (float[N,4] x, bool q) => (float[A,B] y) {
        y = If (q) <
            then_branch = yes () => (float[A,B] u) { s = Add(x, c)  u = Neg(s) },
            else_branch = no () => (float[A,B] v) { v = Add(x, c) }
        >
    }"""
    result = fires(NAME, parse(text, {"c": np.zeros(4, np.float32)}), count=1)
    assert lines(result.graph[0].attributes["then_branch"].as_graph()) == ["u = Neg(x)"]
