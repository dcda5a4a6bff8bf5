"""eliminate-dead-nodes."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from harness import apply, fires, lines, parse, unchanged

NAME = "eliminate-dead-nodes"


def test_chain_dies_from_its_end() -> None:
    text = """agraph (float[N,4] x) => (float[N,4] y) {
        a = Exp (x)
        b = Neg (a)
        c, d = Split <axis = 1, num_outputs = 2> (b)
        y = Relu (x)
    }"""
    fires(NAME, parse(text), ["y = Relu(x)"], count=3)


def test_one_live_output_keeps_a_node() -> None:
    text = """agraph (float[N,4] x) => (float[N,2] y) {
        a, b = Split <axis = 1, num_outputs = 2> (x)
        y = Relu (b)
    }"""
    unchanged(NAME, parse(text))


def test_random_nodes_too() -> None:
    fires(NAME, parse("agraph (float[N,4] x) => (float[N,4] y) { r = RandomNormalLike (x)  y = Neg (x) }"), count=1)


def test_inside_branches_and_functions() -> None:
    text = """<ir_version: 10, opset_import: ["" : 21, "local" : 1]>
    agraph (float[N,4] x, bool b) => (float[N,4] y) {
        k = Exp (x)
        d = Abs (x)
        y = If (b) <
            then_branch = left () => (float[N,4] l) { u = Neg (x)  l = Add (x, k) },
            else_branch = right () => (float[N,4] r) { r = local.block (x) }
        >
    }
    <domain: "local", opset_import: ["" : 21]>
    block (x) => (y) { a = Neg (x)  b = Exp (a)  y = Relu (x) }"""
    result = fires(NAME, parse(text), count=4)
    assert lines(result)[0] == "k = Exp(x)"
    assert lines(result.graph[1].attributes["then_branch"].as_graph()) == ["l = Add(x, k)"]
    assert lines(next(iter(result.functions.values()))) == ["y = Relu(x)"]


def test_dead_branch_releases_what_it_captured() -> None:
    text = """agraph (float[N,4] x, bool b) => (float[N,4] z) {
        k = Exp (x)
        y = If (b) <
            then_branch = left () => (float[N,4] l) { l = Add (x, k) },
            else_branch = right () => (float[N,4] r) { r = Neg (k) }
        >
        z = Relu (x)
    }"""
    fires(NAME, parse(text), ["z = Relu(x)"])


def test_custom_operator_without_outputs() -> None:
    text = """<ir_version: 10, opset_import: ["" : 21, "other" : 1]>
    agraph (float[N,4] x) => (float[N,4] y) { y = Neg (x) }"""
    model = parse(text)
    model.graph.append(ir.Node("other", "Log", [model.graph.inputs[0]], num_outputs=0, name="log"))
    assert not apply(model, NAME)[1].counts


def test_who_became_the_only_reader_gets_another_look() -> None:
    """The BatchNormalization cannot fold while a dead node reads the convolution too."""
    text = """agraph (float[N,4,8,8] x) => (float[N,6,8,8] y) {
        c = Conv (x, w)
        d = Exp (c)
        y = BatchNormalization (c, s, s, s, s)
    }"""
    weights = {"w": np.ones((6, 4, 1, 1), np.float32), "s": np.ones(6, np.float32)}
    result, _, _ = apply(parse(text, weights), "fuse-conv-batchnorm", NAME)
    assert lines(result) == ["y = Conv(x, w_1, Conv_bias)"]
