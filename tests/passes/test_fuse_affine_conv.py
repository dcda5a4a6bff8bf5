"""fuse-affine-conv."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import pytest
from harness import fires, lines, misses, parse, unchanged

NAME = "fuse-affine-conv"
Array = npt.NDArray[Any]
KINDS = {"float": "float32", "float16": "float16", "double": "float64"}


def weight(*shape: int, dtype: str = "float32", seed: int = 7) -> Array:
    return np.asarray(np.random.default_rng(seed).standard_normal(shape)).astype(dtype)


def conv(expression: str, constant: Array, *, kind: str = "float", options: str = "", bias: bool = True) -> ir.Model:
    dtype = KINDS[kind]
    text = f"""agraph ({kind}[N,4,8,8] x) => ({kind}[N,6,H,W] y) {{
        c = {expression}
        y = Conv <{options}> (c, w{", k" if bias else ""})
    }}"""
    weights = {"w": weight(6, 4, 3, 3, dtype=dtype), "k": weight(6, dtype=dtype), "s": constant.astype(dtype)}
    return parse(text if options else text.replace("<>", ""), {n: a for n, a in weights.items() if n != "k" or bias})


@pytest.mark.parametrize("expression", ["Mul(x, s)", "Mul(s, x)", "Div(x, s)"])
@pytest.mark.parametrize("shape", [(), (1,), (4, 1, 1), (1, 4, 1, 1)])
def test_factor(expression: str, shape: tuple[int, ...]) -> None:
    padded = conv(expression, weight(*shape), options="pads = [1,1,1,1], strides = [2,2]")
    fires(NAME, padded, ["y = Conv<pads=(1, 1, 1, 1), strides=(2, 2)>(x, w_1, k)"])


@pytest.mark.parametrize("expression", ["Add(x, s)", "Add(s, x)", "Sub(x, s)", "Sub(s, x)"])
@pytest.mark.parametrize("bias", [False, True])
def test_summand(expression: str, bias: bool) -> None:
    fires(NAME, conv(expression, weight(4, 1, 1), bias=bias), count=1)


@pytest.mark.parametrize("options", ["pads = [0,1,0,0]", 'auto_pad = "SAME_UPPER"', "pads = [1,1,1,1]"])
def test_summand_before_padding(options: str) -> None:
    assert misses(NAME, conv("Sub(x, s)", weight(4, 1, 1), options=options)) == [
        "the layer pads with zeros, to which nothing was added"
    ]


def test_mean_and_spread_of_a_data_set() -> None:
    text = """agraph (float[N,3,8,8] x) => (float[N,6,H,W] y) {
        a = Div (x, full)
        b = Sub (a, mean)
        c = Div (b, std)
        y = Conv <strides = [2,2]> (c, w)
    }"""
    weights = {"full": np.array(255, np.float32), "w": weight(6, 3, 2, 2)}
    mean, std = (np.array(one, np.float32).reshape(1, 3, 1, 1) for one in ([0.48, 0.46, 0.41], [0.23, 0.22, 0.22]))
    fires(NAME, parse(text, {**weights, "mean": mean, "std": std}), count=3)


@pytest.mark.parametrize("group", [2, 4])
def test_groups(group: int) -> None:
    text = f"""agraph (float[N,4,5,5] x) => (float[N,8,H,W] y) {{
        b = BatchNormalization (x, s, t, m, v)
        y = Conv <group = {group}> (b, w)
    }}"""
    statistics = {name: weight(4, seed=seed) for seed, name in enumerate("stm")}
    fires(NAME, parse(text, {**statistics, "v": np.abs(weight(4)), "w": weight(8, 4 // group, 3, 3)}), count=1)


@pytest.mark.parametrize("group", [1, 2])
def test_transposed_convolution(group: int) -> None:
    text = f"""agraph (float[N,4,5] x) => (float[N,8,L] y) {{
        c = OP (x, s)
        y = ConvTranspose <group = {group}, strides = [2], pads = [1,0]> (c, w)
    }}"""
    weights = {"w": weight(4, 8 // group, 3), "s": weight(4, 1)}
    fires(NAME, parse(text.replace("OP", "Mul"), weights), count=1)
    assert misses(NAME, parse(text.replace("OP", "Add"), weights)) == ["a ConvTranspose adds up less at the border"]


@pytest.mark.parametrize("transposed", [0, 1])
@pytest.mark.parametrize("op", ["Mul", "Sub"])
def test_gemm(op: str, transposed: int) -> None:
    text = f"""agraph (float[N,4] x) => (float[N,6] y) {{
        c = {op} (s, x)
        y = Gemm <transB = {transposed}> (c, w, k)
    }}"""
    weights = {"w": weight(6, 4) if transposed else weight(4, 6), "k": weight(1, 6), "s": weight(4)}
    fires(NAME, parse(text, weights), count=1)


def test_matmul() -> None:
    text = "agraph (float[N,S,4] x) => (float[N,S,6] y) { c = Mul (x, s)  y = MatMul (c, w) }"
    weights = {"w": weight(4, 6), "s": weight(1, 4)}
    fires(NAME, parse(text, weights), ["y = MatMul(x, w_1)"])
    assert misses(NAME, parse(text.replace("Mul (x", "Add (x"), weights)) == ["a MatMul has no bias"]


def test_half_precision() -> None:
    fires(NAME, conv("Mul(x, s)", weight(4, 1, 1), kind="float16"), count=1)
    fires(NAME, conv("Sub(s, x)", weight(4, 1, 1), kind="float16"), count=1)


@pytest.mark.parametrize("op", ["Mul", "Add"])
def test_double_precision(op: str) -> None:
    text = f"agraph (double[N,4] x) => (double[N,6] y) {{ c = {op} (x, s)  y = Gemm (c, w) }}"
    fires(NAME, parse(text, {"w": weight(4, 6, dtype="float64"), "s": weight(4, dtype="float64")}), count=1)


def test_weights_that_would_not_fit() -> None:
    for factor in (6e4, 1e-7):
        before = conv("Mul(x, s)", np.array(factor), kind="float16")
        assert misses(NAME, before) == ["the folded weights do not fit their type"]


def test_shared_weight_is_copied_and_metadata_survives() -> None:
    text = """agraph (float[N,4,8,8] x) => (float[N,6,8,8] y, float[N,6,8,8] z) {
        c = Mul (x, s)
        y = Conv (c, w)
        z = Conv (x, w)
    }"""
    before = parse(text, {"w": weight(6, 4, 1, 1), "s": weight(4, 1, 1)})
    before.graph[1].name, before.graph[1].doc_string = "layer", "kept"
    after = fires(NAME, before, ["y = Conv(x, w_1)", "z = Conv(x, w)"])
    assert (after.graph[0].name, after.graph[0].doc_string) == ("layer", "kept")


AXIS = ["the constant varies along another axis than the channels"]


@pytest.mark.parametrize("shape", [(8,), (4,), (8, 1), (1, 1, 8, 1), (4, 1, 1, 1)])
def test_constant_along_another_axis(shape: tuple[int, ...]) -> None:
    text = "agraph (float[4,4,8,S] x) => (float[4,6,H,W] y) { c = Mul (x, s)  y = Conv (c, w) }"
    size = "4" if shape[-1] == 4 else "8"
    weights = {"w": weight(6, 4, 1, 1), "s": weight(*shape)}
    assert misses(NAME, parse(text.replace("S]", f"{size}]"), weights)) == AXIS


def test_operand_that_the_constant_makes_larger() -> None:
    text = "agraph (float[N,1,8,8] x) => (float[N,6,8,8] y) { c = Mul (x, s)  y = Conv (c, w) }"
    weights = {"w": weight(6, 4, 1, 1), "s": weight(4, 1, 1)}
    assert misses(NAME, parse(text, weights)) == ["the number of channels is not known"]
    assert misses(NAME, parse(text.replace("N,1,", "N,C,"), weights)) == ["the number of channels is not known"]
    text = "agraph (float[4] x) => (float[1,6] y) { c = Mul (x, s)  y = MatMul (c, w) }"
    assert misses(NAME, parse(text, {"w": weight(4, 6), "s": weight(1, 4)})) == [
        "the shape of the operand is not known"
    ]


def test_division_by_the_operand_and_by_zero() -> None:
    unchanged(NAME, conv("Div(s, x)", weight(4, 1, 1)))
    assert misses(NAME, conv("Div(x, s)", np.array([1, 0, 1, 1.0]).reshape(4, 1, 1))) == [
        "the constant is not finite, or divides by zero"
    ]


def test_result_read_elsewhere_or_put_out() -> None:
    reason = ["the result of the arithmetic is read elsewhere"]
    weights = {"w": weight(6, 4, 1, 1), "s": weight(4, 1, 1)}
    text = """agraph (float[N,4,8,8] x) => (float[N,6,8,8] y, float[N,4,8,8] z) {
        c = Mul (x, s)  y = Conv (c, w)  z = Relu (c) }"""
    assert misses(NAME, parse(text, weights)) == reason
    text = "agraph (float[N,4,8,8] x) => (float[N,6,8,8] y, float[N,4,8,8] c) { c = Mul (x, s)  y = Conv (c, w) }"
    assert misses(NAME, parse(text, weights)) == reason


def test_arithmetic_outside_the_branch() -> None:
    text = """agraph (float[N,4,8,8] x, bool b) => (float[N,6,8,8] y) {
        c = Mul (x, s)
        y = If (b) <then_branch = g1 () => (float[N,6,8,8] l) { l = Conv (c, w) },
                    else_branch = g2 () => (float[N,6,8,8] r) { r = Conv (x, w) }>
    }"""
    assert misses(NAME, parse(text, {"w": weight(6, 4, 1, 1), "s": weight(4, 1, 1)}))
    inside = text.replace("c = Mul (x, s)\n", "").replace("{ l =", "{ c = Mul (x, s) l =")
    fires(NAME, parse(inside, {"w": weight(6, 4, 1, 1), "s": weight(4, 1, 1)}), count=1)


def test_inside_a_function_the_shapes_are_not_known() -> None:
    text = """<ir_version: 10, opset_import: ["" : 21, "local" : 1]>
    agraph (float[N,4,8,8] x) => (float[N,2,8,8] y) { y = local.block (x) }
    <domain: "local", opset_import: ["" : 21]>
    block (x) => (y) {
        w = Constant <value = float[2,4,1,1] {1,2,3,4,5,6,7,8}> ()
        s = Constant <value_float = 0.5> ()
        c = Mul (x, s)
        y = Conv (c, w)
    }"""
    assert misses(NAME, parse(text)) == ["the shape of the operand is not known"]


def test_weight_or_operand_of_the_caller() -> None:
    text = "agraph (float[N,4,8,8] x, float[6,4,1,1] w) => (float[N,6,8,8] y) { c = Mul (x, s)  y = Conv (c, w) }"
    weights = {"w": weight(6, 4, 1, 1), "s": weight(4, 1, 1)}
    unchanged(NAME, parse(text, weights))
    unchanged(NAME, parse(text.replace("float[6,4,1,1] w", "float[4,1,1] s"), weights))


PATTERN = ["it is the end of a normalization or a Gelu, by which runtimes recognise them"]


@pytest.mark.parametrize(
    "body",
    [
        "d = Div (x, s) e = Erf (d) a = Add (e, s) m = Mul (x, a) c = Mul (m, s)",
        "q = Mul (x, x) r = Sqrt (q) n = Div (x, r) c = Mul (s, n)",
        "q = Mul (x, x) r = Sqrt (q) n = Div (x, r) p = Mul (s, n) c = Mul (p, s)",
    ],
)
def test_patterns_of_runtimes(body: str) -> None:
    text = f"agraph (float[N,S,4] x) => (float[N,S,6] y) {{ {body} y = MatMul (c, w) }}"
    assert misses(NAME, parse(text, {"w": weight(4, 6), "s": weight(4)})) == PATTERN
    assert lines(parse(text, {"w": weight(4, 6), "s": weight(4)}))[-1] == "y = MatMul(c, w)"


def test_gemm_with_factors() -> None:
    text = "agraph (float[N,4] x) => (float[N,6] y) { c = Mul (x, s)  y = Gemm <alpha = 0.5> (c, w) }"
    assert misses(NAME, parse(text, {"w": weight(4, 6), "s": weight(4)})) == [
        "the product is not of rows with a matrix"
    ]


def test_integers() -> None:
    text = "agraph (int32[3,4] x) => (int32[3,6] y) { c = Mul (x, s)  y = MatMul (c, w) }"
    weights = {"w": np.ones((4, 6), np.int32), "s": np.ones(4, np.int32)}
    assert misses(NAME, parse(text, weights)) == ["the weight is not of a floating-point type"]
