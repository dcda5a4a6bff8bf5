"""remove-unused-inputs."""

from __future__ import annotations

import numpy as np
from harness import apply, feeds, lines, parse, run

import graphopt
from graphopt import proto

NAME = "remove-unused-inputs"


def names(model: object) -> list[str | None]:
    return [value.name for value in model.graph.inputs]  # type: ignore[attr-defined]


def test_unused_inputs_go() -> None:
    model = parse("agraph (int64[N] ids, float[N,4] x, float[N,4] mask) => (float[N,4] y) { y = Relu(x) }")
    result, stats, _ = apply(model, NAME)
    assert stats.counts == {NAME: 2}
    assert names(result) == ["x"]
    assert lines(result) == ["y = Relu(x)"]
    given = {"x": feeds(model)["x"]}
    np.testing.assert_array_equal(run(result, given)[0], np.maximum(given["x"], 0))
    assert not apply(result, NAME)[1].counts


def test_read_by_nodes_that_nobody_needs() -> None:
    text = """agraph (float[N,4] x, float[N,4] z, bool c) => (float[N,4] y) {
        a = Exp(z)
        b = Add(a, x)
        d = If (c) <
            then_branch = g1 () => (float[N,4] t) { t = Neg(b) },
            else_branch = g2 () => (float[N,4] e) { e = Abs(z) }
        >
        y = Relu(x)
    }"""
    result, stats, _ = apply(parse(text), NAME)
    assert stats.counts == {NAME: 2}
    assert names(result) == ["x"]
    assert lines(result) == ["y = Relu(x)"]


def test_read_by_a_node_or_in_a_branch_or_an_output() -> None:
    text = """agraph (float[N,4] x, float[N,4] z, float[N,4] o, bool c) => (float[A,B] y, float[N,4] o) {
        y = If (c) <
            then_branch = yes () => (float[A,B] a) { a = Neg(x) },
            else_branch = no () => (float[A,B] b) { b = Add(x, z) }
        >
    }"""
    result, stats, _ = apply(parse(text), NAME)
    assert not stats.counts
    assert names(result) == ["x", "z", "o", "c"]


def test_default_of_an_input_and_inputs_of_bodies() -> None:
    text = """<ir_version: 10, opset_import: ["" : 21, "own" : 1]>
    agraph (float[N,4] x, float[4] w, int64 n) => (float[N,4] y) {
        t = own.f(x, x)
        y = Loop (n, , t) <body = step (int64 i, bool c, float[N,4] s) => (bool d, float[N,4] u) {
            d = Identity(c)
            u = Neg(s)
        }>
    }
    <domain: "own", opset_import: ["" : 21]>
    f (a, b) => (r) { r = Abs(a) }"""
    result, stats, _ = apply(parse(text, {"w": np.ones(4, np.float32)}), NAME)
    assert not stats.counts
    assert names(result) == ["x", "w", "n"]


def test_only_when_asked_for() -> None:
    model = proto.to_proto(parse("agraph (float[N,4] x, float[N,4] mask) => (float[N,4] y) { y = Relu(x) }"))
    kept = graphopt.optimize(model, validate=False)
    assert [value.name for value in kept.graph.input] == ["x", "mask"]
    result, report = graphopt.optimize(model, passes=[NAME, "default"], with_report=True)
    assert [value.name for value in result.graph.input] == ["x"]
    assert not report.dropped
