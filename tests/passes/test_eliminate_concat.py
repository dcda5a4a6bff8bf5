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


def ints(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int64)


@pytest.mark.parametrize(
    ("body", "after"),
    [
        ("s, t = Split<axis = 1>(x, k)  c = Concat<axis = 1>(s, t)", "y = Relu(x)"),
        ("s, t = Split<axis = -1>(x, k)  c = Concat<axis = 1>(s, t)", "y = Relu(x)"),
        ("s, t = Split<axis = 1>(x, k)  c = Concat<axis = 1>(w, s, t, w)", "c = Concat<axis=1>(w, x, w)"),
        ("s = Slice(x, b0, e3, one)  t = Slice(x, b3, far, one)  c = Concat<axis = 1>(s, t)", "y = Relu(x)"),
        ("s = Slice(x, b0, e3, one)  t = Slice(x, b3, four, one)  c = Concat<axis = 1>(s, t)", "y = Relu(x)"),
        (
            """s = Slice(x, b0, b2, one)  t = Slice(x, b2, b3, one)  u = Slice(x, b3, far, last)
            c = Concat<axis = -1>(w, s, t, u)""",
            "c = Concat<axis=-1>(w, x)",
        ),
    ],
)
def test_pieces_of_a_value(body: str, after: str) -> None:
    text = f"agraph (float[N,4] x, float[N,2] w) => (float[A,B] y) {{ {body}  y = Relu(c) }}"
    weights = {
        "k": ints(3, 1), "b0": ints(0), "e3": ints(3), "b3": ints(3), "b2": ints(2), "far": ints(2**63 - 1),
        "one": ints(1), "last": ints(-1), "four": ints(4),
    }  # fmt: skip
    result = fires(NAME, parse(text, weights), count=1)
    assert lines(result)[0] == after


@pytest.mark.parametrize(
    "body",
    [
        "s, t = Split<axis = 1>(x, k)  y = Concat<axis = 1>(t, s)",
        "s, t = Split<axis = 1>(x, k)  y = Concat<axis = 1>(s, s)",
        "s, t = Split<axis = 1>(x, h)  y = Concat<axis = 0>(s, t)",
        "s, t, u = Split<axis = 1>(x, m)  y = Concat<axis = 1>(s, t)",
        "s = Slice(x, z, two, one)  t = Slice(x, two, three, one)  y = Concat<axis = 1>(s, t)",
        "s = Slice(x, z, two, one)  t = Slice(x, one, far, one)  y = Concat<axis = 1>(s, t)",
        "s = Slice(x, z, two, one)  t = Slice(w, two, far, one)  y = Concat<axis = 1>(s, t)",
        "s = Slice(x, one, two, one)  t = Slice(x, two, far, one)  y = Concat<axis = 1>(s, t)",
        "s = Slice(x, z, two, z)  t = Slice(x, two, far, z)  y = Concat<axis = 1>(s, t)",
        "s = Slice(x, z, two, one)  t = Slice(x, two, far, one, two)  y = Concat<axis = 1>(s, t)",
    ],
)
def test_pieces_that_do_not_make_up_the_value(body: str) -> None:
    text = f"agraph (float[4,4] x, float[4,4] w) => (float[A,B] y) {{ {body} }}"
    weights = {"k": ints(3, 1), "h": ints(2, 2), "m": ints(2, 1, 1), "far": ints(2**63 - 1)}
    unchanged(NAME, parse(text, {**weights, "z": ints(0), "one": ints(1), "two": ints(2), "three": ints(3)}))


def test_piece_is_read_elsewhere() -> None:
    text = """agraph (float[N,4] x) => (float[A,B] y, float[C,D] z) {
        s, t = Split<axis = 1, num_outputs = 2>(x)
        z = Relu(t)
        y = Concat<axis = 1>(s, t, z)
    }"""
    after = ["s, t = Split<axis=1, num_outputs=2>(x)", "z = Relu(t)", "y = Concat<axis=1>(x, z)"]
    fires(NAME, parse(text), after)
