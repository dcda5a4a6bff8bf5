"""fuse-reduce-reshape."""

from __future__ import annotations

import numpy as np
import pytest
from harness import fires, lines, misses, parse, unchanged

NAME = "fuse-reduce-reshape"
OTHER = ["the result has another shape than the reduction gives"]
ELSEWHERE = ["what the reduction gives is read elsewhere"]


def ints(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int64)


WEIGHTS = {
    "hw": ints(2, 3),
    "one": ints(1),
    "back": ints(-2, -1),
    "flat": ints(0, -1),
    "all": ints(-1),
    "four": ints(0, 0, 1, 1),
}


def graph(body: str, outputs: str = "float[A,B] y", opset: int = 21) -> str:
    return f"""<ir_version: 10, opset_import: ["" : {opset}]>
    agraph (float[N,8,H,W] x) => ({outputs}) {{ {body}  y = Neg(t) }}"""


@pytest.mark.parametrize(
    "body",
    [
        "m = ReduceMean(x, hw)  t = Squeeze(m, hw)",
        "m = ReduceMean(x, hw)  t = Squeeze(m, back)",
        "m = ReduceMean(x, back)  t = Reshape(m, flat)",
        "m = ReduceMean(x, hw)  t = Flatten(m)",
        "h = Shape<end = 2>(x)  m = ReduceMean(x, hw)  t = Reshape(m, h)",
    ],
)
def test_reduced_axes_are_dropped(body: str) -> None:
    result = fires(NAME, parse(graph(body), WEIGHTS), count=1)
    axes = "back" if "(x, back)" in body else "hw"
    assert f"t = ReduceMean<keepdims=0>(x, {axes})" in lines(result)
    assert not {node.op_type for node in result.graph} & {"Squeeze", "Flatten", "Reshape"}


@pytest.mark.parametrize("body", ["t = Unsqueeze(m, hw)", "t = Unsqueeze(m, back)", "t = Reshape(m, four)"])
def test_reduced_axes_come_back(body: str) -> None:
    text = graph(f"m = ReduceMax<keepdims = 0>(x, hw)  {body}", "float[A,B,C,D] y")
    fires(NAME, parse(text, WEIGHTS), ["t = ReduceMax<keepdims=1>(x, hw)", "y = Neg(t)"])


@pytest.mark.parametrize("opset", [11, 13, 17])
def test_axes_as_attribute(opset: int) -> None:
    squeeze = "Squeeze<axes = [1]>(m)" if opset < 13 else "Squeeze(m, one)"
    text = graph(f"m = ReduceMean<axes = [1]>(x)  t = {squeeze}", "float[A,B,C] y", opset)
    fires(NAME, parse(text, WEIGHTS if opset >= 13 else {}), ["t = ReduceMean<axes=(1,), keepdims=0>(x)", "y = Neg(t)"])


def test_everything_is_reduced() -> None:
    text = graph("m = ReduceSum<keepdims = 1>(x)  t = Squeeze(m, a)", "float y")
    fires(NAME, parse(text, {"a": ints(0, 1, 2, 3)}), ["t = ReduceSum<keepdims=0>(x)", "y = Neg(t)"])


def test_search() -> None:
    text = graph("m = ArgMax<axis = 1>(x)  t = Squeeze(m, one)", "int64[A,B,C] y")
    fires(NAME, parse(text, WEIGHTS), ["t = ArgMax<axis=1, keepdims=0>(x)", "y = Neg(t)"])


@pytest.mark.parametrize(
    ("body", "outputs"),
    [
        ("m = ReduceMean(x, one)  t = Squeeze(m, hw)", "float[A,B] y"),
        ("m = ReduceMean(x, hw)  t = Squeeze(m, three)", "float[A,B,C] y"),
        ("m = ReduceMean(x, hw)  t = Reshape(m, all)", "float[A] y"),
        ("m = ReduceMean(x, one)  t = Flatten(m)", "float[A,B] y"),
        ("m = ReduceMean<keepdims = 0>(x, hw)  t = Unsqueeze(m, one)", "float[A,B,C] y"),
        ("m = ReduceMean<keepdims = 0>(x, one)  t = Unsqueeze(m, hw)", "float[A,B,C,D,E] y"),
        ("m = ReduceSum<noop_with_empty_axes = 1>(x)  t = Flatten(m)", "float[A,B] y"),
    ],
)
def test_another_shape(body: str, outputs: str) -> None:
    assert misses(NAME, parse(graph(body, outputs), {**WEIGHTS, "three": ints(3)})) == OTHER


def test_axes_of_the_caller() -> None:
    text = graph("m = ReduceMean(x, a)  t = Flatten(m)").replace("x)", "x, int64[2] a)", 1)
    assert misses(NAME, parse(text)) == OTHER


def test_read_elsewhere() -> None:
    body = "m = ReduceMean(x, hw)  t = Flatten(m)"
    assert misses(NAME, parse(graph(body, "float[A,B] y, float[C,D,E,F] m"), WEIGHTS)) == ELSEWHERE
    text = graph(f"{body}  z = Sub(x, m)", "float[A,B] y, float[C,D,E,F] z")
    assert misses(NAME, parse(text, WEIGHTS)) == ELSEWHERE


def test_something_between() -> None:
    unchanged(NAME, parse(graph("m = ReduceMean(x, hw)  r = Relu(m)  t = Flatten(r)"), WEIGHTS))


def test_reduction_is_outside_of_the_branch() -> None:
    text = graph("""m = ReduceMean(x, hw)
        t = If (c) <
            then_branch = yes () => (float[A,B] a) { a = Flatten(m) },
            else_branch = no () => (float[A,B] b) { n = ReduceMax(x, hw)  b = Flatten(n) }
        >""").replace("x)", "x, bool c)", 1)
    result = fires(NAME, parse(text, WEIGHTS), count=1)
    branches = result.graph[1].attributes
    assert lines(branches["then_branch"].as_graph()) == ["a = Flatten(m)"]
    assert lines(branches["else_branch"].as_graph()) == ["b = ReduceMax<keepdims=0>(x, hw)"]


def test_function_of_unknown_rank() -> None:
    text = """<ir_version: 10, opset_import: ["" : 21, "own" : 1]>
    agraph (float[N,8,H,1] x) => (float[A,B] y) { y = own.f(x) }
    <domain: "own", opset_import: ["" : 21]>
    f (a) => (b) {
        one = Constant<value_ints = [1]>()
        last = Constant<value_ints = [-1]>()
        m = ReduceMean(a, one)
        s = Squeeze(m, one)
        n = ReduceMean(s, one)
        t = Squeeze(n, last)
        b = Neg(t)
    }"""
    result = fires(NAME, parse(text), count=1)
    (function,) = result.functions.values()
    assert lines(function)[2] == "s = ReduceMean<keepdims=0>(a, one)"
    assert "t = Squeeze(n, last)" in lines(function)


def test_name_and_metadata_survive() -> None:
    model = parse(graph("m = ReduceMean(x, hw)  t = Flatten(m)"), WEIGHTS)
    model.graph[0].name = "pool"
    model.graph[0].metadata_props["origin"] = "head"
    node = fires(NAME, model).graph[0]
    assert node.metadata_props == {"origin": "head"}
