"""merge-slices."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
import pytest
from harness import apply, fires, lines, misses, parse, unchanged

NAME = "merge-slices"
FAR = 2**63 - 1


def ints(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int64)


def weights(inner: Sequence[Sequence[int]], outer: Sequence[Sequence[int]]) -> dict[str, np.ndarray]:
    """Starts, ends, axes and steps of both."""
    named = {f"i{index}": part for index, part in enumerate(inner)} | {
        f"o{index}": part for index, part in enumerate(outer)
    }
    return {name: ints(*part) for name, part in named.items()}


BODY = "t = Slice(x, i0, i1, i2, i3)  s = Slice(t, o0, o1, o2, o3)  y = Neg(s)"
GRAPH = f"agraph (float[N,9] x) => (float[A,B] y) {{ {BODY} }}"


def contents(model: ir.Model) -> list[list[int]]:
    """What the first node reads besides its first input."""
    tensors = [value.const_value for value in model.graph[0].inputs[1:] if value is not None]
    return [tensor.numpy().tolist() for tensor in tensors if tensor is not None]


def test_other_axes() -> None:
    model = parse(GRAPH, weights(([0], [2], [0], [1]), ([3], [FAR], [1], [2])))
    result = fires(NAME, model, sizes={"N": 4})
    assert contents(result) == [[0, 3], [2, FAR], [0, 1], [1, 2]]


def test_negative_axes_and_bounds_along_other_axes() -> None:
    model = parse(GRAPH, weights(([-3], [-1], [-1], [1]), ([-1], [-9], [0], [-1])))
    result = fires(NAME, model, sizes={"N": 4})
    assert contents(result) == [[-1, -3], [-9, -1], [0, 1], [-1, 1]]


def test_same_axis_however_short_it_is() -> None:
    text = "agraph (float[N] x) => (float[A] y) { t = Slice(x, i0, i1, i2)  y = Slice(t, o0, o1, o2) }"
    starts, ends = (0, 1, 5), (0, 3, FAR)
    for start, end, second_start, second_end in itertools.product(starts, ends, starts, ends):
        result, stats, _ = apply(parse(text, weights(([start], [end], [0]), ([second_start], [second_end], [0]))), NAME)
        assert stats.counts == {NAME: 1}
        merged = slice(*(part[0] for part in contents(result)[:2]))
        for length in (0, 1, 2, 3, 5, 8, 13):
            whole = np.arange(length)
            assert whole[merged].tolist() == whole[start:end][second_start:second_end].tolist()


def test_both_ends_count_from_the_end() -> None:
    text = "agraph (float[N] x) => (float[A] y) { t = Slice(x, i0, i1, i2)  y = Slice(t, o0, o1, o2) }"
    for start, end, second_start, second_end in itertools.product((0, 1, 3), (FAR, -1, -3), (0, 1, 3), (-1, -2)):
        result, stats, _ = apply(parse(text, weights(([start], [end], [0]), ([second_start], [second_end], [0]))), NAME)
        assert stats.counts == {NAME: 1}
        merged = slice(*(part[0] for part in contents(result)[:2]))
        for length in range(12):
            whole = np.arange(length)
            assert whole[merged].tolist() == whole[start:end][second_start:second_end].tolist()


@pytest.mark.parametrize(("length", "step"), [(0, 1), (2, 2), (4, 1), (9, 3)])
def test_end_of_the_first_one_counts_from_the_end(length: int, step: int) -> None:
    model = parse(GRAPH, weights(([1], [-2], [0], [1]), ([1], [FAR], [0], [step])))
    result = fires(NAME, model, count=1, sizes={"N": length})
    assert contents(result)[:3] == [[2], [-2], [0]]


@pytest.mark.parametrize(
    ("inner", "outer"),
    [
        (([-3], [FAR], [0], [1]), ([1], [FAR], [0], [1])),
        (([1], [FAR], [0], [1]), ([-1], [FAR], [0], [1])),
        (([1], [8], [0], [1]), ([1], [-1], [0], [1])),
        (([1], [-1], [0], [1]), ([1], [-(2**63)], [0], [1])),
        (([1], [-1], [0], [1]), ([0], [2], [0], [1])),
        (([0], [FAR], [0], [2]), ([1], [FAR], [0], [1])),
        (([0], [FAR], [0], [1]), ([1], [0], [0], [-1])),
    ],
)
def test_same_axis_from_its_end_or_in_steps(inner: list[list[int]], outer: list[list[int]]) -> None:
    assert misses(NAME, parse(GRAPH, weights(inner, outer))) == [
        "bounds along the same axis count from its end, or in steps"
    ]


def test_attributes_of_opset_9() -> None:
    text = """<ir_version: 8, opset_import: ["" : 9]>
    agraph (float[N,9] x) => (float[A,B] y) {
        t = Slice<starts = [1], ends = [5], axes = [1]>(x)
        y = Slice<starts = [0, 1], ends = [2, 3]>(t)
    }"""
    fires(NAME, parse(text), ["y = Slice<axes=(0, 1), ends=(2, 4), starts=(0, 2)>(x)"])


def test_every_reader_is_a_slice() -> None:
    text = """agraph (float[4,9] x) => (float[A,B] y) {
        t = Slice(x, zero, far, zero, two)
        u = Slice(t, zero, far, one, two)
        v = Slice(t, one, far, one, two)
        y = Concat<axis = 1>(u, v)
    }"""
    model = parse(text, {"zero": ints(0), "one": ints(1), "two": ints(2), "far": ints(FAR)})
    result = fires(NAME, model, count=2)
    assert [node.op_type for node in result.graph] == ["Slice", "Slice", "Concat"]
    assert result.graph[0].inputs[0] is result.graph.inputs[0]


def test_first_slice_is_read_elsewhere() -> None:
    reason = ["what the first Slice gives is read elsewhere"]
    held = weights(([0], [2], [0], [1]), ([3], [5], [1], [1]))
    text = "agraph (float[N,9] x) => (float[A,B] y, float[C,D] z) { " + BODY + " z = Relu(t) }"
    assert misses(NAME, parse(text, held)) == reason
    text = "agraph (float[N,9] x) => (float[A,B] y, float[C,D] t) { " + BODY + " }"
    assert misses(NAME, parse(text, held)) == reason


def test_bounds_of_the_caller() -> None:
    text = "agraph (float[N,9] x, int64[1] i1) => (float[A,B] y) { " + BODY + " }"
    held = weights(([0], [2], [0], [1]), ([3], [5], [1], [1]))
    del held["i1"]
    assert misses(NAME, parse(text, held)) == ["the bounds are not known"]


def test_first_slice_is_outside_of_the_branch() -> None:
    text = """agraph (float[N,9] x, bool c) => (float[A,B] y) {
        t = Slice(x, i0, i1, i2)
        y = If (c) <
            then_branch = yes () => (float[A,B] a) { a = Slice(t, o0, o1, o2) },
            else_branch = no () => (float[C,D] b) { b = Slice(x, o0, o1, o2) }
        >
    }"""
    unchanged(NAME, parse(text, weights(([0], [2], [0]), ([3], [5], [1]))))


def test_function_body_of_unknown_rank() -> None:
    text = """<ir_version: 10, opset_import: ["" : 21, "own" : 1]>
    agraph (float[N,9] x) => (float[A,B] y) { y = own.f(x) }
    <domain: "own", opset_import: ["" : 21]>
    f (a) => (b) {
        zero = Constant<value_ints = [0]>()
        one = Constant<value_ints = [1]>()
        three = Constant<value_ints = [3]>()
        last = Constant<value_ints = [-1]>()
        s = Slice(a, one, three, one)
        t = Slice(s, zero, one, zero)
        u = Neg(t)
        v = Slice(u, zero, one, zero)
        b = Slice(v, zero, one, last)
    }"""
    result, stats, context = apply(parse(text), NAME)
    assert stats.counts == {NAME: 1}
    assert list(context.misses[NAME]) == ["the axes are counted from different sides"]
    (function,) = result.functions.values()
    kept = [line for line in lines(function) if " = Constant" not in line]
    assert [line.partition("(")[0] for line in kept] == ["t = Slice", "u = Neg", "v = Slice", "b = Slice"]


def test_metadata_survives() -> None:
    model = parse(GRAPH, weights(([0], [2], [0], [1]), ([3], [5], [1], [1])))
    model.graph[1].name = "crop"
    model.graph[1].metadata_props["origin"] = "image"
    result = fires(NAME, model, count=1)
    assert result.graph[0].name == "crop"
    assert result.graph[0].metadata_props == {"origin": "image"}
