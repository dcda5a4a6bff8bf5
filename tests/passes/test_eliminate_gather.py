"""eliminate-gather."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from harness import fires, misses, parse, unchanged

NAME = "eliminate-gather"
LENGTHS = ["the lengths of the operands are not known"]
READ = "something else than Gathers of one element reads the Concat"


def graph(
    body: str, index: object, outputs: str = "float[A] y", inputs: str = "float[N,2] x, float[N,3] z"
) -> ir.Model:
    weights = {"i": np.array(index, np.int64)} | {"d": np.array([0], np.int64), "e": np.array([0, 1], np.int64)}
    weights = {name: one for name, one in weights.items() if f", {name})" in body}
    return parse(f"agraph ({inputs}) => ({outputs}) {{ {body} }}", weights)


@pytest.mark.parametrize(
    ("index", "operand", "place"),
    [(0, "x", 0), (1, "x", 1), (2, "z", 0), (4, "z", 2), (-1, "z", -1), (-3, "z", -3), (-4, "x", -1), (-5, "x", -2)],
)
def test_an_element_of_an_operand(index: int, operand: str, place: int) -> None:
    body = "c = Concat <axis = 1> (x, z) g = Gather <axis = -1> (c, i) y = Relu (g)"
    result = fires(NAME, graph(body, index))
    gather, _ = result.graph
    assert [value.name for value in gather.inputs[:1] if value is not None] == [operand]
    assert gather.inputs[1] is not None
    assert gather.inputs[1].const_value is not None
    assert gather.inputs[1].const_value.numpy() == place


def test_stacked() -> None:
    body = "u = Unsqueeze (x, d) v = Unsqueeze (z, d) c = Concat <axis = 0> (u, v) g = Gather (c, i) y = Relu (g)"
    model = graph(body, 1, "float[A,B] y", "float[N,2] x, float[N,2] z")
    fires(NAME, model, ["y = Relu(z)"], count=2)


def test_several_elements() -> None:
    body = "c = Concat <axis = 1> (x, z) g = Gather <axis = 1> (c, i) h = Gather <axis = 1> (c, d2) y = Add (g, h)"
    text = f"agraph (float[N,2] x, float[N,3] z) => (float[A] y) {{ {body} }}"
    result = fires(NAME, parse(text, {"i": np.array(0), "d2": np.array(-1)}), count=2)
    assert "Concat" not in {node.op_type for node in result.graph}


@pytest.mark.parametrize(("index", "inputs"), [(2, "float[N,M] x, float[N,3] z"), (-4, "float[N,2] x, float[N,M] z")])
def test_lengths_that_are_not_known(index: int, inputs: str) -> None:
    body = "c = Concat <axis = 1> (x, z) y = Gather <axis = 1> (c, i)"
    assert misses(NAME, graph(body, index, inputs=inputs)) == LENGTHS


def test_lengths_that_need_not_be_known() -> None:
    body = "c = Concat <axis = 1> (x, z) y = Gather <axis = 1> (c, i)"
    fires(NAME, graph(body, 1, inputs="float[N,2] x, float[N,M] z"))
    fires(NAME, graph(body, -1, inputs="float[N,M] x, float[N,3] z"))


def test_what_is_not_there() -> None:
    assert misses(NAME, graph("c = Concat <axis = 1> (x, z) y = Gather <axis = 1> (c, i)", 5)) == LENGTHS


@pytest.mark.parametrize(
    ("body", "outputs"),
    [
        ("c = Concat <axis = 1> (x, z) y = Gather <axis = 1> (c, i) w = Relu (c)", "float[A] y, float[B,C] w"),
        ("c = Concat <axis = 1> (x, z) y = Gather <axis = 1> (c, i)", "float[A] y, float[B,C] c"),
        ("c = Concat <axis = 1> (x, z) y = Gather <axis = 0> (c, i)", "float[A] y"),
        (
            "c = Concat <axis = 1> (x, z) y = Gather <axis = 1> (c, i) w = Gather <axis = 1> (c, e)",
            "float[A] y, float[B,C] w",
        ),
    ],
)
def test_the_concat_would_stay(body: str, outputs: str) -> None:
    assert READ in misses(NAME, graph(body, 0, outputs))


@pytest.mark.parametrize(
    ("body", "outputs"),
    [
        ("u = Unsqueeze (x, e) y = Gather <axis = 0> (u, i)", "float[A,B,C] y"),  # made another axis too
        ("u = Unsqueeze (x, d) y = Gather <axis = 1> (u, i)", "float[A,B] y"),  # of another axis
        ("u = Unsqueeze (x, d) y = Gather <axis = 1> (u, e)", "float[A,B,C] y"),  # of several elements
    ],
)
def test_more_than_what_an_unsqueeze_reads(body: str, outputs: str) -> None:
    assert len(misses(NAME, graph(body, 0, outputs))) == 1


def test_an_index_of_the_caller() -> None:
    text = "agraph (float[N,2] x, int64 i) => (float[A,B] y) { u = Unsqueeze (x, d) y = Gather (u, i) }"
    unchanged(NAME, parse(text, {"d": np.array([0], np.int64)}))
