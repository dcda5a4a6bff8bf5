"""eliminate-identity."""

from __future__ import annotations

import numpy as np
import pytest
from harness import apply, fires, lines, misses, parse

NAME = "eliminate-identity"
KEPT = ["it computes a graph output that cannot be renamed away"]


def test_chain() -> None:
    text = "agraph (float[N,4] x) => (float[N,4] y) { a = Identity (x)  b = Identity (a)  y = Add (a, b) }"
    fires(NAME, parse(text), ["y = Add(x, x)"], count=2)


def test_graph_output_takes_the_name_along() -> None:
    text = "agraph (float[N,4] x) => (float[N,4] y) { a = Exp (x)  y = Identity (a) }"
    fires(NAME, parse(text), ["y = Exp(x)"])


def test_graph_output_read_by_others() -> None:
    text = """agraph (float[N,4] x) => (float[N,4] y, float[N,4] z) {
        a = Exp (x)
        y = Identity (a)
        z = Add (a, y)
    }"""
    fires(NAME, parse(text), ["y = Exp(x)", "z = Add(y, y)"])


@pytest.mark.parametrize("source", ["x", "w", "z"])
def test_interface_that_needs_a_node(source: str) -> None:
    """A graph input, an initializer, or another output."""
    text = f"agraph (float[4] x) => (float[4] y, float[4] z) {{ z = Exp (x)  y = Identity ({source}) }}"
    model = parse(text, {"w": np.ones(4, np.float32)} if source == "w" else {})
    assert misses(NAME, model) == KEPT


def test_one_of_two_outputs_goes() -> None:
    text = """agraph (float[N,4] x) => (float[N,4] y, float[N,4] z) {
        a = Exp (x)
        y = Identity (a)
        z = Identity (a)
    }"""
    result, stats, _ = apply(parse(text), NAME)
    assert stats.counts[NAME] == 1
    assert lines(result) == ["y = Exp(x)", "z = Identity(y)"]


def test_outer_value_as_result_of_a_branch() -> None:
    text = """agraph (float[N,4] x, bool b) => (float[N,4] y) {
        e = Exp (x)
        y = If (b) <
            then_branch = left () => (float[N,4] l) { l = Identity (e) },
            else_branch = right () => (float[N,4] r) { i = Identity (e)  r = Neg (i) }
        >
    }"""
    result = fires(NAME, parse(text), count=1)
    attributes = result.graph[1].attributes
    assert lines(attributes["then_branch"].as_graph()) == ["l = Identity(e)"]
    assert lines(attributes["else_branch"].as_graph()) == ["r = Neg(e)"]


def test_captured_by_a_branch() -> None:
    text = """agraph (float[N,4] x, bool b) => (float[N,4] y) {
        i = Identity (x)
        y = If (b) <
            then_branch = left () => (float[N,4] l) { l = Exp (i) },
            else_branch = right () => (float[N,4] r) { r = Neg (i) }
        >
    }"""
    result = fires(NAME, parse(text), count=1)
    assert lines(result.graph[0].attributes["then_branch"].as_graph()) == ["l = Exp(x)"]


def test_inside_a_function() -> None:
    text = """<ir_version: 10, opset_import: ["" : 21, "local" : 1]>
    agraph (float[N,4] x) => (float[N,4] y) { y = local.block (x) }
    <domain: "local", opset_import: ["" : 21]>
    block (x) => (y) { a = Identity (x)  b = Exp (a)  y = Identity (b) }"""
    result = fires(NAME, parse(text), count=2)
    assert lines(next(iter(result.functions.values()))) == ["y = Exp(x)"]


def test_sequences() -> None:
    text = """agraph (float[N,4] x) => (float[M,4] y) {
        s = SequenceConstruct (x, x)
        i = Identity (s)
        y = ConcatFromSequence <axis = 0> (i)
    }"""
    fires(NAME, parse(text), count=1)
