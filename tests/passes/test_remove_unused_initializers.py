"""remove-unused-initializers."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from harness import fires, parse, unchanged

NAME = "remove-unused-initializers"
ONES = np.ones(4, np.float32)


def names(model: ir.Model) -> list[str]:
    return list(model.graph.initializers)


def test_unread_ones_go() -> None:
    text = "agraph (float[N,4] x) => (float[N,4] y) { y = Add (x, w) }"
    model = parse(text, {"w": ONES, "u": ONES, "s": ir.StringTensor([b"a"], shape=ir.Shape([1]), name="s")})
    assert names(fires(NAME, model, ["y = Add(x, w)"], count=2)) == ["w"]


def test_graph_without_nodes() -> None:
    text = "agraph (float[4] x) => (float[4] x) { }"
    assert not names(fires(NAME, parse(text, {"u": ONES}), count=1))


def test_reading_inside_a_subgraph_counts() -> None:
    text = """agraph (float[4] x, bool b) => (float[4] y) {
        y = If (b) <
            then_branch = left () => (float[4] l) { l = Add (x, w) },
            else_branch = right () => (float[4] r) {
                r = If (b) <
                    then_branch = inner () => (float[4] i) { i = Add (x, v) },
                    else_branch = other () => (float[4] o) { o = Neg (x) }
                >
            }
        >
    }"""
    assert names(fires(NAME, parse(text, {"w": ONES, "v": ONES, "u": ONES}), count=1)) == ["w", "v"]


def test_initializers_of_a_subgraph() -> None:
    text = """agraph (float[2] x, bool b) => (float[2] y) {
        y = If (b) <
            then_branch = left () => (float[2] l) <float[2] w = {1, 2}, float[2] u = {1, 2}> { l = Add (x, w) },
            else_branch = right () => (float[2] r) <float[2] v = {1, 2}> { r = Neg (x) }
        >
    }"""
    result = fires(NAME, parse(text), count=2)
    attributes = result.graph[0].attributes
    assert list(attributes["then_branch"].as_graph().initializers) == ["w"]
    assert not attributes["else_branch"].as_graph().initializers


def test_interface_stays() -> None:
    text = "agraph (float[4] x, float[4] u) => (float[4] y, float[4] v) { y = Neg (x) }"
    unchanged(NAME, parse(text, {"u": ONES, "v": ONES}))


def test_listed_as_inputs_before_ir_version_4() -> None:
    """Such a listing is no interface: it had to be there, and no caller could override it."""
    text = """<ir_version: 3, opset_import: ["" : 8]>
    agraph (float[N,4] x, float[4] u) => (float[N,4] y) { y = Neg (x) }"""
    result = fires(NAME, parse(text, {"u": ONES}), count=1)
    assert [value.name for value in result.graph.inputs] == ["x"]
    assert not names(result)


def test_scale_of_a_quantization_annotation() -> None:
    model = parse("agraph (float[N,4] x) => (float[N,4] y) { y = Neg (x) }", {"scale": ONES, "u": ONES})
    model.graph[0].outputs[0].meta["quant_parameter_tensor_names"] = {"SCALE_TENSOR": "scale"}
    assert names(fires(NAME, model, count=1)) == ["scale"]
