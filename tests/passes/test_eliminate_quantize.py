"""eliminate-quantize."""

from __future__ import annotations

import numpy as np
import pytest
from harness import fires, lines, misses, parse, run

NAME = "eliminate-quantize"
BODY = "f = DequantizeLinear(q, s, z)  r = QuantizeLinear(f, s2, z2)  y = DequantizeLinear(r, s, z)"
DIFFER = ["scales or zero points differ"]


def graph(body: str = BODY, kind: str = "uint8", opset: int = 21, outputs: str = "float[A,B] y") -> str:
    return f'<ir_version: 10, opset_import: ["" : {opset}]> agraph ({kind}[N,4] q) => ({outputs}) {{ {body} }}'


def numbers(kind: str = "uint8", scale: float = 0.1, zero: int = 3) -> dict[str, np.ndarray]:
    one = {"s": np.array(scale, np.float32), "z": np.array(zero, kind)}
    return {**one, "s2": one["s"], "z2": one["z"]}


@pytest.mark.parametrize("kind", ["uint8", "int8", "int16", "uint16"])
@pytest.mark.parametrize("scale", [0.1, 1e-20, 3e20, 1 / 3])
def test_same_scale_and_zero_point(kind: str, scale: float) -> None:
    model = parse(graph(kind=kind), numbers(kind, scale, 7))
    result = fires(NAME, model, ["y = DequantizeLinear(q, s, z)"])
    info = np.iinfo(kind)
    every = {"q": np.arange(info.min, info.max + 1, dtype=kind).reshape(-1, 4)}
    np.testing.assert_array_equal(run(model, every)[0], run(result, every)[0])


@pytest.mark.parametrize("opset", [11, 13, 19])
def test_opsets_and_one_name_for_both(opset: int) -> None:
    text = graph(BODY.replace("s2, z2", "s, z"), opset=opset)
    fires(NAME, parse(text, numbers()), ["y = DequantizeLinear(q, s, z)"])


def test_zero_point_left_out() -> None:
    body = "f = DequantizeLinear(q, s)  r = QuantizeLinear(f, s2, z2)  y = DequantizeLinear(r, s)"
    fires(NAME, parse(graph(body), numbers(zero=0)), ["y = DequantizeLinear(q, s)"])
    assert misses(NAME, parse(graph(body), numbers(zero=1))) == DIFFER


def test_by_channel() -> None:
    held = {"s": np.array([1, 2, 3, 4], np.float32), "z": np.zeros(4, np.uint8)}
    held |= {"s2": held["s"], "z2": held["z"]}
    fires(NAME, parse(graph(), held), ["y = DequantizeLinear(q, s, z)"])
    body = BODY.replace("QuantizeLinear(f", "QuantizeLinear<axis = 0>(f").replace("Dequant", "dequant")
    body = "f = DequantizeLinear(q, s, z)  r = QuantizeLinear<axis = 0>(f, s2, z2)  y = DequantizeLinear(r, s, z)"
    assert misses(NAME, parse(graph(body).replace("N,4", "4,4"), held)) == ["the axes differ"]


@pytest.mark.parametrize(("name", "value"), [("s2", np.array(0.2, np.float32)), ("z2", np.array(4, np.uint8))])
def test_other_numbers(name: str, value: np.ndarray) -> None:
    assert misses(NAME, parse(graph(), {**numbers(), name: value})) == DIFFER


def test_other_type() -> None:
    held = {**numbers(zero=3), "z2": np.array(3, np.int8)}
    body = "f = DequantizeLinear(q, s, z)  r = QuantizeLinear(f, s2, z2)  y = DequantizeLinear(r, s, z2)"
    assert misses(NAME, parse(graph(body), held)) == ["the two integer types differ, or are not known"]


@pytest.mark.parametrize("scale", [1e-38, 1e38])
def test_extreme_scale(scale: float) -> None:
    reason = ["the scale is not a constant of type float32, or an extreme one"]
    assert misses(NAME, parse(graph(), numbers(scale=scale))) == reason


def test_scale_of_the_caller() -> None:
    text = graph(BODY.replace("s2, z2", "s, z")).replace("q)", "q, float s)", 1)
    reason = ["the scale is not a constant of type float32, or an extreme one"]
    assert misses(NAME, parse(text, {"z": np.array(3, np.uint8)})) == reason


def test_interface_needs_the_node() -> None:
    body = "f = DequantizeLinear(q, s, z)  y = QuantizeLinear(f, s2, z2)"
    reason = ["it computes a graph output that cannot be renamed away"]
    assert misses(NAME, parse(graph(body, outputs="uint8[A,B] y"), numbers())) == reason


def test_number_in_between_is_read_elsewhere() -> None:
    text = graph(BODY + "  w = Neg(f)", outputs="float[A,B] y, float[C,D] w")
    after = ["f = DequantizeLinear(q, s, z)", "y = DequantizeLinear(q, s, z)", "w = Neg(f)"]
    assert lines(fires(NAME, parse(text, numbers()))) == after


def test_inside_a_branch() -> None:
    text = """agraph (uint8[N,4] q, bool c) => (float[A,B] y) {
        f = DequantizeLinear(q, s, z)
        y = If (c) <
            then_branch = yes () => (float[A,B] u) { r = QuantizeLinear(f, s2, z2)  u = DequantizeLinear(r, s, z) },
            else_branch = no () => (float[A,B] v) { v = Neg(f) }
        >
    }"""
    result = fires(NAME, parse(text, numbers()), count=1)
    assert lines(result.graph[1].attributes["then_branch"].as_graph()) == ["u = DequantizeLinear(q, s, z)"]
