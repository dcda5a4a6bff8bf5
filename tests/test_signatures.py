"""Nodes that do not fit their operators."""

from __future__ import annotations

import onnx
import onnx_ir as ir
import pytest
from harness import parse

from graphopt import proto
from graphopt.errors import ModelError
from graphopt.proto import signatures


def conv() -> onnx.NodeProto:
    return onnx.helper.make_node("Conv", ["x", "w"], ["y"], name="c1", pads=[0, 0, 0, 0])


def check(node: onnx.NodeProto) -> None:
    model = proto.to_proto(
        parse("agraph (float[N,4,8,8] x, float[4,4,1,1] w) => (float[N,4,8,8] y) { y = Conv (x, w) }")
    )
    model.graph.node[0].CopyFrom(node)
    signatures.check(proto.from_proto(model))


def test_a_proper_node_passes() -> None:
    check(conv())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda node: node.input.pop(), "input 1 is missing"),
        (lambda node: node.input.__setitem__(0, ""), "input 0 is missing"),
        (lambda node: node.input.extend(["x", "x"]), "it has 4 inputs, at most 3"),
        (lambda node: node.output.append("z"), "it has 2 outputs, at most 1"),
        (
            lambda node: node.attribute[0].CopyFrom(onnx.helper.make_attribute("pads", "same")),
            "attribute 'pads' is of type STRING, must be INTS",
        ),
    ],
)
def test_what_is_wrong_is_named(change: object, words: str) -> None:
    node = conv()
    change(node)  # type: ignore[operator]
    with pytest.raises(ModelError, match="c1") as caught:
        check(node)
    assert words in str(caught.value)


def test_function_that_carries_an_operators_name_is_not_judged() -> None:
    text = """<ir_version: 10, opset_import: ["" : 21]>
    agraph (float[N] x) => (float[N] y) { y = Relu (x, x) }
    <domain: "", opset_import: ["" : 21]>
    Relu (a, b) => (c) { c = Add (a, b) }"""
    model = parse(text)
    assert isinstance(model, ir.Model)
    signatures.check(model)


def test_reference_without_a_type() -> None:
    text = """<ir_version: 10, opset_import: ["" : 21, "own" : 1]>
    agraph (float[2,3] x) => (float[3,2] y) { y = own.f <p = [1, 0]> (x) }
    <domain: "own", opset_import: ["" : 21]>
    f <p> (v) => (w) { w = Transpose <perm = @p> (v) }"""
    signatures.check(parse(text))


def test_a_required_attribute() -> None:
    with pytest.raises(ModelError, match="its attribute 'to' is missing"):
        check(onnx.helper.make_node("Cast", ["x"], ["y"]))


def test_a_reference_outside_of_functions() -> None:
    node = conv()
    node.attribute[0].CopyFrom(onnx.AttributeProto(name="pads", ref_attr_name="p", type=onnx.AttributeProto.INTS))
    with pytest.raises(ModelError, match="refers to an attribute of a function"):
        check(node)


@pytest.mark.parametrize("version", [None, 0, -1, 1 << 62])
def test_an_operator_set_that_is_not_imported(version: int | None) -> None:
    model = parse("agraph (float[N] x) => (float[N] y) { y = Relu (x) }")
    model.graph.opset_imports.clear()
    if version is not None:
        model.graph.opset_imports[""] = version
    with pytest.raises(ModelError, match="imports no usable version"):
        signatures.check(model)
