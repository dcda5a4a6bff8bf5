"""eliminate-expand."""

from __future__ import annotations

import numpy as np
import pytest
from harness import apply, fires, lines, misses, parse, unchanged

NAME = "eliminate-expand"


def ints(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int64)


def graph(shape: str, body: str, out: str | None = None) -> str:
    return f"agraph (float[{shape}] x) => (float[{out or shape}] y) {{ {body}  y = Relu(e) }}"


@pytest.mark.parametrize(
    ("shape", "target"),
    [("3,4", [3, 4]), ("N,4", [1, 4]), ("N,4", [4]), ("N,4", [1]), ("N,M", []), ("N,1", [1, 1]), ("0,4", [1, 4])],
)
def test_target_keeps_the_shape(shape: str, target: list[int]) -> None:
    fires(NAME, parse(graph(shape, "e = Expand(x, t)"), {"t": ints(*target)}), ["y = Relu(x)"])


@pytest.mark.parametrize(
    ("shape", "target", "out"),
    [
        ("N,4", [3, 4], "3,4"),  # the batch may be 1
        ("1,4", [3, 1], "3,4"),
        ("N,4", [1, 1, 4], "1,N,4"),
        ("1", [4], "4"),
        ("N,1", [4], "N,4"),
    ],
)
def test_target_may_stretch(shape: str, target: list[int], out: str) -> None:
    unchanged(NAME, parse(graph(shape, "e = Expand(x, t)", out), {"t": ints(*target)}))


def test_target_computed_from_the_shape() -> None:
    fires(NAME, parse(graph("N,4", "t = Shape(x)  e = Expand(x, t)")), ["y = Relu(x)"])
    body = "s = Shape(x)  n = Gather(s, zero)  t = Concat<axis = 0>(n, one)  e = Expand(x, t)"
    fires(NAME, parse(graph("N,4", body), {"zero": ints(0), "one": ints(1)}), ["y = Relu(x)"])
    unchanged(NAME, parse(graph("N,4", body.replace("(n, one)", "(one, n)"), "N,K"), {"zero": ints(0), "one": ints(1)}))


def test_shape_of_another_value() -> None:
    text = """agraph (float[N,4] x, float[M,4] z) => (float[K,4] y) {
        t = Shape(z)
        e = Expand(x, t)
        y = Relu(e)
    }"""
    unchanged(NAME, parse(text))


def test_target_that_the_caller_may_override() -> None:
    text = "agraph (float[3,4] x, int64[2] t) => (float[A,B] y) { e = Expand(x, t)  y = Relu(e) }"
    unchanged(NAME, parse(text, {"t": ints(1, 1)}))


def test_target_of_unknown_length() -> None:
    text = "agraph (float[3,4] x, int64[K] t) => (float[A,B] y) { e = Expand(x, t)  y = Relu(e) }"
    assert misses(NAME, parse(text)) == ["the target of the Expand is not known"]


def test_interface_needs_the_node() -> None:
    text = "agraph (float[3,4] x) => (float[3,4] y) { y = Expand(x, t) }"
    assert misses(NAME, parse(text, {"t": ints(3, 4)})) == ["it computes a graph output that cannot be renamed away"]


def test_inside_a_branch_on_a_captured_value() -> None:
    text = """agraph (float[N,4] x, bool c) => (float[N,4] y) {
        y = If (c) <
            then_branch = yes () => (float[N,4] a) { e = Expand(x, t)  a = Relu(e) },
            else_branch = no () => (float[N,4] b) { b = Expand(x, t) }
        >
    }"""
    result = fires(NAME, parse(text, {"t": ints(1, 4)}), count=1)
    assert lines(result.graph[0].attributes["then_branch"].as_graph()) == ["a = Relu(x)"]


def test_inside_a_function() -> None:
    text = """<ir_version: 10, opset_import: ["" : 21, "own" : 1]>
    agraph (float[N,4] x) => (float[N,4] y) { y = own.f(x) }
    <domain: "own", opset_import: ["" : 21]>
    f (a) => (b) {
        s = Shape(a)
        e = Expand(a, s)
        one = Constant<value_ints = [1]>()
        d = Expand(e, one)
        b = Relu(d)
    }"""
    result, stats, _ = apply(parse(text), NAME)
    assert stats.counts == {NAME: 1}
    (function,) = result.functions.values()
    assert lines(function) == ["one = Constant<value_ints=(1,)>()", "d = Expand(a, one)", "b = Relu(d)"]
