"""merge-clips."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from harness import apply, fires, lines, misses, parse, run, unchanged

NAME = "merge-clips"
ELSEWHERE = ["what the first bound gives is read elsewhere"]


def number(value: float, kind: str = "float32") -> np.ndarray:
    return np.array(value, kind)


def graph(body: str, kind: str = "float", opset: int = 21, outputs: str = "float[N,4] y") -> str:
    outputs = outputs.replace("float[", f"{kind}[")
    return f'<ir_version: 8, opset_import: ["" : {opset}]> agraph ({kind}[N,4] x) => ({outputs}) {{ {body} }}'


NUMBERS = {"z": number(0), "one": number(1), "six": number(6), "three": number(3), "m": number(-1)}


@pytest.mark.parametrize(
    ("body", "after", "bounds"),
    [
        ("t = Relu(x)  y = Relu(t)", "Relu", []),
        ("t = Relu(x)  y = Min(t, six)", "Clip", [0, 6]),
        ("t = Max(z, x)  y = Min(six, t)", "Clip", [0, 6]),
        ("t = Min(x, six)  y = Relu(t)", "Clip", [0, 6]),
        ("t = Relu(x)  y = Clip(t, m, six)", "Clip", [0, 6]),
        ("t = Clip(x, m, six)  y = Relu(t)", "Clip", [0, 6]),
        ("t = Clip(x, m, six)  y = Clip(t, z, three)", "Clip", [0, 3]),
        ("t = Clip(x, , six)  y = Clip(t, m)", "Clip", [-1, 6]),
        ("t = Clip(x, , six)  y = Clip(t, , three)", "Clip", [3]),
        ("t = Clip(x, three, six)  y = Clip(t, m, one)", "Clip", [1, 1]),
        ("t = Clip(x, six, one)  y = Relu(t)", "Clip", [6, 1]),
        ("t = Max(x, one)  y = Max(t, three)", "Max", [3]),
        ("t = Min(x, one)  y = Min(three, t)", "Min", [1]),
        ("t = Max(x, m)  y = Max(t, z)", "Relu", []),
        ("y = Max(x, z)", "Relu", []),
        ("t = Relu(x)  u = Min(t, six)  y = Max(u, one)", "Clip", [1, 6]),
    ],
)
def test_bounds(body: str, after: str, bounds: list[float]) -> None:
    result = fires(NAME, parse(graph(body), NUMBERS))
    (node,) = result.graph
    given = [value.const_value.numpy().item() for value in node.inputs[1:] if value is not None and value.const_value]
    assert (node.op_type, given) == (after, bounds)


def test_all_orders_of_bounds() -> None:
    random = np.random.default_rng(0).normal(0, 4, (3, 64)).astype(np.float32)
    for low, high, second_low, second_high in itertools.product((-2.0, 1.0, 3.0), repeat=4):
        weights = {"a": number(low), "b": number(high), "c": number(second_low), "d": number(second_high)}
        text = graph("t = Clip(x, a, b)  y = Clip(t, c, d)").replace("N,4", "N,64")
        result, stats, _ = apply(parse(text, weights), NAME)
        assert stats.counts == {NAME: 1}
        expected = np.minimum(np.maximum(np.minimum(np.maximum(random, low), high), second_low), second_high)
        np.testing.assert_array_equal(run(result, {"x": random})[0], expected)


def test_attributes_before_opset_11() -> None:
    text = graph("t = Relu(x)  y = Clip<max = 6.0>(t)", opset=10)
    fires(NAME, parse(text), ["y = Clip<max=6.0, min=0.0>(x)"])
    text = graph("t = Clip<min = 1.0>(x)  y = Clip<max = 6.0>(t)", opset=9)
    fires(NAME, parse(text), ["y = Clip<max=6.0, min=1.0>(x)"])


@pytest.mark.parametrize("kind", ["float16", "double", "int32", "int64", "uint8"])
def test_other_types(kind: str) -> None:
    kinds = {"double": "float64"}
    weights = {"z": number(1, kinds.get(kind, kind)), "six": number(6, kinds.get(kind, kind))}
    (node,) = fires(NAME, parse(graph("t = Max(x, z)  y = Min(t, six)", kind, 13), weights)).graph
    assert node.op_type == "Clip"
    assert [value.dtype for value in node.inputs if value is not None] == [node.inputs[0].dtype] * 3  # type: ignore[union-attr]


@pytest.mark.parametrize(("kind", "opset"), [("double", 11), ("int32", 11), ("int16", 13), ("bfloat16", 13)])
def test_no_clip_of_this_type(kind: str, opset: int) -> None:
    import ml_dtypes

    dtype = {"double": "float64", "bfloat16": ml_dtypes.bfloat16}.get(kind, kind)
    import onnx_ir as ir

    weights = {name: ir.tensor(np.array(value, dtype), name=name) for name, value in (("z", 1), ("six", 6))}
    text = graph("t = Max(x, z)  y = Min(t, six)", kind, opset)
    assert misses(NAME, parse(text, weights)) == ["there is no Clip of this type, or the type is not known"]


def test_wrong_opset() -> None:
    unchanged(NAME, parse(graph("t = Relu(x)  y = Relu(t)", opset=7)))


def test_read_elsewhere() -> None:
    assert (
        misses(NAME, parse(graph("t = Relu(x)  y = Min(t, six)", outputs="float[N,4] y, float[N,4] t"), NUMBERS))
        == ELSEWHERE
    )
    text = graph("t = Relu(x)  y = Min(t, six)  z0 = Neg(t)", outputs="float[N,4] y, float[N,4] z0")
    assert misses(NAME, parse(text, NUMBERS)) == ELSEWHERE


@pytest.mark.parametrize("shape", [(4,), (1, 1, 1), (1, 4)])
def test_bound_that_is_no_number(shape: tuple[int, ...]) -> None:
    weights = {"b": np.full(shape, 6, np.float32)}
    unchanged(NAME, parse(graph("t = Relu(x)  y = Min(t, b)").replace("N,4] y", "A,B,C] y"), weights))


def test_bound_that_is_not_constant() -> None:
    text = graph("t = Relu(x)  y = Clip(t, , b)").replace("x)", "x, float b)", 1)
    unchanged(NAME, parse(text))
    unchanged(NAME, parse(graph("t = Relu(x)  y = Min(t, b)"), {"b": number(np.nan)}))


def test_three_operands() -> None:
    unchanged(NAME, parse(graph("t = Relu(x)  y = Min(t, six, one)"), NUMBERS))


def test_first_bound_is_outside_of_the_branch() -> None:
    text = graph("""t = Relu(x)
        y = If (c) <
            then_branch = yes () => (float[N,4] a) { a = Relu(t) },
            else_branch = no () => (float[N,4] b) { s = Relu(x)  b = Relu(s) }
        >""").replace("x)", "x, bool c)", 1)
    result = fires(NAME, parse(text), count=1)
    assert lines(result.graph[1].attributes["then_branch"].as_graph()) == ["a = Relu(t)"]
    assert lines(result.graph[1].attributes["else_branch"].as_graph()) == ["b = Relu(x)"]


def test_function_of_unknown_types() -> None:
    text = """<ir_version: 10, opset_import: ["" : 21, "own" : 1]>
    agraph (float[N,4] x) => (float[N,4] y) { y = own.f(x) }
    <domain: "own", opset_import: ["" : 21]>
    f (a) => (b) { t = Relu(a)  b = Relu(t) }"""
    assert misses(NAME, parse(text)) == ["there is no Relu of this type, or the type is not known"]


def test_metadata_survives() -> None:
    model = parse(graph("t = Relu(x)  y = Min(t, six)"), NUMBERS)
    model.graph[1].metadata_props["origin"] = "relu6"
    assert fires(NAME, model).graph[0].metadata_props == {"origin": "relu6"}
