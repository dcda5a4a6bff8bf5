"""eliminate-concat."""

from __future__ import annotations

import numpy as np
import pytest
from harness import apply, fires, lines, misses, parse, unchanged

NAME = "eliminate-concat"


def empty(*shape: int) -> np.ndarray:
    return np.zeros(shape, np.float32)


@pytest.mark.parametrize("opset", [7, 11, 13])
def test_single_operand(opset: int) -> None:
    text = f"""<ir_version: 10, opset_import: ["" : {opset}]>
    agraph (float[N,4] x) => (float[N,4] y) {{ c = Concat<axis = 1>(x)  y = Relu(c) }}"""
    fires(NAME, parse(text), ["y = Relu(x)"])


@pytest.mark.parametrize("axis", [1, -1])
def test_empty_operand_beside_one(axis: int) -> None:
    text = f"agraph (float[3,4] x) => (float[3,4] y) {{ c = Concat<axis = {axis}>(e, x)  y = Relu(c) }}"
    fires(NAME, parse(text, {"e": empty(3, 0)}), ["y = Relu(x)"])


def test_empty_operand_beside_several() -> None:
    text = """agraph (float[N,4] x, float[N,0] e) => (float[N,8] y, float[N,8] z) {
        y = Concat<axis = 1>(x, e, x, e)
        z = Concat<axis = 1>(x, x)
    }"""
    fires(NAME, parse(text), ["y = Concat<axis=1>(x, x)", "z = Concat<axis=1>(x, x)"])


def test_all_operands_empty() -> None:
    text = "agraph (float[N,0] x, float[N,0] z) => (float[N,0] y) { c = Concat<axis = 1>(x, z)  y = Relu(c) }"
    fires(NAME, parse(text), ["y = Relu(x)"])


def test_result_is_the_interface() -> None:
    text = "agraph (float[3,4] x) => (float[3,4] y) { y = Concat<axis = 1>(x, e) }"
    fires(NAME, parse(text, {"e": empty(3, 0)}), ["y = Identity(x)"])
    text = "agraph (float[3,4] x) => (float[3,4] y) { y = Concat<axis = 1>(x) }"
    assert misses(NAME, parse(text)) == ["it computes a graph output that cannot be renamed away"]


def test_operand_empty_along_another_axis() -> None:
    text = "agraph (float[0,4] x, float[0,2] z) => (float[0,6] y) { y = Concat<axis = 1>(x, z) }"
    unchanged(NAME, parse(text))


def test_operand_that_may_be_empty() -> None:
    text = "agraph (float[N,4] x, float[M,4] z) => (float[K,4] y) { y = Concat<axis = 0>(x, z) }"
    unchanged(NAME, parse(text))


def test_scalars_of_unknown_rank_are_kept() -> None:
    text = """<ir_version: 10, opset_import: ["" : 21, "other" : 1]>
    agraph (float[3,4] x) => (float[3,K] y) { a = other.Mystery(x)  y = Concat<axis = 1>(a, x, e) }"""
    result, stats, _ = apply(parse(text, {"e": empty(3, 0)}), NAME)
    assert stats.counts == {NAME: 1}
    assert lines(result)[-1] == "y = Concat<axis=1>(a, x)"


def test_metadata_survives() -> None:
    text = "agraph (float[N,4] x, float[N,0] e) => (float[N,8] y) { c = Concat<axis = 1>(x, e, x)  y = Relu(c) }"
    model = parse(text)
    model.graph[0].metadata_props["origin"] = "cache"
    model.graph[0].name = "join"
    result = fires(NAME, model, count=1)
    assert result.graph[0].metadata_props == {"origin": "cache"}
    assert result.graph[0].name == "join"


def test_inside_a_branch() -> None:
    text = """agraph (float[N,4] x, float[N,0] e, bool t) => (float[N,4] y) {
        y = If (t) <
            then_branch = yes () => (float[N,4] a) { c = Concat<axis = 1>(e, x)  a = Relu(c) },
            else_branch = no () => (float[N,4] b) { b = Concat<axis = -1>(x, e) }
        >
    }"""
    result = fires(NAME, parse(text), count=2)
    assert lines(result.graph[0].attributes["then_branch"].as_graph()) == ["a = Relu(x)"]
    assert lines(result.graph[0].attributes["else_branch"].as_graph()) == ["b = Identity(x)"]


def test_inside_a_function() -> None:
    text = """<ir_version: 10, opset_import: ["" : 21, "own" : 1]>
    agraph (float[N,4] x) => (float[N,4] y) { y = own.f(x) }
    <domain: "own", opset_import: ["" : 21]>
    f (a) => (b) { c = Concat<axis = 1>(a)  b = Relu(c) }"""
    result = fires(NAME, parse(text), count=1)
    (function,) = result.functions.values()
    assert lines(function) == ["b = Relu(a)"]


def test_extent_declared_for_a_loops_state_is_not_believed() -> None:
    text = """agraph (float[2,4] x, int64 n, bool c) => (float[M,4] y) {
        y = Loop (n, c, e) <body = b (int64 i, bool ci, float[0,4] a) => (bool co, float[R,4] o) {
            co = Identity (ci)
            o = Concat <axis = 0> (a, x)
        }>
    }"""
    unchanged("eliminate-concat", parse(text, {"e": np.zeros((0, 4), np.float32)}))
