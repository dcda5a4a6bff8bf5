"""eliminate-where."""

from __future__ import annotations

import numpy as np
import pytest
from harness import apply, fires, lines, misses, parse, unchanged

NAME = "eliminate-where"
LARGER = ["the result may be larger than what is chosen"]


def graph(body: str, inputs: str = "float[N,4] a, float[N,4] b, bool[N,4] c") -> str:
    return f"agraph ({inputs}) => (float[A,B] y) {{ {body}  y = Neg(t) }}"


@pytest.mark.parametrize("shape", [(), (1, 1), (4,), (1, 4)])
@pytest.mark.parametrize(("value", "taken"), [(True, "a"), (False, "b")])
def test_constant_condition(shape: tuple[int, ...], value: bool, taken: str) -> None:
    fires(NAME, parse(graph("t = Where(k, a, b)"), {"k": np.full(shape, value)}), [f"y = Neg({taken})"])


def test_same_operand_twice() -> None:
    fires(NAME, parse(graph("t = Where(c, a, a)")), ["y = Neg(a)"])


@pytest.mark.parametrize("reads", ["", "  z = And(n, c)"])
def test_negated_condition(reads: str) -> None:
    text = graph(f"n = Not(c)  t = Where(n, a, b){reads}").replace("B] y)", "B] y, bool[C,D] z)" if reads else "B] y)")
    result = fires(NAME, parse(text))
    assert "t = Where(c, b, a)" in lines(result)
    assert any("Not" in line for line in lines(result)) == bool(reads)


def test_condition_that_varies() -> None:
    unchanged(NAME, parse(graph("t = Where(c, a, b)")))
    unchanged(NAME, parse(graph("t = Where(k, a, b)"), {"k": np.array([True, True, False, True])}))
    unchanged(NAME, parse(graph("t = Where(k, a, b)"), {"k": np.zeros((0, 4), bool)}))


@pytest.mark.parametrize(
    ("body", "inputs", "condition"),
    [
        ("t = Where(k, a, b)", "float[1,4] a, float[N,4] b", ()),
        ("t = Where(k, a, b)", "float[4] a, float[1,4] b", ()),
        ("t = Where(k, a, b)", "float[N,4] a, float[M,4] b", ()),
        ("t = Where(k, a, b)", "float[N,4] a, float[N,4] b", (3, 4)),
        ("t = Where(c, a, a)", "float[1,4] a, bool[N,4] c", ()),
    ],
)
def test_result_is_larger_than_what_is_chosen(body: str, inputs: str, condition: tuple[int, ...]) -> None:
    assert misses(NAME, parse(graph(body, inputs), {"k": np.ones(condition, bool)})) == LARGER


def test_condition_of_the_caller() -> None:
    text = graph("t = Where(k, a, b)", "float[N,4] a, float[N,4] b, bool k")
    unchanged(NAME, parse(text, {"k": np.array(True)}))


def test_interface_needs_the_node() -> None:
    text = "agraph (float[N,4] a, float[N,4] b) => (float[N,4] y) { y = Where(k, a, b) }"
    reason = ["it computes a graph output that cannot be renamed away"]
    assert misses(NAME, parse(text, {"k": np.array(True)})) == reason


def test_inside_a_branch_and_a_function() -> None:
    text = """<ir_version: 10, opset_import: ["" : 21, "own" : 1]>
    agraph (float[N,4] a, float[N,4] b, bool q) => (float[A,B] y) {
        w = If (q) <
            then_branch = yes () => (float[A,B] u) { s = Where(k, a, b)  u = Neg(s) },
            else_branch = no () => (float[A,B] v) { v = Abs(a) }
        >
        y = own.f(w, q)
    }
    <domain: "own", opset_import: ["" : 21]>
    f (a, q) => (r) {
        n = Not(q)
        b = Neg(a)
        s = Where(n, a, b)
        r = Where(q, s, s)
    }"""
    result, stats, context = apply(parse(text, {"k": np.array(True)}), NAME)
    assert stats.counts == {NAME: 2}
    assert lines(result.graph[0].attributes["then_branch"].as_graph()) == ["u = Neg(a)"]
    (function,) = result.functions.values()
    assert lines(function) == ["b = Neg(a)", "s = Where(q, b, a)", "r = Where(q, s, s)"]
    assert list(context.misses[NAME]) == LARGER


def test_metadata_survives() -> None:
    model = parse(graph("n = Not(c)  t = Where(n, a, b)"))
    model.graph[1].metadata_props["origin"] = "mask"
    assert fires(NAME, model).graph[0].metadata_props == {"origin": "mask"}
