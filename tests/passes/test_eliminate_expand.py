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


def broadcasting(body: str, inputs: str = "float[N,4] x, float[1,4] v, float[4] w") -> str:
    return f"agraph ({inputs}) => (float[A,B] y) {{ {body} }}"


@pytest.mark.parametrize(
    ("body", "after"),
    [
        ("h = Shape(x)  e = Expand(v, h)  y = Add(x, e)", "y = Add(x, v)"),
        ("h = Shape(x)  e = Expand(v, h)  y = Sub(e, x)", "y = Sub(v, x)"),
        ("h = Shape(x)  e = Expand(w, h)  y = Max(x, e, v)", "y = Max(x, w, v)"),
        ("h = Shape(x)  e = Expand(v, h)  g = Greater(x, e)  y = Where(g, x, x)", "g = Greater(x, v)"),
        ("h = Shape(x)  g = Greater(x, v)  e = Expand(w, h)  y = Where(g, x, e)", "y = Where(g, x, w)"),
    ],
)
def test_reader_broadcasts(body: str, after: str) -> None:
    assert after in lines(fires(NAME, parse(broadcasting(body)), count=1))


def test_expand_of_an_expand() -> None:
    text = broadcasting("h = Shape(x)  e = Expand(w, one)  y = Expand(e, h)")
    fires(NAME, parse(text, {"one": np.array([1, 1], np.int64)}), ["h = Shape(x)", "y = Expand(w, h)"])


def test_both_are_expanded() -> None:
    text = broadcasting("h = Shape(x)  e = Expand(v, h)  f = Expand(w, h)  s = Add(e, f)  y = Add(s, x)")
    kept = lines(fires(NAME, parse(text)))
    assert sum("Expand" in line for line in kept) == 1  # the other operand of the first sum is expanded as well


@pytest.mark.parametrize(
    "body",
    [
        "h = Shape(x)  e = Expand(v, h)  y = Add(e, w)",
        "h = Shape(x)  e = Expand(v, h)  y = Add(e, v)",
        "h = Shape(x)  e = Expand(v, h)  y = PRelu(x, e)",
        "h = Shape(x)  e = Expand(v, h)  y = Add(e, e)",
        "h = Shape(x)  e = Expand(v, h)  y = Concat<axis = 0>(e, x)",
    ],
)
def test_reader_does_not_make_it_as_large(body: str) -> None:
    unchanged(NAME, parse(broadcasting(body)))


def test_other_operand_is_larger_only_for_some_inputs() -> None:
    text = broadcasting("h = Shape(z)  e = Expand(v, h)  y = Add(x, e)", "float[N,4] x, float[M,4] z, float[1,4] v")
    unchanged(NAME, parse(text))
    text = broadcasting("e = Expand(v, four)  y = Add(x, e)")
    unchanged(NAME, parse(text, {"four": np.array([4, 4], np.int64)}))  # x may have one row


def test_rank_of_the_result_stays() -> None:
    text = "agraph (float[4] x, float[4] v) => (float[1,4] y) { e = Expand(v, one)  y = Add(x, e) }"
    unchanged(NAME, parse(text, {"one": np.array([1, 1], np.int64)}))
