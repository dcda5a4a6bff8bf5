"""fuse-conv-conv."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import pytest
from harness import fires, lines, misses, parse

NAME = "fuse-conv-conv"


def weight(*shape: int, dtype: str = "float32", seed: int = 7) -> npt.NDArray[Any]:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def model(
    one: tuple[int, ...], two: tuple[int, ...], *, first: str = "", second: str = "", biases: str = "ab", x: str = ""
) -> ir.Model:
    spatial = "9," * (len(one) - 3) + "9"
    text = f"""agraph (float[N,{one[1]},{spatial}] x{x}) => (float[{"N," * (len(one) - 1)}M] y) {{
        c = Conv {first} (x, w{", a" if "a" in biases else ""})
        y = Conv {second} (c, v{", b" if "b" in biases else ""})
    }}"""
    weights = {"w": weight(*one), "v": weight(*two, seed=8), "a": weight(one[0]), "b": weight(two[0])}
    return parse(text, {name: array for name, array in weights.items() if len(array.shape) > 1 or name in biases})


@pytest.mark.parametrize("biases", ["", "a", "b", "ab"])
def test_two_pointwise(biases: str) -> None:
    result = fires(NAME, model((8, 4, 1, 1), (6, 8, 1, 1), biases=biases), count=1)
    (line,) = lines(result)
    assert line.startswith("y = Conv<strides=(1, 1)>(x, v_1")
    assert len(result.graph[0].inputs) == (3 if biases else 2)


@pytest.mark.parametrize("biases", ["", "ab"])
@pytest.mark.parametrize("first", ["<pads = [1,1,1,1]>", "<pads = [1,0,2,1], strides = [2,1], dilations = [1,2]>"])
def test_pointwise_after_a_window(first: str, biases: str) -> None:
    fires(NAME, model((8, 4, 3, 3), (6, 8, 1, 1), first=first, biases=biases), count=1)


def test_strides_multiply() -> None:
    options = {"first": "<pads = [1,1,1,1], strides = [2,2]>", "second": "<strides = [2,3]>"}
    result = fires(NAME, model((8, 4, 3, 3), (6, 8, 1, 1), **options), count=1)
    assert result.graph[0].attributes["strides"].as_ints() == (4, 6)


def test_window_after_pointwise() -> None:
    fires(NAME, model((8, 4, 1, 1), (6, 8, 3, 3), second="<strides = [2,2]>"), count=1)
    padded = "<pads = [1,1,1,1], kernel_shape = [3,3]>"
    fires(NAME, model((8, 4, 1, 1), (6, 8, 3, 3), second=padded, biases="b"), count=1)
    assert misses(NAME, model((8, 4, 1, 1), (6, 8, 3, 3), second=padded)) == [
        "the second pads what the first has added a bias to"
    ]


def test_one_axis_and_three() -> None:
    fires(NAME, model((8, 4, 3), (6, 8, 1)), count=1)
    fires(NAME, model((8, 4, 1, 1, 1), (6, 8, 2, 1, 2)), count=1)


def test_chain() -> None:
    text = """agraph (float[N,4,8,8] x) => (float[N,4,H,W] y) {
        a = Conv (x, w)
        b = Conv (a, v, k)
        y = Conv (b, u)
    }"""
    weights = {"w": weight(8, 4, 1, 1), "v": weight(8, 8, 3, 3), "k": weight(8), "u": weight(4, 8, 1, 1)}
    assert len(fires(NAME, parse(text, weights), count=2).graph) == 1


def test_half_precision_and_shared_weight_and_metadata() -> None:
    text = """agraph (float16[N,4,8] x) => (float16[N,4,8] y, float16[N,8,8] z) {
        a = Conv (x, w)
        y = Conv (a, v)
        z = Conv (x, w)
    }"""
    before = parse(text, {"w": weight(8, 4, 1, dtype="float16"), "v": weight(4, 8, 1, dtype="float16")})
    before.graph[1].name, before.graph[1].doc_string = "layer", "kept"
    after = fires(NAME, before, count=1)
    assert lines(after)[1] == "z = Conv(x, w)"
    assert (after.graph[0].name, after.graph[0].doc_string) == ("layer", "kept")


@pytest.mark.parametrize("factor", [6e4, 1e-7])
def test_weights_that_would_not_fit(factor: float) -> None:
    text = "agraph (float16[N,4,8] x) => (float16[N,4,8] y) { a = Conv (x, w)  y = Conv (a, v) }"
    weights = {"w": weight(8, 4, 1, dtype="float16") * np.float16(8), "v": np.full((4, 8, 1), factor, np.float16)}
    assert misses(NAME, parse(text, weights)) == ["the new weights do not fit their type"]


REFUSALS: dict[str, dict[str, Any]] = {
    "neither is 1x1": {"one": (8, 4, 3, 3), "two": (6, 8, 3, 3)},
    "one convolution would cost more than two": {"one": (2, 8, 1, 1), "two": (8, 2, 1, 1)},
    "there are groups": {"one": (8, 2, 1, 1), "two": (6, 8, 1, 1), "first": "<group = 2>"},
    "the first has a stride": {"one": (8, 4, 1, 1), "two": (6, 8, 2, 2), "first": "<strides = [2,2]>"},
    "the padding is not written out": {"one": (8, 4, 3, 3), "two": (6, 8, 1, 1), "first": '<auto_pad = "SAME_UPPER">'},
}


@pytest.mark.parametrize("reason", REFUSALS)
def test_refusals(reason: str) -> None:
    options = REFUSALS[reason]
    before = model(**options)
    if options.get("first") == "<group = 2>":
        before = parse(
            "agraph (float[N,4,9,9] x) => (float[N,6,9,9] y) { c = Conv <group = 2> (x, w)  y = Conv (c, v) }",
            {"w": weight(8, 2, 1, 1), "v": weight(6, 8, 1, 1)},
        )
    assert misses(NAME, before) == [reason]


def test_pointwise_with_padding_is_none() -> None:
    before = model((8, 4, 1, 1), (6, 8, 3, 3), first="<pads = [1,1,1,1]>")
    assert misses(NAME, before) == ["neither is 1x1"]


def test_first_result_read_elsewhere_or_put_out() -> None:
    reason = ["the first result is read elsewhere"]
    weights = {"w": weight(8, 4, 1, 1), "v": weight(6, 8, 1, 1)}
    text = """agraph (float[N,4,8,8] x) => (float[N,6,8,8] y, float[N,8,8,8] z) {
        c = Conv (x, w)  y = Conv (c, v)  z = Relu (c) }"""
    assert misses(NAME, parse(text, weights)) == reason
    text = "agraph (float[N,4,8,8] x) => (float[N,6,8,8] y, float[N,8,8,8] c) { c = Conv (x, w)  y = Conv (c, v) }"
    assert misses(NAME, parse(text, weights)) == reason


def test_weight_or_bias_of_the_caller() -> None:
    text = "agraph (float[N,4,8,8] x, float[6,8,1,1] v) => (float[N,6,8,8] y) { c = Conv (x, w)  y = Conv (c, v) }"
    reason = ["the weight or the bias is not a constant of floats"]
    weights = {"w": weight(8, 4, 1, 1), "v": weight(6, 8, 1, 1)}
    assert misses(NAME, parse(text, weights)) == reason
    text = "agraph (float[N,4,8,8] x, float[8] k) => (float[N,6,8,8] y) { c = Conv (x, w, k)  y = Conv (c, v) }"
    assert misses(NAME, parse(text, weights)) == reason


def test_inside_a_branch_a_function_and_across() -> None:
    text = """agraph (float[N,4,8,8] x, bool b) => (float[N,6,8,8] z) {
        OUTER z = If (b) <then_branch = g1 () => (float[N,6,8,8] y) { INNER y = Conv (c, v) },
                    else_branch = g2 () => (float[N,6,8,8] r) { r = Conv (x, u) }>
    }"""
    weights = {"w": weight(8, 4, 1, 1), "v": weight(6, 8, 1, 1), "u": weight(6, 4, 1, 1)}
    inside = parse(text.replace("OUTER", "").replace("INNER", "c = Conv (x, w)"), weights)
    assert len(fires(NAME, inside, count=1).graph[0].attributes["then_branch"].as_graph()) == 1
    across = parse(text.replace("INNER", "").replace("OUTER", "c = Conv (x, w)"), weights)
    assert misses(NAME, across) == ["the first result is read elsewhere"]
    text = """<ir_version: 10, opset_import: ["" : 21, "local" : 1]>
    agraph (float[N,2,8] x) => (float[N,1,8] y) { y = local.block (x) }
    <domain: "local", opset_import: ["" : 21]>
    block (x) => (y) {
        w = Constant <value = float[2,2,1] {1,2,3,4}> ()
        v = Constant <value = float[1,2,1] {5,6}> ()
        c = Conv (x, w)
        y = Conv (c, v)
    }"""
    function = next(iter(fires(NAME, parse(text), count=1).functions.values()))
    assert lines(function)[-1] == "y = Conv<strides=(1,)>(x, v_1)"
