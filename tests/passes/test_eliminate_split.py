"""eliminate-split."""

from __future__ import annotations

import numpy as np
import pytest
from harness import apply, fires, lines, misses, parse, unchanged

NAME = "eliminate-split"
SIZES = {"k": np.array([3, 5], np.int64)}


def graph(body: str, outputs: str = "float[A,B] y") -> str:
    return f"agraph (float[N,3] a, float[N,5] b) => ({outputs}) {{ {body} }}"


@pytest.mark.parametrize(("one", "other"), [(1, 1), (-1, 1), (1, -1)])
def test_split_of_a_concat(one: int, other: int) -> None:
    body = f"c = Concat<axis = {one}>(a, b)  s, t = Split<axis = {other}>(c, k)  u = Neg(s)  v = Abs(t)"
    text = graph(f"{body} y = Concat<axis = 1>(u, v)")
    fires(NAME, parse(text, SIZES), ["u = Neg(a)", "v = Abs(b)", "y = Concat<axis=1>(u, v)"])


def test_concat_is_read_elsewhere() -> None:
    body = "c = Concat<axis = 1>(a, b)  s, t = Split<axis = 1>(c, k)  z = Neg(s)  y = Relu(c)"
    after = ["c = Concat<axis=1>(a, b)", "z = Neg(a)", "y = Relu(c)"]
    fires(NAME, parse(graph(body, "float[A,B] y, float[C,D] z"), SIZES), after)


def test_symbolic_lengths() -> None:
    text = """agraph (float[M,3] a, float[M,3] b) => (float[A,3] y) {
        c = Concat<axis = 0>(a, b)
        s, t = Split<axis = 0, num_outputs = 2>(c)
        y = Sub(t, s)
    }"""
    fires(NAME, parse(text), ["y = Sub(b, a)"])


def test_opset_11() -> None:
    text = """<ir_version: 8, opset_import: ["" : 11]>
    agraph (float[N,3] a, float[N,5] b) => (float[A,B] y, float[C,D] z) {
        c = Concat<axis = 1>(a, b)
        s, t = Split<axis = 1, split = [3, 5]>(c)
        y = Neg(s)
        z = Neg(t)
    }"""
    fires(NAME, parse(text), ["y = Neg(a)", "z = Neg(b)"])


def test_single_output() -> None:
    fires(NAME, parse(graph("s = Split<axis = 1, num_outputs = 1>(a)  y = Neg(s)")), ["y = Neg(a)"])


def test_other_lengths() -> None:
    body = "c = Concat<axis = 1>(b, a)  s, t = Split<axis = 1>(c, k)  y = Neg(s)  z = Neg(t)"
    reason = ["the lengths of operands and outputs are not known to be the same"]
    assert misses(NAME, parse(graph(body, "float[A,B] y, float[C,D] z"), SIZES)) == reason


def test_another_axis() -> None:
    body = "c = Concat<axis = 0>(a, a)  s, t = Split<axis = 1>(c, k)  y = Neg(s)  z = Neg(t)"
    weights = {"k": np.array([1, 2], np.int64)}
    reason = ["the two are not along the same axis"]
    assert misses(NAME, parse(graph(body, "float[A,B] y, float[C,D] z"), weights)) == reason


def test_sizes_of_the_caller() -> None:
    body = "c = Concat<axis = 1>(a, b)  s, t = Split<axis = 1>(c, k)  y = Neg(s)  z = Neg(t)"
    text = graph(body, "float[A,B] y, float[C,D] z").replace("b)", "b, int64[2] k)", 1)
    reason = ["the lengths of operands and outputs are not known to be the same"]
    assert misses(NAME, parse(text)) == reason


def test_more_outputs_than_operands() -> None:
    body = "c = Concat<axis = 1>(a, b)  s, t, u, v = Split<axis = 1, num_outputs = 4>(c)  y = Sum(s, t, u, v)"
    unchanged(NAME, parse(graph(body)))


def test_interface_needs_the_node() -> None:
    body = "c = Concat<axis = 1>(a, b)  y, t = Split<axis = 1>(c, k)  z = Neg(t)"
    reason = ["it computes a graph output that cannot be renamed away"]
    assert misses(NAME, parse(graph(body, "float[A,B] y, float[C,D] z"), SIZES)) == reason


def test_inside_a_branch_and_a_function() -> None:
    text = """<ir_version: 10, opset_import: ["" : 21, "own" : 1]>
    agraph (float[N,3] a, float[N,3] b, bool q) => (float[A,B] y) {
        c = Concat<axis = 1>(a, b)
        w = If (q) <
            then_branch = yes () => (float[A,B] u) { s, t = Split<axis = 1, num_outputs = 2>(c)  u = Sub(t, s) },
            else_branch = no () => (float[A,B] v) { v = Sub(a, b) }
        >
        y = own.f(w, a)
    }
    <domain: "own", opset_import: ["" : 21]>
    f (a, b) => (r) {
        c = Concat<axis = 1>(a, b)
        s, t = Split<axis = 1, num_outputs = 2>(c)
        r = Sub(t, s)
    }"""
    result, stats, context = apply(parse(text), NAME)
    assert stats.counts == {NAME: 1}
    (branch,) = (node.attributes["then_branch"].as_graph() for node in result.graph if node.op_type == "If")
    assert lines(branch) == ["u = Sub(b, a)"]
    assert list(context.misses[NAME]) == ["the two are not along the same axis"]  # the rank is not known
