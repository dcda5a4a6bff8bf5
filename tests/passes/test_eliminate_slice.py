"""eliminate-slice."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from harness import apply, fires, lines, misses, parse, unchanged

NAME = "eliminate-slice"
MAX32, MAX64, MIN64 = 2**31 - 1, 2**63 - 1, -(2**63)


def ints(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int64)


def graph(body: str, out: str = "N,4", opset: int = 21) -> str:
    return f"""<ir_version: 10, opset_import: ["" : {opset}]>
    agraph (float[N,4] x) => (float[{out}] y) {{ {body}  y = Relu(s) }}"""


def bounds(
    starts: Sequence[int], ends: Sequence[int], axes: Sequence[int] = (), steps: Sequence[int] = ()
) -> dict[str, np.ndarray]:
    return {"b": ints(*starts), "e": ints(*ends), "a": ints(*axes), "p": ints(*steps)}


@pytest.mark.parametrize(
    ("starts", "ends", "axes"),
    [
        ([0], [MAX64], [0]),
        ([0], [MAX32], [0]),
        ([0, 0], [MAX64, 4], [0, 1]),
        ([0], [4], [1]),
        ([0], [9], [-1]),
        ([-4], [4], [1]),
        ([-9], [MAX64], [1]),
        ([MIN64], [MAX64], [0]),
        ([0, 0], [MAX64, 4], [-2, -1]),
    ],
)
def test_whole_range(starts: list[int], ends: list[int], axes: list[int]) -> None:
    fires(NAME, parse(graph("s = Slice(x, b, e, a)"), bounds(starts, ends, axes)), ["y = Relu(x)"])


def test_axes_and_steps_left_out() -> None:
    fires(NAME, parse(graph("s = Slice(x, b, e)"), bounds([0, 0], [MAX64, 4])), ["y = Relu(x)"])
    fires(NAME, parse(graph("s = Slice(x, b, e, , p)"), bounds([0, 0], [MAX64, 4], [], [1, 1])), ["y = Relu(x)"])


@pytest.mark.parametrize(
    ("starts", "ends", "axes", "steps"),
    [
        ([1], [MAX64], [0], [1]),
        ([0], [3], [1], [1]),
        ([0], [4], [0], [1]),  # the batch may be longer
        ([0], [-1], [1], [1]),
        ([-3], [MAX64], [1], [1]),
        ([0], [MAX64], [1], [2]),
        ([-1], [MIN64], [1], [-1]),
        ([0, 1], [MAX64, 4], [0, 1], [1, 1]),
    ],
)
def test_part_of_the_range(starts: list[int], ends: list[int], axes: list[int], steps: list[int]) -> None:
    unchanged(NAME, parse(graph("s = Slice(x, b, e, a, p)", "K,L"), bounds(starts, ends, axes, steps)))


@pytest.mark.parametrize("opset", [1, 9])
def test_attributes(opset: int) -> None:
    text = graph("s = Slice<starts = [0, 0], ends = [2147483647, 4]>(x)", opset=opset)
    assert lines(apply(parse(text), NAME)[0]) == ["y = Relu(x)"]
    text = graph("s = Slice<starts = [0], ends = [4], axes = [1]>(x)", opset=opset)
    assert lines(apply(parse(text), NAME)[0]) == ["y = Relu(x)"]
    unchanged(NAME, parse(text.replace("[4]", "[3]")))


def test_end_computed_from_the_shape() -> None:
    body = "h = Shape(x)  n = Gather(h, b)  s = Slice(x, b, n, a)"
    fires(NAME, parse(graph(body), bounds([0], [], [0])), ["y = Relu(x)"])
    body = "h = Shape(x)  n = Gather(h, b)  m = Sub(n, one)  s = Slice(x, b, m, a)"
    unchanged(NAME, parse(graph(body, "K,4"), {**bounds([0], [], [0]), "one": ints(1)}))


def test_end_that_belongs_to_another_axis() -> None:
    text = """agraph (float[N,M] x) => (float[A,B] y) {
        h = Shape<start = 1>(x)
        s = Slice(x, b, h, b)
        y = Relu(s)
    }"""
    unchanged(NAME, parse(text, {"b": ints(0)}))


def test_bounds_that_the_caller_chooses() -> None:
    text = "agraph (float[N,4] x, int64[1] e) => (float[K,4] y) { s = Slice(x, b, e)  y = Relu(s) }"
    unchanged(NAME, parse(text, {"b": ints(0)}))
    unchanged(NAME, parse(text, {"b": ints(0), "e": ints(MAX64)}))  # may be overridden


def test_narrow_integers() -> None:
    weights = {"b": np.array([0], np.int32), "e": np.array([MAX32], np.int32), "a": np.array([0], np.int32)}
    fires(NAME, parse(graph("s = Slice(x, b, e, a)"), weights), ["y = Relu(x)"])


def test_interface_needs_the_node() -> None:
    text = "agraph (float[N,4] x) => (float[N,4] y) { y = Slice(x, b, e) }"
    reason = "it computes a graph output that cannot be renamed away"
    assert misses(NAME, parse(text, bounds([0], [MAX64]))) == [reason]


def test_inside_a_branch_on_a_captured_value() -> None:
    text = """agraph (float[N,4] x, bool t) => (float[N,4] y) {
        y = If (t) <
            then_branch = yes () => (float[N,4] a) { s = Slice(x, b, e, a0)  a = Relu(s) },
            else_branch = no () => (float[N,4] c) { c = Neg(x) }
        >
    }"""
    result = fires(NAME, parse(text, {"b": ints(0), "e": ints(4), "a0": ints(1)}), count=1)
    assert lines(result.graph[0].attributes["then_branch"].as_graph()) == ["a = Relu(x)"]


def test_inside_a_function() -> None:
    text = """<ir_version: 10, opset_import: ["" : 21, "own" : 1]>
    agraph (float[N,4] x) => (float[N,4] y) { y = own.f(x) }
    <domain: "own", opset_import: ["" : 21]>
    f (a) => (b) {
        zero = Constant<value_ints = [0]>()
        one = Constant<value_ints = [1]>()
        four = Constant<value_ints = [4]>()
        far = Constant<value_ints = [9223372036854775807]>()
        s = Slice(a, zero, far)
        t = Slice(s, zero, four, one)
        b = Relu(t)
    }"""
    result = fires(NAME, parse(text), count=1)
    (function,) = result.functions.values()
    assert lines(function)[-2:] == ["t = Slice(a, zero, four, one)", "b = Relu(t)"]  # the rank is not known


def pieces(body: str, axis: int = 1) -> str:
    return f"""agraph (float[N,3] u, float[N,M] v, float[N,2] w) => (float[A,B] y) {{
        c = Concat<axis = {axis}>(u, v, w)
        {body}
        y = Relu(s)
    }}"""


@pytest.mark.parametrize(("start", "end", "taken"), [(0, 3, "u"), (-2, MAX64, "w"), (3, -2, "v")])
@pytest.mark.parametrize("axis", [1, -1])
def test_operand_of_a_concat(start: int, end: int, taken: str, axis: int) -> None:
    model = parse(pieces("s = Slice(c, b, e, a)", axis), bounds([start], [end], [axis]))
    fires(NAME, model, [f"y = Relu({taken})"])


def test_operand_of_a_concat_by_its_own_length() -> None:
    text = pieces("h = Shape<start = 1>(v)  t = Add(h, b)  s = Slice(c, b, t, a)")
    fires(NAME, parse(text, bounds([3], [], [1])), ["y = Relu(v)"])


@pytest.mark.parametrize(
    ("start", "end", "axis"),
    [(0, 2, 1), (1, 3, 1), (0, MAX64, 0), (0, 3, 0), (3, 4, 1), (-3, MAX64, 1), (0, -2, 1), (3, MAX64, 1)],
)
def test_not_just_an_operand(start: int, end: int, axis: int) -> None:
    model = parse(pieces("s = Slice(c, b, e, a)"), bounds([start], [end], [axis]))
    if (start, end) == (0, MAX64):
        fires(NAME, model, ["c = Concat<axis=1>(u, v, w)", "y = Relu(c)"])
    else:
        unchanged(NAME, model)
