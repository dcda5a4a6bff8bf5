"""eliminate-involutions."""

from __future__ import annotations

import numpy as np
import pytest
from harness import apply, fires, lines, parse, run, unchanged

NAME = "eliminate-involutions"


def test_two_negations_go() -> None:
    before = parse("agraph (float[N] x) => (float[N] y) { a = Neg (x) b = Neg (a) y = Relu (b) }")
    after = fires(NAME, before, ["y = Relu(x)"], count=1)
    numbers = np.array([np.inf, -np.inf, np.nan, -0.0, 0.0, 1.5], np.float32)
    expected, found = (run(model, {"x": numbers})[0] for model in (before, after))
    assert np.array_equal(expected.view(np.uint32), found.view(np.uint32))


@pytest.mark.parametrize(("op", "kind"), [("Not", "bool"), ("BitwiseNot", "int32"), ("Neg", "int8")])
def test_bits_turn_back(op: str, kind: str) -> None:
    text = f"agraph ({kind}[N] x) => ({kind}[N] y) {{ a = {op} (x) b = {op} (a) y = Concat <axis = 0> (b, x) }}"
    before = parse(text)
    after = fires(NAME, before, ["y = Concat<axis=0>(x, x)"], count=1)
    numbers = np.array([0, 1, -1, -128, 127]).astype(kind)
    assert np.array_equal(run(before, {"x": numbers})[0], run(after, {"x": numbers})[0])


def test_three_leave_one() -> None:
    before = parse("agraph (float[N] x) => (float[N] y) { a = Neg (x) b = Neg (a) c = Neg (b) y = Exp (c) }")
    assert len(lines(apply(before, NAME)[0])) == 2


def test_a_negation_that_others_read_stays_for_them() -> None:
    text = "agraph (float[N] x) => (float[N] y, float[N] z) { a = Neg (x) b = Neg (a) y = Relu (b) z = Exp (a) }"
    fires(NAME, parse(text), ["a = Neg(x)", "y = Relu(x)", "z = Exp(a)"], count=1)


@pytest.mark.parametrize("nodes", ["a = Neg (x) b = Relu (a) y = Neg (b)", "a = Neg (x) y = Abs (a)"])
def test_something_else(nodes: str) -> None:
    unchanged(NAME, parse(f"agraph (float[N] x) => (float[N] y) {{ {nodes} }}"))


def test_from_an_input_to_an_output() -> None:
    model = parse("agraph (float[N] x) => (float[N] y) { a = Neg (x) y = Neg (a) }")
    after = apply(model, NAME)[0]
    x = np.array([1.0, -0.0], np.float32)
    np.testing.assert_array_equal(run(after, {"x": x})[0], x)
