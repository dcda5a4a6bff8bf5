"""eliminate-reshape."""

from __future__ import annotations

import numpy as np
import pytest
from harness import apply, fires, lines, misses, parse, unchanged

NAME = "eliminate-reshape"


def ints(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int64)


def graph(shape: str, body: str, out: str | None = None, opset: int = 21) -> str:
    return f"""<ir_version: 10, opset_import: ["" : {opset}]>
    agraph (float[{shape}] x) => (float[{out or shape}] y) {{ {body}  y = Relu(r) }}"""


@pytest.mark.parametrize(
    ("shape", "target"),
    [
        ("2,3", [2, 3]),
        ("2,3", [-1, 3]),
        ("N,3", [-1, 3]),
        ("N,3", [0, 3]),
        ("N,M,4", [0, 0, 4]),
        ("N,M,K", [0, -1, 0]),
        ("N", [-1]),
        ("0,3", [0, 3]),
    ],
)
def test_target_is_the_shape(shape: str, target: list[int]) -> None:
    fires(NAME, parse(graph(shape, "r = Reshape(x, s)"), {"s": ints(*target)}), ["y = Relu(x)"])


@pytest.mark.parametrize(
    ("shape", "target", "out"),
    [
        ("N,4", [3, 4], "3,4"),  # only for a batch of 3
        ("N,4", [4, -1], "4,K"),
        ("N,4", [-1, 2], "K,2"),
        ("N,4", [0, 2, 2], "N,2,2"),
        ("N,4", [-1], "K"),
        ("N,M", [-1, 3], "K,3"),
        ("1,4", [4, 1], "4,1"),
    ],
)
def test_target_may_differ(shape: str, target: list[int], out: str) -> None:
    unchanged(NAME, parse(graph(shape, "r = Reshape(x, s)", out), {"s": ints(*target)}))


def test_allowzero_means_zero() -> None:
    unchanged(NAME, parse(graph("N,4", "r = Reshape<allowzero = 1>(x, s)", "0,4"), {"s": ints(0, 4)}))
    fires(NAME, parse(graph("0,4", "r = Reshape<allowzero = 1>(x, s)"), {"s": ints(0, 4)}), ["y = Relu(x)"])


def test_target_computed_from_the_shape() -> None:
    body = "s = Shape(x)  n = Gather(s, zero)  t = Concat<axis = 0>(n, four)  r = Reshape(x, t)"
    fires(NAME, parse(graph("N,4", body), {"zero": ints(0), "four": ints(4)}), ["y = Relu(x)"])
    other = "s = Shape(x)  n = Gather(s, zero)  t = Concat<axis = 0>(four, n)  r = Reshape(x, t)"
    unchanged(NAME, parse(graph("N,4", other, "4,N"), {"zero": ints(0), "four": ints(4)}))


def test_shape_of_the_input_itself_whatever_the_rank() -> None:
    text = """<ir_version: 10, opset_import: ["" : 21, "other" : 1]>
    agraph (float[N] x) => (float[N] y) { a = other.Mystery(x)  s = Shape(a)  r = Reshape(a, s)  y = Relu(r) }"""
    assert lines(apply(parse(text), NAME)[0])[-1] == "y = Relu(a)"
    unchanged(NAME, parse(text.replace("Shape(a)", "Shape<start = 1>(a)")))
    unchanged(NAME, parse(text.replace("Shape(a)", "Shape<end = 1>(a)")))
    unchanged(NAME, parse(text.replace("Shape(a)", "Shape(x)")))


def test_shape_of_another_value_of_the_same_shape() -> None:
    text = """agraph (float[N,4] x, float[N,4] z, float[M,4] w) => (float[N,4] y, float[M,4] v) {
        s = Shape(z)
        r = Reshape(x, s)
        y = Relu(r)
        t = Shape(w)
        v = Reshape(x, t)
    }"""
    fires(NAME, parse(text), ["y = Relu(x)", "t = Shape(w)", "v = Reshape(x, t)"])


def test_target_that_the_caller_may_override() -> None:
    text = "agraph (float[2,3] x, int64[2] s) => (float[A,B] y) { r = Reshape(x, s)  y = Relu(r) }"
    unchanged(NAME, parse(text, {"s": ints(2, 3)}))


def test_target_as_an_attribute_in_opset_1() -> None:
    text = graph("N,4", "r = Reshape<shape = [-1, 4]>(x)", opset=1)
    assert lines(apply(parse(text), NAME)[0]) == ["y = Relu(x)"]


@pytest.mark.parametrize("axis", [1, -1])
def test_flatten_of_a_matrix(axis: int) -> None:
    fires(NAME, parse(graph("N,M", f"r = Flatten<axis = {axis}>(x)")), ["y = Relu(x)"])


@pytest.mark.parametrize(
    ("shape", "axis", "out"), [("N,4", 0, "1,K"), ("N,4", 2, "K,1"), ("N,2,2", 1, "N,4"), ("N", 0, "1,N")]
)
def test_flatten_that_changes_the_shape(shape: str, axis: int, out: str) -> None:
    unchanged(NAME, parse(graph(shape, f"r = Flatten<axis = {axis}>(x)", out)))


def test_flatten_beside_an_axis_of_length_one() -> None:
    fires(NAME, parse(graph("1,M", "r = Flatten<axis = 0>(x)")), ["y = Relu(x)"])
    fires(NAME, parse(graph("M,1", "r = Flatten<axis = 2>(x)")), ["y = Relu(x)"])


def test_squeeze_with_nothing_to_take() -> None:
    fires(NAME, parse(graph("2,3", "r = Squeeze(x)")), ["y = Relu(x)"])
    unchanged(NAME, parse(graph("N,3", "r = Squeeze(x)", "3")))  # a batch of 1
    unchanged(NAME, parse(graph("1,3", "r = Squeeze(x)", "3")))
    unchanged(NAME, parse(graph("1,3", "r = Squeeze(x, a)", "3"), {"a": ints()}))  # ORT takes the axis all the same
    unchanged(NAME, parse(graph("1,3", "r = Squeeze(x, a)", "3"), {"a": ints(0)}))


def test_unsqueeze_without_axes() -> None:
    fires(NAME, parse(graph("N,3", "r = Unsqueeze(x, a)"), {"a": ints()}), ["y = Relu(x)"])
    unchanged(NAME, parse(graph("N,3", "r = Unsqueeze(x, a)", "1,N,3"), {"a": ints(0)}))


def test_interface_needs_the_node() -> None:
    text = "agraph (float[2,3] x) => (float[2,3] y) { y = Reshape(x, s) }"
    assert misses(NAME, parse(text, {"s": ints(2, 3)})) == ["it computes a graph output that cannot be renamed away"]


def test_inside_a_branch_on_a_captured_value() -> None:
    text = """agraph (float[N,4] x, bool t) => (float[N,4] y) {
        y = If (t) <
            then_branch = yes () => (float[N,4] a) { r = Reshape(x, s)  a = Relu(r) },
            else_branch = no () => (float[N,4] b) { b = Reshape(x, s) }
        >
    }"""
    result = fires(NAME, parse(text, {"s": ints(-1, 4)}), count=1)
    assert lines(result.graph[0].attributes["then_branch"].as_graph()) == ["a = Relu(x)"]


def test_function_inputs_have_no_shape() -> None:
    text = """<ir_version: 10, opset_import: ["" : 21, "own" : 1]>
    agraph (float[2,3] x) => (float[2,3] y) { y = own.f(x) }
    <domain: "own", opset_import: ["" : 21]>
    f (a) => (b) {
        s = Constant<value_ints = [2, 3]>()
        r = Reshape(a, s)
        q = Reshape(r, s)
        b = Relu(q)
    }"""
    result, stats, _ = apply(parse(text), NAME)
    assert stats.counts == {NAME: 1}
    (function,) = result.functions.values()
    assert lines(function)[1:] == ["r = Reshape(a, s)", "b = Relu(r)"]
