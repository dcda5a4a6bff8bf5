"""hoist-constants."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from harness import apply, fires, lines, parse, unchanged

from graphopt.pipeline.base import Context
from graphopt.pipeline.registry import create
from graphopt.pipeline.runner import run

NAME = "hoist-constants"


def test_all_forms_of_value() -> None:
    text = """agraph (float[N,2] x) => (float[N,2] y, int64[2] z, string[2] s) {
        a = Constant <value = float[2] {1, 2}> ()
        b = Constant <value_float = 0.5> ()
        c = Constant <value_floats = [1.5, 2.5]> ()
        d = Constant <value_int = 3> ()
        e = Constant <value_ints = [4, 5]> ()
        f = Constant <value_string = "six"> ()
        g = Constant <value_strings = ["seven"]> ()
        t = Constant <value_ints = [1]> ()
        y = Sum (x, a, b, c)
        z = Add (d, e)
        h = Reshape (f, t)
        s = Concat <axis = 0> (h, g)
    }"""
    result = fires(NAME, parse(text), [
        "y = Sum(x, a, b, c)", "z = Add(d, e)", "h = Reshape(f, t)", "s = Concat<axis=0>(h, g)",
    ], count=8)  # fmt: skip
    assert list(result.graph.initializers) == list("abcdefgt")
    assert str(result.graph.initializers["e"].shape) == "[2]"
    assert result.graph.initializers["b"].dtype is ir.DataType.FLOAT


def test_readers_in_subgraphs_and_constants_of_subgraphs() -> None:
    text = """agraph (float[N,2] x, bool b) => (float[N,2] y) {
        a = Constant <value_floats = [1.0, 2.0]> ()
        y = If (b) <
            then_branch = left () => (float[N,2] l) { c = Constant <value_float = 0.5> ()  l = Sum (x, a, c) },
            else_branch = right () => (float[N,2] r) { r = Mul (x, a) }
        >
    }"""
    result = fires(NAME, parse(text), count=2)
    branch = result.graph[0].attributes["then_branch"].as_graph()
    assert list(result.graph.initializers) == ["a"]
    assert list(branch.initializers) == ["c"]
    assert branch[0].inputs[1] is result.graph.initializers["a"]


def test_values_are_registered_whole() -> None:
    """The node's output becomes the initializer: it must look like any other to whoever asks."""
    model = parse("agraph (float[N] x) => (float[N] y) { a = Constant <value_float = 0.5> ()  y = Mul (x, a) }")
    context = Context(model)
    assert context.shapes.of(model.graph[1].outputs[0]) is not None
    constant = model.graph[0]
    outcome = run(model, [create(NAME)], context)
    value = model.graph.initializers["a"]
    assert outcome.counts[NAME] == 1
    assert (value.producer(), value.index(), value.graph) == (None, None, model.graph)
    assert value.is_initializer()
    assert context.scalar(value) == 0.5
    assert context.shapes.of(value) == ()
    assert constant.graph is None
    assert [(use.node.op_type, use.idx) for use in value.uses()] == [("Mul", 1)]


def test_what_stays_a_node() -> None:
    unchanged(NAME, parse("agraph (float[N] x) => (float y) { y = Constant <value_float = 0.5> () }"))
    text = """<ir_version: 10, opset_import: ["" : 21, "local" : 1]>
    agraph (float[N] x) => (float[N] y) { y = local.scale <k = 2.0> (x) }
    <domain: "local", opset_import: ["" : 21]>
    scale <k> (x) => (y) {
        a = Constant <value_float : float = @k> ()
        b = Constant <value_float = 0.5> ()
        y = Sum (x, a, b)
    }"""
    unchanged(NAME, parse(text))


@pytest.mark.parametrize("size", [1, 5000])
def test_contents_survive(size: int) -> None:
    contents = np.arange(size, dtype=np.float32)
    model = parse(f"agraph (float[{size}] x) => (float[{size}] y) {{ y = Neg (x) }}")
    node = ir.node("Constant", [], {"value": ir.AttrTensor("value", ir.tensor(contents))}, name="c")
    node.outputs[0].name = "a"
    last = model.graph[0]
    last.prepend(node)
    last.replace_input_with(0, node.outputs[0])
    result, _, _ = apply(model, NAME)
    assert lines(result) == ["y = Neg(a)"]
    tensor = result.graph.initializers["a"].const_value
    assert tensor is not None
    np.testing.assert_array_equal(tensor.numpy(), contents)
