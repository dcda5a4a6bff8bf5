"""merge-transposes."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from harness import apply, fires, lines, misses, parse, unchanged

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


VIEW = """agraph (float[{shape}] x) => (float[A,B,C,D] y) {{
    t = Transpose<perm = [0,2,1]>(x)
    v = {view}
    u = Transpose<perm = {perm}>(v)
    y = Relu(u)
}}"""


@pytest.mark.parametrize(
    ("shape", "target", "perm"),
    [
        ("N,8,4", [0, 4, 2, 4], [0, 2, 3, 1]),  # parts the axis of length 8
        ("N,8,4", [0, 2, 2, 8], [0, 3, 1, 2]),  # parts the other one
        ("N,8,4", [0, 1, 4, 8], [0, 3, 1, 2]),  # an axis of length 1, wherever it goes
        ("N,8,4", [0, 1, 4, 8], [1, 0, 3, 2]),
        ("2,8,4", [2, 1, 4, 8], [0, 3, 2, 1]),
        ("N,8,8", [0, 8, 2, 4], [0, 2, 3, 1]),
    ],
)
def test_axes_parted_between(shape: str, target: list[int], perm: list[int]) -> None:
    text = VIEW.format(shape=shape, view="Reshape(t, s)", perm=perm)
    result = fires(NAME, parse(text, {"s": np.array(target, np.int64)}), count=1)
    assert [node.op_type for node in result.graph] == ["Reshape", "Relu"]


def test_axis_added_between() -> None:
    model = parse(VIEW.format(shape="N,8,4", view="Unsqueeze(t, s)", perm=[0, 3, 1, 2]), {"s": np.array([1], np.int64)})
    assert [node.op_type for node in fires(NAME, model, count=1).graph] == ["Reshape", "Relu"]


@pytest.mark.parametrize(
    ("shape", "target", "perm", "reason"),
    [
        ("N,8,8", [0, 2, 4, 8], [0, 2, 3, 1], "the axes are not in order again"),  # the trap: W == C
        ("N,8,4", [0, 4, 2, 4], [0, 3, 2, 1], "the axes are not in order again"),
        ("N,8,4", [0, 2, 4, 4], [0, 3, 1, 2], "the Reshape does more than to part axes"),
        ("N,8,4", [-1, 2, 4, 4], [0, 2, 3, 1], "the Reshape does more than to part axes"),
        ("N,8,M", [0, 0, 2, -1], [0, 2, 3, 1], "no constant target gives the result's shape"),
    ],
)
def test_more_than_parted_between(shape: str, target: list[int], perm: list[int], reason: str) -> None:
    text = VIEW.format(shape=shape, view="Reshape(t, s)", perm=perm)
    model = parse(text, {"s": np.array(target, np.int64)})
    assert reason in misses(NAME, model)


def test_what_lies_between_is_read_elsewhere() -> None:
    text = VIEW.format(shape="N,8,4", view="Reshape(t, s)", perm=[0, 2, 3, 1]).replace("y) {", "y, float[E,F,G] t) {")
    model = parse(text, {"s": np.array([0, 4, 2, 4], np.int64)})
    assert misses(NAME, model) == ["an inner result is read elsewhere"]
