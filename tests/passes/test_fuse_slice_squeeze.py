"""fuse-slice-squeeze."""

from __future__ import annotations

import numpy as np
import pytest
from harness import fires, lines, misses, parse, unchanged

NAME = "fuse-slice-squeeze"
FAR = 2**63 - 1


def ints(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int64)


def held(start: int, end: int, axis: int, dropped: int, step: int = 1) -> dict[str, np.ndarray]:
    return {"b": ints(start), "e": ints(end), "a": ints(axis), "d": ints(dropped), "p": ints(step)}


GRAPH = "agraph (float[N,5,4] x) => (float[A,B] y) { s = Slice(x, b, e, a, p)  t = Squeeze(s, d)  y = Neg(t) }"


@pytest.mark.parametrize(
    ("start", "end", "axis", "dropped"),
    [(0, 1, 1, 1), (2, 3, 1, 1), (4, 5, -2, 1), (-1, FAR, 1, -2), (1, 2, 0, 0), (-3, -2, 1, 1)],
)
@pytest.mark.parametrize("opset", [13, 21])
def test_one_element(start: int, end: int, axis: int, dropped: int, opset: int) -> None:
    text = f'<ir_version: 10, opset_import: ["" : {opset}]> {GRAPH}'
    result = fires(NAME, parse(text, held(start, end, axis, dropped)), sizes={"N": 3})
    assert [node.op_type for node in result.graph] == ["Gather", "Neg"]
    assert result.graph[0].attributes.get_int("axis", 0) == axis % 3


def test_attributes() -> None:
    text = """<ir_version: 8, opset_import: ["" : OPSET]>
    agraph (float[N,5,4] x) => (float[A,B] y) { s = Slice<starts = [START], ends = [END], axes = [1]>(x)
        t = Squeeze<axes = [1]>(s)  y = Neg(t) }""".replace("OPSET", "9")
    fires(
        NAME,
        parse(text.replace("START", "2").replace("END", "3")),
        ["t = Gather<axis=1>(x, Squeeze_constant)", "y = Neg(t)"],
    )
    text = text.replace("START", "-1").replace("END", "2147483647")
    assert misses(NAME, parse(text)) == ["before opset 11, Gather does not count from the end"]


@pytest.mark.parametrize(
    ("start", "end", "step"),
    [(0, 2, 1), (0, FAR, 1), (-1, 0, 1), (4, FAR, 1), (0, 1, 2), (2, 1, -1), (-2, FAR, 1), (3, -1, 1)],
)
def test_perhaps_not_one_element(start: int, end: int, step: int) -> None:
    assert misses(NAME, parse(GRAPH, held(start, end, 1, 1, step))) == ["the Slice takes more than one element"]


def test_last_axis_and_unknown_rank() -> None:
    reason = ["along the last axis, a Gather copies element by element"]
    assert misses(NAME, parse(GRAPH, held(1, 2, 2, -1))) == reason
    text = """<ir_version: 10, opset_import: ["" : 21, "own" : 1]>
    agraph (float[N,5] x) => (float[A] y) { y = own.f(x) }
    <domain: "own", opset_import: ["" : 21]>
    f (a) => (b) {
        zero = Constant<value_ints = [0]>()
        one = Constant<value_ints = [1]>()
        s = Slice(a, zero, one, zero)
        b = Squeeze(s, zero)
    }"""
    assert misses(NAME, parse(text)) == ["the rank is not known"]


def test_another_axis() -> None:
    text = "agraph (float[N,5,1] x) => (float[A,B] y) { s = Slice(x, b, e, a)  y = Squeeze(s, d) }"
    assert misses(NAME, parse(text, held(2, 3, 1, 2))) == ["the two are not along the same single axis"]
    weights = {**held(2, 3, 1, 1), "d": ints(1, 2)}
    assert misses(NAME, parse(text, weights)) == ["the two are not along the same single axis"]
    text = "agraph (float[1,5,1] x) => (float[A] y) { s = Slice(x, b, e, a)  y = Squeeze(s) }"
    assert misses(NAME, parse(text, held(2, 3, 1, 1))) == ["the two are not along the same single axis"]


def test_slice_is_read_elsewhere() -> None:
    text = GRAPH.replace("float[A,B] y)", "float[A,B] y, float[C,D,E] s)")
    assert misses(NAME, parse(text, held(2, 3, 1, 1))) == ["the slice is read elsewhere"]


def test_bounds_of_the_caller() -> None:
    text = GRAPH.replace("x)", "x, int64[1] e)", 1)
    weights = held(2, 3, 1, 1)
    del weights["e"]
    assert misses(NAME, parse(text, weights)) == ["the bounds, or the axes, are not known"]


def test_inside_a_branch() -> None:
    text = """agraph (float[N,5,4] x, bool c) => (float[A,B] y) {
        o = Slice(x, b, e, a)
        y = If (c) <
            then_branch = yes () => (float[A,B] u) { s = Slice(x, b, e, a)  t = Squeeze(s, d)  u = Neg(t) },
            else_branch = no () => (float[A,B] v) { v = Squeeze(o, d) }
        >
    }"""
    result = fires(NAME, parse(text, held(2, 3, 1, 1)), count=1)
    branch = result.graph[1].attributes["then_branch"].as_graph()
    assert [node.op_type for node in branch] == ["Gather", "Neg"]
    assert lines(result.graph[1].attributes["else_branch"].as_graph()) == ["v = Squeeze(o, d)"]


def test_too_short_an_axis_fails_before_and_after() -> None:
    from harness import apply, feeds, run

    model = parse(GRAPH, held(2, 3, 0, 0))
    result, stats, _ = apply(model, NAME)
    assert stats.counts == {NAME: 1}
    for each in (model, result):
        with pytest.raises(Exception, match=r"Squeeze|indices|Gather"):
            run(each, feeds(model, sizes={"N": 2}))


def test_other_nodes_between() -> None:
    text = "agraph (float[N,5] x) => (float[A] y) { s = Slice(x, b, e, a)  r = Relu(s)  y = Squeeze(r, d) }"
    unchanged(NAME, parse(text, held(2, 3, 1, 1)))


def test_metadata_survives() -> None:
    model = parse(GRAPH, held(2, 3, 1, 1))
    model.graph[1].metadata_props["origin"] = "pooler"
    assert fires(NAME, model, count=1).graph[0].metadata_props == {"origin": "pooler"}
