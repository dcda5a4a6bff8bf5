"""fold-if."""

from __future__ import annotations

import numpy as np
import pytest
from harness import fires, lines, parse, unchanged

NAME = "fold-if"

TEXT = """agraph (float[N] x) => (float[N] y) {
    t = If (c) <
        then_branch = g1 () => (float[N] a) { u = Relu (x)
            a = Neg (u) },
        else_branch = g2 () => (float[N] b) { u = Exp (x)
            b = Abs (u) }
    >
    y = Identity (t)
}"""


@pytest.mark.parametrize(
    ("condition", "expected"),
    [(True, ["u_1 = Relu(x)", "a = Neg(u_1)"]), (False, ["u_1 = Exp(x)", "b = Abs(u_1)"])],
)
def test_the_branch_taken_moves_up(condition: bool, expected: list[str]) -> None:
    last = expected[-1].partition(" ")[0]
    fires(NAME, parse(TEXT, {"c": np.array(condition)}), [*expected, f"y = Identity({last})"])


def test_graph_output_keeps_its_name() -> None:
    text = TEXT.replace("t = If", "y = If").replace("y = Identity (t)", "")
    fires(NAME, parse(text, {"c": np.array(True)}), ["u_1 = Relu(x)", "y = Neg(u_1)"])


def test_branch_that_returns_an_outer_value_or_its_own_constant() -> None:
    text = """agraph (float[2] x) => (float[2] y, float[2] z) {
        y, z = If (c) <
            then_branch = g1 () => (float[2] a, float[2] k) <float[2] k = {1, 2}> { a = Identity (x) },
            else_branch = g2 () => (float[2] b, float[2] d) { b = Neg (x)
                d = Exp (x) }
        >
    }"""
    fires(NAME, parse(text, {"c": np.array(True)}), ["y = Identity(x)", "z = Identity(k_1)"])


def test_nested_ifs_fold_in_one_run() -> None:
    text = """agraph (float[N] x, bool d) => (float[N] y) {
        y = If (c) <
            then_branch = g1 () => (float[N] a) {
                a = If (c) <
                    then_branch = g3 () => (float[N] e) { e = If (d) <
                        then_branch = g5 () => (float[N] h) { h = Relu (x) },
                        else_branch = g6 () => (float[N] i) { i = Neg (x) } > },
                    else_branch = g4 () => (float[N] f) { f = Exp (x) }
                > },
            else_branch = g2 () => (float[N] b) { b = Abs (x) }
        >
    }"""
    result = fires(NAME, parse(text, {"c": np.array(True)}), ["y = If(d)"], count=2)
    assert lines(result.graph[0].attributes["then_branch"].as_graph()) == ["h = Relu(x)"]


def test_condition_of_one_element_in_any_rank() -> None:
    fires(NAME, parse(TEXT, {"c": np.array([True])}), count=1)


def test_condition_that_is_computed_or_overridable() -> None:
    unchanged(NAME, parse(TEXT.replace("(float[N] x)", "(float[N] x, bool c)")))
    unchanged(NAME, parse(TEXT.replace("(float[N] x)", "(float[N] x, bool c)"), {"c": np.array(True)}))


def test_inside_a_function() -> None:
    text = """<ir_version: 10, opset_import: ["" : 21, "own" : 1]>
    agraph (float[N] x) => (float[N] y) { y = own.f (x) }
    <domain: "own", opset_import: ["" : 21]>
    f (v) => (w) { c = Constant <value = bool {1}> ()
        w = If (c) <
            then_branch = g1 () => (a) { a = Relu (v) },
            else_branch = g2 () => (b) { b = Neg (v) }
        > }"""
    result = fires(NAME, parse(text))
    assert lines(next(iter(result.functions.values()))) == ["w = Relu(v)"]


def test_branch_with_another_number_of_results() -> None:
    branches = TEXT.replace("=> (float[N] a)", "=> (float[N] a, float[N] u)")
    unchanged(NAME, parse(branches, {"c": np.array(True)}))
