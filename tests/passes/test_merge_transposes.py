"""merge-transposes."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from harness import apply, fires, lines, parse, unchanged

NAME = "merge-transposes"


def graph(inner: str, outer: str, rank: int = 3) -> str:
    dims = ",".join("234"[:rank])
    return f"""agraph (float[{dims}] x) => (float[{",".join("ABC"[:rank])}] y) {{
        t = Transpose{inner}(x)
        u = Transpose{outer}(t)
        y = Relu(u)
    }}"""


@pytest.mark.parametrize("inner", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("outer", list(itertools.permutations(range(3))))
def test_composition(inner: tuple[int, ...], outer: tuple[int, ...]) -> None:
    text = graph(f"<perm = {list(inner)}>", f"<perm = {list(outer)}>")
    axes = tuple(np.zeros((0, 1, 2)).transpose(inner).transpose(outer).shape)
    kept = [f"u = Transpose<perm={axes}>(x)", "y = Relu(u)"]
    fires(NAME, parse(text), ["y = Relu(x)"] if axes == (0, 1, 2) else kept)


def test_default_permutation() -> None:
    fires(NAME, parse(graph("", "")), ["y = Relu(x)"])
    fires(NAME, parse(graph("", "<perm = [0,2,1]>")), ["u = Transpose<perm=(2, 0, 1)>(x)", "y = Relu(u)"])
    fires(NAME, parse(graph("<perm = [0,2,1]>", "")), ["u = Transpose<perm=(1, 2, 0)>(x)", "y = Relu(u)"])
    fires(NAME, parse(graph("<perm = [2,1,0]>", "")), ["y = Relu(x)"])


def test_three_in_a_row() -> None:
    text = """agraph (float[2,3,4] x) => (float[A,B,C] y) {
        t = Transpose<perm = [1,2,0]>(x)
        u = Transpose<perm = [1,2,0]>(t)
        y = Transpose<perm = [0,2,1]>(u)
    }"""
    fires(NAME, parse(text), ["y = Transpose<perm=(2, 1, 0)>(x)"], count=2)


def test_inner_result_is_read_elsewhere() -> None:
    text = """agraph (float[2,3] x) => (float[2,3] y, float[3,2] z, float[3,2] t) {
        t = Transpose<perm = [1,0]>(x)
        u = Transpose<perm = [1,0]>(t)
        y = Relu(u)
        z = Neg(t)
    }"""
    fires(NAME, parse(text), ["t = Transpose<perm=(1, 0)>(x)", "y = Relu(x)", "z = Neg(t)"])


def test_interface_keeps_a_node() -> None:
    text = """agraph (float[2,3] x) => (float[2,3] y) {
        t = Transpose<perm = [1,0]>(x)
        y = Transpose<perm = [1,0]>(t)
    }"""
    fires(NAME, parse(text), ["y = Identity(x)"])


def test_something_between() -> None:
    unchanged(
        NAME,
        parse("""agraph (float[2,3] x) => (float[2,3] y) {
        t = Transpose<perm = [1,0]>(x)
        r = Relu(t)
        y = Transpose<perm = [1,0]>(r)
    }"""),
    )


def test_name_and_metadata_survive() -> None:
    model = parse(graph("<perm = [1,0,2]>", "<perm = [2,0,1]>"))
    model.graph[1].name = "outer"
    model.graph[1].metadata_props["origin"] = "attention"
    result = fires(NAME, model, count=1)
    assert result.graph[0].name == "outer"
    assert result.graph[0].metadata_props == {"origin": "attention"}


def test_across_the_border_of_a_branch() -> None:
    text = """agraph (float[2,3] x, bool c) => (float[2,3] y) {
        t = Transpose<perm = [1,0]>(x)
        y = If (c) <
            then_branch = yes () => (float[2,3] a) { u = Transpose<perm = [1,0]>(t)  a = Relu(u) },
            else_branch = no () => (float[2,3] b) { b = Transpose<perm = [1,0]>(t) }
        >
    }"""
    result = fires(NAME, parse(text), count=2)
    assert len(result.graph) == 1
    assert lines(result.graph[0].attributes["then_branch"].as_graph()) == ["a = Relu(x)"]
    assert lines(result.graph[0].attributes["else_branch"].as_graph()) == ["b = Identity(x)"]


def test_permutation_bound_to_a_function_attribute() -> None:
    text = """<ir_version: 10, opset_import: ["" : 21, "own" : 1]>
    agraph (float[2,3] x) => (float[2,3] y) { y = own.f<p = [1,0]>(x) }
    <domain: "own", opset_import: ["" : 21]>
    f <p> (a) => (b) {
        s = Transpose<perm: ints = @p>(a)
        t = Transpose<perm = [1,0]>(s)
        u = Transpose<perm = [1,0]>(t)
        v = Relu(u)
        w = Transpose(v)
        b = Transpose<perm: ints = @p>(w)
    }"""
    result, stats, _ = apply(parse(text), NAME)
    assert stats.counts == {NAME: 1}
    (function,) = result.functions.values()
    assert lines(function) == [
        "s = Transpose<perm=@p>(a)",
        "v = Relu(s)",
        "w = Transpose(v)",
        "b = Transpose<perm=@p>(w)",
    ]
