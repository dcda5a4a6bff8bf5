"""eliminate-tile."""

from __future__ import annotations

import numpy as np
from harness import apply, fires, lines, misses, parse, unchanged

NAME = "eliminate-tile"


def ints(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int64)


TEXT = "agraph (float[N,4] x) => (float[N,M] y) { t = Tile(x, r)  y = Relu(t) }"


def test_repeats_of_one() -> None:
    fires(NAME, parse(TEXT, {"r": ints(1, 1)}), ["y = Relu(x)"])


def test_repeats_computed_from_shapes() -> None:
    text = """agraph (float[N,4] x, float[1,1] z) => (float[N,4] y) {
        r = Shape(z)
        t = Tile(x, r)
        y = Relu(t)
    }"""
    fires(NAME, parse(text), ["y = Relu(x)"])


def test_repeats_that_repeat_or_empty() -> None:
    unchanged(NAME, parse(TEXT, {"r": ints(1, 2)}))
    unchanged(NAME, parse(TEXT, {"r": ints(1, 0)}))


def test_repeats_that_the_caller_chooses() -> None:
    text = TEXT.replace("float[N,4] x", "float[N,4] x, int64[2] r")
    unchanged(NAME, parse(text))
    unchanged(NAME, parse(text, {"r": ints(1, 1)}))


def test_one_axis_in_opset_1() -> None:
    text = """<ir_version: 3, opset_import: ["" : 1]>
    agraph (float[N,4] x) => (float[N,M] y) { t = Tile(x, k, a)  y = Relu(t) }"""
    one, two = np.array([1], np.float32), np.array([2], np.float32)
    unchanged(NAME, parse(text, {"k": two, "a": one}))
    assert lines(apply(parse(text, {"k": ints(1), "a": ints(1)}), NAME)[0]) == ["y = Relu(x)"]


def test_interface_needs_the_node() -> None:
    text = "agraph (float[N,4] x) => (float[N,4] y) { y = Tile(x, r) }"
    assert misses(NAME, parse(text, {"r": ints(1, 1)})) == ["it computes a graph output that cannot be renamed away"]


def test_inside_a_branch() -> None:
    text = """agraph (float[N,4] x, bool c) => (float[N,4] y) {
        y = If (c) <
            then_branch = yes () => (float[N,4] a) { t = Tile(x, r)  a = Relu(t) },
            else_branch = no () => (float[N,4] b) { b = Neg(x) }
        >
    }"""
    result = fires(NAME, parse(text, {"r": ints(1, 1)}), count=1)
    assert lines(result.graph[0].attributes["then_branch"].as_graph()) == ["a = Relu(x)"]


def test_inside_a_function() -> None:
    text = """<ir_version: 10, opset_import: ["" : 21, "own" : 1]>
    agraph (float[N,4] x) => (float[N,4] y) { y = own.f(x) }
    <domain: "own", opset_import: ["" : 21]>
    f (a) => (b) { r = Constant<value_ints = [1, 1]>()  t = Tile(a, r)  b = Relu(t) }"""
    result = fires(NAME, parse(text), count=1)
    (function,) = result.functions.values()
    assert lines(function) == ["b = Relu(a)"]
