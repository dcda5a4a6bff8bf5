"""eliminate-neutral-operands."""

from __future__ import annotations

import numpy as np
import pytest
from harness import apply, fires, lines, misses, parse, unchanged

NAME = "eliminate-neutral-operands"
SHAPE = ["the constant may give the result another shape"]
KINDS = {
    "float": "float32",
    "double": "float64",
    "float16": "float16",
    "int64": "int64",
    "int32": "int32",
    "bool": "bool",
    "uint8": "uint8",
}


def graph(body: str, kind: str = "float", opset: int = 21) -> str:
    return f"""<ir_version: 10, opset_import: ["" : {opset}]>
    agraph ({kind}[N,4] x) => ({kind}[A,B] y) {{ {body}  y = Identity(t) }}"""


def filled(value: float, kind: str, shape: tuple[int, ...] = ()) -> dict[str, np.ndarray]:
    return {"c": np.full(shape, value, KINDS[kind])}


@pytest.mark.parametrize(
    ("body", "kind", "value"),
    [
        ("Mul(x, c)", "float", 1),
        ("Mul(c, x)", "float16", 1),
        ("Div(x, c)", "double", 1),
        ("Sub(x, c)", "float", 0),
        ("Add(c, x)", "float", -0.0),
        ("Add(x, c)", "int64", 0),
        ("Sub(x, c)", "int32", 0),
        ("Mul(x, c)", "int64", 1),
        ("Div(x, c)", "int32", 1),
        ("And(x, c)", "bool", 1),
        ("Or(c, x)", "bool", 0),
        ("Xor(x, c)", "bool", 0),
        ("BitwiseOr(x, c)", "uint8", 0),
        ('BitShift<direction = "LEFT">(x, c)', "uint8", 0),
    ],
)
@pytest.mark.parametrize("shape", [(), (1,), (1, 4), (4,)])
def test_neutral_constant(body: str, kind: str, value: float, shape: tuple[int, ...]) -> None:
    fires(NAME, parse(graph(f"t = {body}", kind), filled(value, kind, shape)), ["y = Identity(x)"])


@pytest.mark.parametrize("op", ["Sum", "Mean", "Max", "Min"])
def test_single_operand(op: str) -> None:
    fires(NAME, parse(graph(f"t = {op}(x)  u = Neg(t)").replace("Identity(t)", "Abs(u)")), ["u = Neg(x)", "y = Abs(u)"])
    unchanged(NAME, parse(graph(f"t = {op}(x, x)")))


@pytest.mark.parametrize(
    ("body", "kind", "value"),
    [
        ("Add(x, c)", "float", 0.0),  # -0.0 + 0.0 is 0.0
        ("Sub(x, c)", "float", -0.0),
        ("Sub(c, x)", "float", 0.0),
        ("Div(c, x)", "float", 1),
        ("Mul(x, c)", "float", 0),
        ("And(x, c)", "bool", 0),
        ("Or(x, c)", "bool", 1),
        ("Mul(x, c)", "float", np.nan),
        ("Sub(c, x)", "int64", 0),
    ],
)
def test_constant_that_counts(body: str, kind: str, value: float) -> None:
    unchanged(NAME, parse(graph(f"t = {body}", kind), filled(value, kind)))


def test_one_element_differs() -> None:
    unchanged(NAME, parse(graph("t = Mul(x, c)"), {"c": np.array([1, 1, 1, 2], np.float32)}))
    unchanged(NAME, parse(graph("t = Add(x, c)"), {"c": np.array([-0.0, 0.0, -0.0, -0.0], np.float32)}))
    unchanged(NAME, parse(graph("t = Mul(x, c)"), {"c": np.zeros((0, 4), np.float32)}))


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 4), (2, 1, 4)])
def test_constant_that_makes_the_result_larger(shape: tuple[int, ...]) -> None:
    text = graph("t = Mul(x, c)").replace("float[A,B] y", "float[A,B,C] y" if len(shape) == 3 else "float[A,B] y")
    assert misses(NAME, parse(text, filled(1, "float", shape))) == SHAPE


def test_broadcast_along_an_axis_of_length_one() -> None:
    text = graph("t = Mul(x, c)").replace("N,4", "N,1")
    assert misses(NAME, parse(text, filled(1, "float", (4,)))) == SHAPE
    fires(NAME, parse(text, filled(1, "float", (1,))), ["y = Identity(x)"])


def test_wrong_opset() -> None:
    text = graph("t = Mul<broadcast = 1>(x, c)", opset=6)
    assert misses(NAME, parse(text, filled(1, "float"))) == ["before opset 7, arithmetic broadcasts by attributes"]


def test_constant_of_the_caller() -> None:
    unchanged(NAME, parse(graph("t = Mul(x, c)").replace("x)", "x, float c)", 1), filled(1, "float")))


def test_interface_needs_the_node() -> None:
    text = "agraph (float[N,4] x) => (float[N,4] y) { y = Mul(x, c) }"
    assert misses(NAME, parse(text, filled(1, "float"))) == ["it computes a graph output that cannot be renamed away"]


def test_inside_a_branch_and_a_function() -> None:
    text = """<ir_version: 10, opset_import: ["" : 21, "own" : 1]>
    agraph (float[N,4] x, bool q) => (float[A,B] y) {
        w = If (q) <
            then_branch = yes () => (float[A,B] u) { s = Mul(x, c)  u = Neg(s) },
            else_branch = no () => (float[A,B] v) { v = Abs(x) }
        >
        y = own.f(w)
    }
    <domain: "own", opset_import: ["" : 21]>
    f (a) => (r) {
        c = Constant<value_float = 1.0>()
        d = Constant<value_floats = [1.0]>()
        s = Mul(a, c)
        t = Mul(s, d)
        r = Neg(t)
    }"""
    result, stats, context = apply(parse(text, filled(1, "float")), NAME)
    assert stats.counts == {NAME: 2}
    assert lines(result.graph[0].attributes["then_branch"].as_graph()) == ["u = Neg(x)"]
    (function,) = result.functions.values()
    assert lines(function)[-2:] == ["t = Mul(a, d)", "r = Neg(t)"]
    assert list(context.misses[NAME]) == SHAPE
