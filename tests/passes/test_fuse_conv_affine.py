"""fuse-conv-affine."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import pytest
from harness import apply, fires, lines, misses, parse, unchanged

NAME = "fuse-conv-affine"
Array = npt.NDArray[Any]


def weight(*shape: int, dtype: str = "float32", seed: int = 7) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def conv(expression: str, constant: Array, *, channels: int = 6, bias: bool = False) -> ir.Model:
    text = f"""agraph (float[N,4,8,8] x) => (float[N,{channels},8,8] y) {{
        c = Conv <pads = [1,1,1,1]> (x, w{", k" if bias else ""})
        y = {expression}
    }}"""
    weights = {"w": weight(channels, 4, 3, 3), "s": constant}
    return parse(text, {**weights, "k": weight(channels)} if bias else weights)


@pytest.mark.parametrize("expression", ["Mul(c, s)", "Mul(s, c)", "Div(c, s)"])
def test_factor_needs_no_bias(expression: str) -> None:
    fires(NAME, conv(expression, weight(6, 1, 1)), ["y = Conv<pads=(1, 1, 1, 1)>(x, w_1)"])


@pytest.mark.parametrize("expression", ["Add(c, s)", "Add(s, c)", "Sub(c, s)"])
def test_summand_leaves_the_weight_alone(expression: str) -> None:
    fires(NAME, conv(expression, weight(1, 6, 1, 1)), ["y = Conv<pads=(1, 1, 1, 1)>(x, w, Conv_bias)"])


@pytest.mark.parametrize("expression", ["Mul(c, s)", "Div(c, s)", "Add(s, c)", "Sub(c, s)", "Sub(s, c)"])
@pytest.mark.parametrize("shape", [(), (1,), (6, 1, 1), (1, 6, 1, 1), (1, 1, 1, 1)])
def test_existing_bias(expression: str, shape: tuple[int, ...]) -> None:
    fires(NAME, conv(expression, weight(*shape), bias=True), count=1)


def test_subtracted_from_a_constant() -> None:
    fires(NAME, conv("Sub(s, c)", weight(6, 1, 1)), ["y = Conv<pads=(1, 1, 1, 1)>(x, w_1, Conv_bias)"])


@pytest.mark.parametrize("bias", [False, True])
def test_negated(bias: bool) -> None:
    (node,) = fires(NAME, conv("Neg(c)", weight(), bias=bias), count=1).graph
    assert len(node.inputs) == 2 + bias


def test_a_negated_result_that_is_read_elsewhere() -> None:
    text = """agraph (float[N,4,8,8] x) => (float[N,6,6,6] y, float[N,6,6,6] z) {
        c = Conv (x, w)  y = Neg (c)  z = Relu (c) }"""
    assert len(misses(NAME, parse(text, {"w": weight(6, 4, 3, 3)}))) == 1
    unchanged(NAME, parse("agraph (float[N,4] x) => (float[N,4] y) { r = Relu (x) y = Neg (r) }"))


def test_chain_folds_to_one_convolution() -> None:
    text = """agraph (float[N,4,8,8] x) => (float[N,6,8,8] y) {
        c = Conv (x, w)
        a = Mul (c, s)
        b = Add (t, a)
        d = Sub (t, b)
        y = Div (d, h)
    }"""
    weights = {"w": weight(6, 4, 1, 1), "s": weight(6, 1, 1), "t": weight(6, 1, 1), "h": np.array([1.5], np.float32)}
    fires(NAME, parse(text, weights), count=4)


@pytest.mark.parametrize("group", [1, 2, 4])
@pytest.mark.parametrize("op", ["Mul", "Add", "Sub"])
def test_transposed_convolution_in_groups(op: str, group: int) -> None:
    text = f"""agraph (float[N,4,5,5] x) => (float[N,8,H,W] y) {{
        c = ConvTranspose <group = {group}, strides = [2,2], output_padding = [1,1]> (x, w)
        y = {op} (s, c)
    }}"""
    fires(NAME, parse(text, {"w": weight(4, 8 // group, 3, 3), "s": weight(8, 1, 1)}), count=1)


def test_depthwise_convolution_on_one_axis() -> None:
    text = """agraph (float[N,6,9] x) => (float[N,6,7] y) {
        c = Conv <group = 6> (x, w)
        y = Mul (c, s)
    }"""
    fires(NAME, parse(text, {"w": weight(6, 1, 3), "s": weight(6, 1)}), ["y = Conv<group=6>(x, w_1)"])


@pytest.mark.parametrize("transposed", [0, 1])
@pytest.mark.parametrize("shape", [(6,), (1, 6), (1,), ()])
def test_gemm_with_scaled_operands(transposed: int, shape: tuple[int, ...]) -> None:
    text = f"""agraph (float[N,4] x) => (float[N,6] y) {{
        c = Gemm <transB = {transposed}, alpha = 0.5, beta = 2.0> (x, w, k)
        m = Mul (s, c)
        y = Sub (s, m)
    }}"""
    weights = {"w": weight(6, 4) if transposed else weight(4, 6), "k": weight(*shape), "s": weight(6)}
    fires(NAME, parse(text, weights), count=2)


def test_gemm_before_opset_11_keeps_its_bias() -> None:
    text = """<ir_version: 4, opset_import: ["" : 9]>
    agraph (float[N,4] x) => (float[N,6] y) {
        c = Gemm (x, w, k)
        y = Mul (c, s)
    }"""
    weights = {"w": weight(4, 6), "k": np.zeros(6, np.float32), "s": weight(6)}
    fires(NAME, parse(text, weights), ["y = Gemm(x, w_1, k_1)"])


def test_half_precision() -> None:
    text = """agraph (float16[N,4,8] x) => (float16[N,6,8] y) {
        c = Conv (x, w)
        m = Mul (c, s)
        y = Add (m, s)
    }"""
    fires(NAME, parse(text, {"w": weight(6, 4, 1, dtype="float16"), "s": weight(6, 1, dtype="float16")}), count=2)


def test_double_precision() -> None:
    text = """agraph (double[N,4] x) => (double[N,6] y) {
        c = Gemm (x, w)
        m = Mul (c, s)
        y = Add (m, s)
    }"""
    fires(NAME, parse(text, {"w": weight(4, 6, dtype="float64"), "s": weight(6, dtype="float64")}), count=2)


def test_bfloat16_is_rounded_once() -> None:
    """ONNX Runtime has no such Conv on the CPU, so the folded weights are compared directly."""
    text = """agraph (bfloat16[N,4,8] x) => (bfloat16[N,6,8] y) {
        c = Conv (x, w)
        m = Mul (c, s)
        y = Add (m, s)
    }"""
    w, s = (one.astype(ml_dtypes.bfloat16) for one in (weight(6, 4, 1), weight(6, 1)))
    result, stats, _ = apply(parse(text, {"w": ir.tensor(w, name="w"), "s": ir.tensor(s, name="s")}), NAME)
    assert stats.counts[NAME] == 2
    node = result.graph[0]
    folded, bias = (value.const_value.numpy() for value in node.inputs[1:] if value and value.const_value)
    assert folded.dtype == bias.dtype == ml_dtypes.bfloat16
    exact = w.astype(np.float64) * s.astype(np.float64)[:, :, None]
    np.testing.assert_array_equal(folded, exact.astype(ml_dtypes.bfloat16))
    np.testing.assert_array_equal(bias, s[:, 0])


def test_shared_weight_is_copied() -> None:
    text = """agraph (float[N,4,8,8] x) => (float[N,6,8,8] y, float[N,6,8,8] z) {
        c = Conv (x, w)
        y = Mul (c, s)
        z = Conv (x, w)
    }"""
    fires(NAME, parse(text, {"w": weight(6, 4, 1, 1), "s": weight(6, 1, 1)}), ["y = Conv(x, w_1)", "z = Conv(x, w)"])


def test_inside_a_branch() -> None:
    text = """agraph (float[N,4,8,8] x, bool b) => (float[N,6,8,8] y) {
        y = If (b) <
            then_branch = left () => (float[N,6,8,8] l) { c = Conv (x, w)  l = Mul (c, s) },
            else_branch = right () => (float[N,6,8,8] r) { r = Conv (x, w) }
        >
    }"""
    result = fires(NAME, parse(text, {"w": weight(6, 4, 1, 1), "s": weight(6, 1, 1)}), count=1)
    branch = result.graph[0].attributes["then_branch"].as_graph()
    assert lines(branch) == ["l = Conv(x, w_1)"]


def test_inside_a_function() -> None:
    text = """<ir_version: 10, opset_import: ["" : 21, "local" : 1]>
    agraph (float[N,4,8,8] x) => (float[N,6,8,8] y) { y = local.block (x) }
    <domain: "local", opset_import: ["" : 21]>
    block (x) => (y) {
        w = Constant <value = float[2,4,1,1] {1,2,3,4,5,6,7,8}> ()
        s = Constant <value_float = 0.5> ()
        c = Conv (x, w)
        y = Mul (c, s)
    }"""
    result = fires(NAME, parse(text.replace("N,6", "N,2")), count=1)
    function = next(iter(result.functions.values()))
    assert lines(function) == ["w_1 = Constant()", "y = Conv(x, w_1)"]


ANOTHER_AXIS = ["the constant varies along another axis than the channels"]


@pytest.mark.parametrize("shape", [(8,), (8, 1), (8, 8), (1, 8, 8), (2, 6, 1, 1), (1, 1, 8, 1), (1, 1, 6, 1, 1)])
def test_constant_along_another_axis(shape: tuple[int, ...]) -> None:
    text = f"""agraph (float[2,4,8,8] x) => (float[{"A," * (len(shape) > 4)}B,C,H,W] y) {{
        c = Conv (x, w)
        y = Mul (c, s)
    }}"""
    assert misses(NAME, parse(text, {"w": weight(6, 4, 1, 1), "s": weight(*shape)})) == ANOTHER_AXIS


def test_width_that_equals_the_channels() -> None:
    text = "agraph (float[2,4,8,8] x) => (float[2,8,8,8] y) { c = Conv (x, w)  y = Mul (c, s) }"
    assert misses(NAME, parse(text, {"w": weight(8, 4, 1, 1), "s": weight(8)})) == ANOTHER_AXIS


def test_batch_that_equals_the_channels() -> None:
    text = "agraph (float[6,4] x) => (float[6,6] y) { c = Gemm (x, w)  y = Mul (c, s) }"
    assert misses(NAME, parse(text, {"w": weight(4, 6), "s": weight(6, 1)})) == ANOTHER_AXIS


def test_one_channel_that_would_become_many() -> None:
    text = "agraph (float[2,4,8,8] x) => (float[2,6,8,8] y) { c = Conv (x, w)  y = Add (c, s) }"
    assert misses(NAME, parse(text, {"w": weight(1, 4, 1, 1), "s": weight(6, 1, 1)})) == ANOTHER_AXIS


def test_division_by_the_convolution() -> None:
    unchanged(NAME, conv("Div(s, c)", weight(6, 1, 1)))


def test_division_by_zero() -> None:
    constant = np.array([1, 2, 0, 4, 5, 6], np.float32).reshape(6, 1, 1)
    assert misses(NAME, conv("Div(c, s)", constant)) == ["the constant is not finite, or divides by zero"]


@pytest.mark.parametrize("factor", [6e4, 1e-7])
def test_half_precision_that_would_not_hold_the_weights(factor: float) -> None:
    text = "agraph (float16[N,4,8] x) => (float16[N,6,8] y) { c = Conv (x, w)  y = Mul (c, s) }"
    weights = {"w": weight(6, 4, 1, dtype="float16") * np.float16(8), "s": np.array(factor, np.float16)}
    assert misses(NAME, parse(text, weights)) == ["the scaled weights do not fit their type"]


def test_result_read_elsewhere_or_put_out() -> None:
    text = """agraph (float[N,4,8,8] x) => (float[N,6,8,8] y, float[N,6,8,8] z) {
        c = Conv (x, w)
        y = Mul (c, s)
        z = Relu (c)
    }"""
    weights = {"w": weight(6, 4, 1, 1), "s": weight(6, 1, 1)}
    reason = ["the convolution's result is read elsewhere"]
    assert misses(NAME, parse(text, weights)) == reason
    text = "agraph (float[N,4,8,8] x) => (float[N,6,8,8] y, float[N,6,8,8] c) { c = Conv (x, w)  y = Mul (c, s) }"
    assert misses(NAME, parse(text, weights)) == reason


def test_convolution_outside_the_branch_that_scales_it() -> None:
    text = """agraph (float[N,4,8,8] x, bool b) => (float[N,6,8,8] y) {
        c = Conv (x, w)
        y = If (b) <
            then_branch = left () => (float[N,6,8,8] l) { l = Mul (c, s) },
            else_branch = right () => (float[N,6,8,8] r) { r = Conv (x, w) }
        >
    }"""
    assert misses(NAME, parse(text, {"w": weight(6, 4, 1, 1), "s": weight(6, 1, 1)}))


def test_weight_or_operand_that_the_caller_may_override() -> None:
    text = """agraph (float[N,4,8,8] x, float[6,4,1,1] w) => (float[N,6,8,8] y) {
        c = Conv (x, w)
        y = Mul (c, s)
    }"""
    weights = {"w": weight(6, 4, 1, 1), "s": weight(6, 1, 1)}
    assert misses(NAME, parse(text, weights)) == ["the weight is not constant"]
    unchanged(NAME, parse(text.replace("float[6,4,1,1] w", "float[6,1,1] s"), weights))


def test_bias_that_varies_over_the_batch() -> None:
    text = "agraph (float[3,4] x) => (float[3,6] y) { c = Gemm (x, w, k)  y = Mul (c, s) }"
    weights = {"w": weight(4, 6), "k": weight(3, 6), "s": weight(6)}
    assert misses(NAME, parse(text, weights)) == ["the Gemm's bias varies over the batch"]


def test_integers() -> None:
    text = "agraph (int32[3,4] x) => (int32[3,6] y) { c = Gemm (x, w)  y = Mul (c, s) }"
    weights = {"w": np.ones((4, 6), np.int32), "s": np.ones(6, np.int32)}
    assert misses(NAME, parse(text, weights)) == ["the weight is not of a floating-point type"]


def test_before_opset_7() -> None:
    text = """<ir_version: 4, opset_import: ["" : 6]>
    agraph (float[2,4,8,8] x) => (float[2,6,8,8] y) {
        c = Conv (x, w)
        y = Mul <broadcast = 1, axis = 1> (c, s)
    }"""
    assert misses(NAME, parse(text, {"w": weight(6, 4, 1, 1), "s": weight(6)})) == [
        "before opset 7, arithmetic broadcasts by attributes"
    ]


@pytest.mark.parametrize("op", ["Mul", "Div", "Sub"])
def test_convolutions_in_a_concat_take_their_shares(op: str) -> None:
    text = f"""agraph (float[N,4,8,8] x) => (float[N,9,8,8] y) {{
        c = Conv (x, w)
        d = Conv (x, v)
        t = Concat <axis = 1> (c, d)
        y = {op} (t, s)
    }}"""
    weights = {"w": weight(6, 4, 1, 1), "v": weight(3, 4, 1, 1), "s": weight(9, 1, 1)}
    assert [node.op_type for node in fires(NAME, parse(text, weights), count=1).graph] == ["Conv", "Conv", "Concat"]
