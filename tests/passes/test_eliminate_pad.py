"""eliminate-pad."""

from __future__ import annotations

import numpy as np
import pytest
from harness import apply, fires, lines, misses, parse, unchanged

NAME = "eliminate-pad"


def ints(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int64)


def graph(body: str, opset: int = 21, out: str = "N,4") -> str:
    return f"""<ir_version: 10, opset_import: ["" : {opset}]>
    agraph (float[N,4] x) => (float[{out}] y) {{ {body}  y = Relu(p) }}"""


@pytest.mark.parametrize("opset", [11, 13, 18, 19, 21])
@pytest.mark.parametrize("mode", ["constant", "reflect", "edge"])
def test_amounts_as_an_input(opset: int, mode: str) -> None:
    fires(NAME, parse(graph(f'p = Pad<mode = "{mode}">(x, a)', opset), {"a": ints(0, 0, 0, 0)}), ["y = Relu(x)"])


def test_fill_value_and_axes_do_not_matter() -> None:
    weights = {"a": ints(0, 0), "v": np.array(7, np.float32), "k": ints(-1)}
    fires(NAME, parse(graph("p = Pad(x, a, v, k)"), weights), ["y = Relu(x)"])
    fires(NAME, parse(graph("p = Pad(x, a, , k)"), weights), ["y = Relu(x)"])


@pytest.mark.parametrize(("opset", "attribute"), [(1, "paddings"), (2, "pads"), (10, "pads")])
def test_amounts_as_an_attribute(opset: int, attribute: str) -> None:
    text = graph(f"p = Pad<{attribute} = [0,0,0,0]>(x)", opset)
    assert lines(apply(parse(text), NAME)[0]) == ["y = Relu(x)"]
    unchanged(NAME, parse(text.replace("[0,0,0,0]", "[0,1,0,0]")))


@pytest.mark.parametrize("amounts", [(0, 1, 0, 0), (0, 0, 0, -1), (0, 1, 0, -1)])
def test_amounts_that_pad_or_crop(amounts: tuple[int, ...]) -> None:
    unchanged(NAME, parse(graph("p = Pad(x, a)", out="N,M"), {"a": ints(*amounts)}))


def test_amounts_known_only_at_run_time() -> None:
    text = "agraph (float[N,4] x, int64[4] a) => (float[A,B] y) { p = Pad(x, a)  y = Relu(p) }"
    unchanged(NAME, parse(text))
    unchanged(NAME, parse(text, {"a": ints(0, 0, 0, 0)}))  # the caller may override it
    reason = "the amounts of padding are not constant"
    assert misses(NAME, parse(text.replace("int64[4] a", "int64[K] a"))) == [reason]


def test_amounts_computed_from_shapes() -> None:
    text = """agraph (float[N,4] x) => (float[N,4] y) {
        s = Shape(x)
        d = Sub(s, s)
        a = Concat<axis = 0>(d, d)
        p = Pad(x, a)
        y = Relu(p)
    }"""
    fires(NAME, parse(text), ["y = Relu(x)"])


def test_interface_needs_the_node() -> None:
    text = "agraph (float[N,4] x) => (float[N,4] y) { y = Pad(x, a) }"
    reason = "it computes a graph output that cannot be renamed away"
    assert misses(NAME, parse(text, {"a": ints(0, 0, 0, 0)})) == [reason]


def test_inside_a_branch() -> None:
    text = """agraph (float[N,4] x, bool t) => (float[N,4] y) {
        y = If (t) <
            then_branch = yes () => (float[N,4] a) { p = Pad(x, z)  a = Relu(p) },
            else_branch = no () => (float[N,4] b) { q = Relu(x)  b = Pad(q, z) }
        >
    }"""
    result = fires(NAME, parse(text, {"z": ints(0, 0, 0, 0)}), count=2)
    assert lines(result.graph[0].attributes["then_branch"].as_graph()) == ["a = Relu(x)"]
    assert lines(result.graph[0].attributes["else_branch"].as_graph()) == ["b = Relu(x)"]
