"""convert-gather."""

from __future__ import annotations

import numpy as np
import pytest
from harness import fires, lines, misses, parse, unchanged

NAME = "convert-gather"
UNEVEN = ["the indices are not in even, growing steps"]
VECTOR = ["the tensor is a vector, of unknown rank, or sliced by attributes"]
FAR = 2**31 - 1


def graph(axis: int = 1, shape: str = "N,9,4", opset: int = 21) -> str:
    out = ",".join("ABCD"[: shape.count(",") + 1])
    return f"""<ir_version: 10, opset_import: ["" : {opset}]>
    agraph (float[{shape}] x) => (float[{out}] y) {{ g = Gather<axis = {axis}>(x, i)  y = Neg(g) }}"""


@pytest.mark.parametrize(
    ("indices", "bounds"),
    [
        ([2, 3, 4], [[2], [5], [2]]),
        ([0, 1, 2, 3, 4, 5, 6, 7, 8], [[0], [9], [2]]),
        ([5], [[5], [6], [2]]),
        ([1, 3, 5], [[1], [6], [2], [2]]),
        ([-3, -2, -1], [[-3], [FAR], [2]]),
        ([-5, -3], [[-5], [-2], [2], [2]]),
        ([-1], [[-1], [FAR], [2]]),
        ([0, 8], [[0], [9], [2], [8]]),
    ],
)
@pytest.mark.parametrize("kind", ["int32", "int64"])
def test_even_steps(indices: list[int], bounds: list[list[int]], kind: str) -> None:
    result = fires(NAME, parse(graph(2, "N,4,9"), {"i": np.array(indices, kind)}), count=1)
    assert [node.op_type for node in result.graph] == ["Slice", "Neg"]
    held = [value.const_value for value in result.graph[0].inputs[1:] if value is not None]
    assert [tensor.numpy().tolist() for tensor in held if tensor is not None] == bounds


def test_larger_steps_along_another_axis() -> None:
    reason = ["a Slice in steps pays along the last axis only"]
    assert misses(NAME, parse(graph(), {"i": np.array([1, 3, 5])})) == reason
    fires(NAME, parse(graph(), {"i": np.array([1, 2, 3])}), count=1)


@pytest.mark.parametrize("axis", [2, -1, -2])
@pytest.mark.parametrize("opset", [10, 11, 13])
def test_axes_and_opsets(axis: int, opset: int) -> None:
    fires(NAME, parse(graph(axis, opset=opset), {"i": np.array([1, 2], np.int64)}), count=1)


@pytest.mark.parametrize("indices", [[0, 1, 3], [3, 2, 1], [2, 2, 2], [-1, 0], [0, 2, 3], [-1, 0, 1]])
def test_uneven_steps(indices: list[int]) -> None:
    assert misses(NAME, parse(graph(), {"i": np.array(indices, np.int64)})) == UNEVEN


def test_vector_and_old_opset() -> None:
    assert misses(NAME, parse(graph(0, "9"), {"i": np.array([1, 2], np.int64)})) == VECTOR
    assert misses(NAME, parse(graph(opset=9), {"i": np.array([1, 2], np.int64)})) == VECTOR


@pytest.mark.parametrize("shape", [(), (1, 2), (0,)])
def test_indices_that_are_no_vector(shape: tuple[int, ...]) -> None:
    text = graph().replace("A,B,C", ",".join("ABCDEF"[: 2 + len(shape)]))
    unchanged(NAME, parse(text, {"i": np.arange(np.prod(shape, dtype=int)).reshape(shape)}))


def test_indices_of_the_caller() -> None:
    unchanged(NAME, parse(graph().replace("x)", "x, int64[2] i)", 1), {"i": np.array([1, 2], np.int64)}))


def test_graph_output() -> None:
    text = "agraph (float[N,9] x) => (float[A,B] y) { y = Gather<axis = 1>(x, i) }"
    (node,) = fires(NAME, parse(text, {"i": np.array([1, 2], np.int64)}), count=1).graph
    assert (node.op_type, node.outputs[0].name) == ("Slice", "y")


def test_inside_a_branch_and_a_function() -> None:
    text = """<ir_version: 10, opset_import: ["" : 21, "own" : 1]>
    agraph (float[N,9] x, bool c) => (float[A,B] y) {
        w = If (c) <
            then_branch = yes () => (float[A,B] a) { a = Gather<axis = 1>(x, i) },
            else_branch = no () => (float[C,D] b) { b = Neg(x) }
        >
        y = own.f(w)
    }
    <domain: "own", opset_import: ["" : 21]>
    f (a) => (b) {
        i = Constant<value_ints = [0, 1]>()
        b = Gather(a, i)
    }"""
    result = fires(NAME, parse(text, {"i": np.array([1, 2], np.int64)}), count=1, sizes={"N": 2})
    (branch,) = [node.attributes["then_branch"].as_graph() for node in result.graph if node.op_type == "If"]
    assert [node.op_type for node in branch] == ["Slice"]
    (function,) = result.functions.values()
    assert lines(function)[-1] == "b = Gather(a, i)"  # the rank is not known


def test_name_and_metadata_survive() -> None:
    model = parse(graph(), {"i": np.array([1, 2], np.int64)})
    model.graph[0].name = "crop"
    model.graph[0].metadata_props["origin"] = "head"
    node = fires(NAME, model, count=1).graph[0]
    assert (node.name, node.metadata_props) == ("crop", {"origin": "head"})
