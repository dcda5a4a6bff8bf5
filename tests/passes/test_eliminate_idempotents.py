"""eliminate-idempotents."""

from __future__ import annotations

import numpy as np
import pytest
from harness import apply, fires, lines, parse, run, unchanged

NAME = "eliminate-idempotents"
TEXT = "agraph (float[N] x) => (float[N] y) {{ {} }}"
PAIRS = [(op, op) for op in ("Ceil", "Floor", "Round", "Sign", "Abs", "Relu")]
PAIRS += [("Floor", "Ceil"), ("Round", "Floor"), ("Ceil", "Round"), ("Sign", "Round"), ("Sign", "Ceil")]


@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_the_second_goes(first: str, second: str) -> None:
    before = parse(TEXT.format(f"a = {first} (x) b = {second} (a) y = Neg (b)"))
    after = fires(NAME, before, [f"a = {first}(x)", "y = Neg(a)"], count=1)
    numbers = np.array([np.inf, -np.inf, np.nan, -0.0, 0.0, -0.5, 0.5, 1.5, 2.5, 1e30, 1e-45], np.float32)
    expected, found = (run(model, {"x": numbers})[0] for model in (before, after))
    assert np.array_equal(expected.view(np.uint32), found.view(np.uint32))


@pytest.mark.parametrize(("first", "second"), [("Floor", "Sign"), ("Ceil", "Abs"), ("Relu", "Abs"), ("Abs", "Relu")])
def test_other_pairs(first: str, second: str) -> None:
    unchanged(NAME, parse(TEXT.format(f"a = {first} (x) y = {second} (a)")))


def test_lengths_are_not_negative() -> None:
    text = "agraph (float[N,4] x) => (int64[2] y, int64 z) { a = Shape (x) y = Abs (a) b = Size (x) z = Abs (b) }"
    fires(NAME, parse(text), ["y = Shape(x)", "z = Size(x)"], count=2)


def test_three_in_a_row_down_to_the_graph_output() -> None:
    before = parse(TEXT.format("a = Round (x) b = Floor (a) y = Round (b)"))
    fires(NAME, before, ["y = Round(x)"], count=2)


def test_both_results_are_outputs() -> None:
    text = "agraph (float[N] x) => (float[N] a, float[N] y) { a = Abs (x) y = Abs (a) }"
    assert len(lines(apply(parse(text), NAME)[0])) == 2


def test_something_in_between() -> None:
    unchanged(NAME, parse(TEXT.format("a = Floor (x) b = Neg (a) y = Floor (b)")))


def test_in_a_branch_of_what_comes_before_it() -> None:
    text = """agraph (float[N] x, bool c) => (float[N] y) { a = Abs (x) y = If (c) <
        then_branch = g1 () => (float[N] t) { s = Abs (a) t = Neg (s) },
        else_branch = g2 () => (float[N] e) { e = Neg (a) }> }"""
    result = fires(NAME, parse(text), count=1)
    assert lines(result.graph[1].attributes["then_branch"].as_graph()) == ["t = Neg(a)"]
