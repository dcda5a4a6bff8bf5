"""convert-range."""

from __future__ import annotations

import numpy as np
from harness import apply, feeds, lines, parse, run, unchanged

NAME = "convert-range"
# `w` is a vector of one element, where a Range wants a scalar.
VECTOR = """agraph (float[N,4] x) => (int64[M] y) {
    s = Shape(x)
    h, w = Split<num_outputs = 2>(s)
    y = Range(zero, w, one)
}"""
SCALARS = {"zero": np.asarray(0, np.int64), "one": np.asarray(1, np.int64)}


def test_computed_vector() -> None:
    result, stats, _ = apply(parse(VECTOR, SCALARS), NAME)
    assert stats.counts[NAME] == 1
    assert [line.split("(")[0].split(" = ")[1] for line in lines(result)] == [
        "Shape",
        "Split<num_outputs=2>",
        "Reshape",
        "Range",
    ]
    assert run(result, feeds(parse(VECTOR, SCALARS)))[0].tolist() == [0, 1, 2, 3]
    _, again, _ = apply(result, NAME)
    assert not again.counts


def test_constant_vector() -> None:
    text = "agraph (int64 n) => (int64[M] y) { y = Range(zero, n, one) }"
    result, _, _ = apply(parse(text, {**SCALARS, "one": np.asarray([1], np.int64)}), NAME)
    assert lines(result) == ["y = Range(zero, n, one_1)"]
    assert result.graph.initializers["one_1"].shape == ()


def test_scalars() -> None:
    unchanged(NAME, parse("agraph (int64 n) => (int64[M] y) { y = Range(zero, n, one) }", SCALARS))


def test_unknown_rank() -> None:
    text = """agraph (float[N,4] x, bool c) => (int64[M] y) {
        n = If(c) <then_branch = a () => (int64 p) { p = Size(x) }, else_branch = b () => (q) { q = Shape(x) }>
        y = Range(zero, n, one)
    }"""
    unchanged(NAME, parse(text, SCALARS))
