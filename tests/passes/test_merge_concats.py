"""merge-concats."""

from __future__ import annotations

import pytest
from harness import fires, lines, misses, parse

NAME = "merge-concats"
REASON = ["the inner result is read elsewhere, or joined along another axis"]


def graph(body: str, outputs: str = "float[A,B] y") -> str:
    return f"agraph (float[N,2] a, float[N,3] b, float[N,4] c) => ({outputs}) {{ {body} }}"


@pytest.mark.parametrize(
    ("body", "after"),
    [
        ("t = Concat<axis = 1>(a, b)  y = Concat<axis = 1>(t, c)", "y = Concat<axis=1>(a, b, c)"),
        ("t = Concat<axis = 1>(a, b)  y = Concat<axis = 1>(c, t, a)", "y = Concat<axis=1>(c, a, b, a)"),
        ("t = Concat<axis = -1>(a, b)  y = Concat<axis = 1>(t, c)", "y = Concat<axis=1>(a, b, c)"),
        ("t = Concat<axis = 1>(a, b)  y = Concat<axis = -1>(t, c)", "y = Concat<axis=-1>(a, b, c)"),
        (
            "t = Concat<axis = 1>(a, b)  u = Concat<axis = 1>(b, c)  y = Concat<axis = 1>(t, u)",
            "y = Concat<axis=1>(a, b, b, c)",
        ),
    ],
)
def test_same_axis(body: str, after: str) -> None:
    fires(NAME, parse(graph(body)), [after], count=1)


def test_three_deep() -> None:
    body = "t = Concat<axis = 1>(a, b)  u = Concat<axis = 1>(t, c)  y = Concat<axis = 1>(u, a)"
    fires(NAME, parse(graph(body)), ["y = Concat<axis=1>(a, b, c, a)"], count=2)


def test_one_of_two_is_read_elsewhere() -> None:
    body = "t = Concat<axis = 1>(a, b)  u = Concat<axis = 1>(b, c)  y = Concat<axis = 1>(t, u)  z = Relu(u)"
    fires(
        NAME,
        parse(graph(body, "float[A,B] y, float[C,D] z")),
        ["u = Concat<axis=1>(b, c)", "y = Concat<axis=1>(a, b, u)", "z = Relu(u)"],
    )


@pytest.mark.parametrize(
    ("body", "outputs"),
    [
        ("t = Concat<axis = 1>(a, b)  y = Concat<axis = 1>(t, c)", "float[A,B] y, float[C,D] t"),
        ("t = Concat<axis = 1>(a, b)  y = Concat<axis = 1>(t, c)  z = Relu(t)", "float[A,B] y, float[C,D] z"),
        ("t = Concat<axis = 1>(a, b)  y = Concat<axis = 1>(t, t)", "float[A,B] y"),
        ("t = Concat<axis = 0>(a, a)  y = Concat<axis = 1>(t, t)", "float[A,B] y"),
        ("t = Concat<axis = 0>(a, a)  y = Concat<axis = 1>(t)", "float[A,B] y"),
    ],
)
def test_read_elsewhere_or_another_axis(body: str, outputs: str) -> None:
    assert misses(NAME, parse(graph(body, outputs))) == REASON


def test_axis_of_unknown_rank() -> None:
    text = """<ir_version: 10, opset_import: ["" : 21, "own" : 1]>
    agraph (float[N,2] a) => (float[A,B] y, float[C,D] z) { y, z = own.f(a) }
    <domain: "own", opset_import: ["" : 21]>
    f (a) => (b, c) {
        t = Concat<axis = -1>(a, a)
        b = Concat<axis = 1>(t, a)
        u = Concat<axis = -1>(a, a)
        c = Concat<axis = -1>(u, a)
    }"""
    result = fires(NAME, parse(text), count=1)
    (function,) = result.functions.values()
    assert lines(function)[-1] == "c = Concat<axis=-1>(a, a, a)"
    assert len(function) == 3


def test_inner_one_is_outside_of_the_branch() -> None:
    text = graph("""t = Concat<axis = 1>(a, b)
        y = If (q) <
            then_branch = yes () => (float[A,B] u) { u = Concat<axis = 1>(t, c) },
            else_branch = no () => (float[C,D] v) { s = Concat<axis = 1>(a, c)  v = Concat<axis = 1>(s, b) }
        >""").replace("c) =>", "c, bool q) =>", 1)
    result = fires(NAME, parse(text), count=1)
    branches = result.graph[1].attributes
    assert lines(branches["then_branch"].as_graph()) == ["u = Concat<axis=1>(t, c)"]
    assert lines(branches["else_branch"].as_graph()) == ["v = Concat<axis=1>(a, c, b)"]


def test_metadata_survives() -> None:
    model = parse(graph("t = Concat<axis = 1>(a, b)  y = Concat<axis = 1>(t, c)"))
    model.graph[1].name = "dense block"
    model.graph[1].metadata_props["origin"] = "densenet"
    (node,) = fires(NAME, model).graph
    assert (node.name, node.metadata_props) == ("dense block", {"origin": "densenet"})
