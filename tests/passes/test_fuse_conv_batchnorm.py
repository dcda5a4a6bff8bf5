"""fuse-conv-batchnorm."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx_ir as ir
import pytest
from harness import apply, fires, lines, misses, parse, unchanged

NAME = "fuse-conv-batchnorm"


def statistics(channels: int, seed: int = 0, dtype: str = "float32") -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    return {
        "s": random.standard_normal(channels).astype(dtype),
        "b": random.standard_normal(channels).astype(dtype),
        "m": random.standard_normal(channels).astype(dtype),
        "v": (random.random(channels) + 0.5).astype(dtype),
    }


def weight(*shape: int, dtype: str = "float32") -> np.ndarray:
    return np.random.default_rng(7).standard_normal(shape).astype(dtype)


CONV = """agraph (float[N,4,8,8] x) => (float[N,6,8,8] y) {
    c = Conv <pads = [1,1,1,1], kernel_shape = [3,3]> (x, w)
    y = BatchNormalization (c, s, b, m, v)
}"""


def test_conv_gets_weight_and_bias() -> None:
    fires(
        NAME,
        parse(CONV, {"w": weight(6, 4, 3, 3), **statistics(6)}),
        [
            "y = Conv<kernel_shape=(3, 3), pads=(1, 1, 1, 1)>(x, w_1, Conv_bias)",
        ],
    )


def test_existing_bias_and_epsilon_count() -> None:
    text = """agraph (float[N,4,8,8] x) => (float[N,6,8,8] y) {
        c = Conv (x, w, k)
        y = BatchNormalization <epsilon = 0.1> (c, s, b, m, v)
    }"""
    fires(NAME, parse(text, {"w": weight(6, 4, 1, 1), "k": weight(6), **statistics(6)}), ["y = Conv(x, w_1, k_1)"])


@pytest.mark.parametrize("group", [1, 2, 4])
def test_transposed_convolution_in_groups(group: int) -> None:
    text = f"""agraph (float[N,4,8,8] x) => (float[N,8,M,L] y) {{
        c = ConvTranspose <group = {group}, strides = [2,2]> (x, w)
        y = BatchNormalization (c, s, b, m, v)
    }}"""
    fires(NAME, parse(text, {"w": weight(4, 8 // group, 3, 3), **statistics(8)}), count=1)


@pytest.mark.parametrize("transposed", [0, 1])
def test_gemm_with_scaled_bias(transposed: int) -> None:
    text = f"""agraph (float[N,4] x) => (float[N,6] y) {{
        c = Gemm <transB = {transposed}, alpha = 0.5, beta = 2.0> (x, w, k)
        y = BatchNormalization (c, s, b, m, v)
    }}"""
    weights = {"w": weight(6, 4) if transposed else weight(4, 6), "k": weight(1, 6), **statistics(6)}
    fires(NAME, parse(text, weights), count=1)


def test_half_precision() -> None:
    text = CONV.replace("float[", "float16[")
    fires(NAME, parse(text, {"w": weight(6, 4, 3, 3, dtype="float16"), **statistics(6, dtype="float16")}), count=1)


def test_double_precision() -> None:
    text = """agraph (double[N,4] x) => (double[N,6] y) {
        c = Gemm <transB = 1> (x, w)
        y = BatchNormalization (c, s, b, m, v)
    }"""
    weights = {"w": weight(6, 4, dtype="float64"), **statistics(6, dtype="float64")}
    fires(NAME, parse(text, weights), ["y = Gemm<transB=1>(x, w_1, Gemm_bias)"])


def test_bfloat16_is_rounded_once() -> None:
    """ONNX Runtime has no such Conv on the CPU, so the folded weights are compared directly."""
    brain = {name: one.astype(ml_dtypes.bfloat16) for name, one in {"w": weight(6, 4, 3, 3), **statistics(6)}.items()}
    text = CONV.replace("float[", "bfloat16[")
    result, stats, _ = apply(parse(text, {name: ir.tensor(one, name=name) for name, one in brain.items()}), NAME)
    assert stats.counts[NAME] == 1
    folded, bias = (value.const_value.numpy() for value in result.graph[0].inputs[1:] if value and value.const_value)
    w, s, b, m, v = (brain[name].astype(np.float64) for name in "wsbmv")
    scale = s / np.sqrt(v + np.float64(np.float32(1e-5)))
    np.testing.assert_array_equal(folded, (w * scale[:, None, None, None]).astype(ml_dtypes.bfloat16))
    np.testing.assert_array_equal(bias, (b - m * scale).astype(ml_dtypes.bfloat16))


def test_inside_a_branch_and_a_function() -> None:
    text = """<ir_version: 10, opset_import: ["" : 21, "local" : 1]>
    agraph (float[N,4,8] x, bool t) => (float[N,6,8] y) {
        y = If (t) <
            then_branch = left () => (float[N,6,8] l) { c = Conv (x, w)  l = BatchNormalization (c, s, b, m, v) },
            else_branch = right () => (float[N,6,8] r) { r = local.block (x) }
        >
    }
    <domain: "local", opset_import: ["" : 21]>
    block (x) => (y) {
        w = Constant <value = float[6,4,1] {1,2,3,4,5,6,7,8,9,10,11,12,1,2,3,4,5,6,7,8,9,10,11,12}> ()
        s = Constant <value_floats = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]> ()
        c = Conv (x, w)
        y = BatchNormalization (c, s, s, s, s)
    }"""
    result = fires(NAME, parse(text, {"w": weight(6, 4, 1), **statistics(6)}), count=2)
    assert [node.op_type for node in result.graph[0].attributes["then_branch"].as_graph()] == ["Conv"]
    assert "BatchNormalization" not in {node.op_type for node in next(iter(result.functions.values()))}


def test_shape_of_the_channels_from_a_single_statistic() -> None:
    weights = {"w": weight(6, 4, 3, 3), **statistics(6), "v": np.ones(1, np.float32)}
    assert misses(NAME, parse(CONV, weights)) == ["the BatchNormalization statistics differ in shape"]


def test_half_precision_that_would_overflow() -> None:
    text = CONV.replace("float[", "float16[")
    weights = {"w": weight(6, 4, 3, 3, dtype="float16"), **statistics(6, dtype="float16")}
    weights |= {"s": np.full(6, 1e4, np.float16), "v": np.full(6, 1e-5, np.float16)}
    assert misses(NAME, parse(text, weights)) == ["the scaled weights do not fit their type"]


def test_bias_of_a_gemm_that_varies_over_the_batch() -> None:
    text = """agraph (float[3,4] x) => (float[3,6] y) {
        c = Gemm (x, w, k)
        y = BatchNormalization (c, s, b, m, v)
    }"""
    weights = {"w": weight(4, 6), "k": weight(3, 1), **statistics(6)}
    assert misses(NAME, parse(text, weights)) == ["the Gemm's bias varies over the batch"]


@pytest.mark.parametrize("opset", [7, 9, 13, 15])
def test_opsets(opset: int) -> None:
    text = f'<ir_version: 4, opset_import: ["" : {opset}]>\n{CONV}'
    fires(NAME, parse(text, {"w": weight(6, 4, 3, 3), **statistics(6)}), count=1)


def test_batchnorm_that_hands_out_its_statistics() -> None:
    text = """<ir_version: 4, opset_import: ["" : 9]>
    agraph (float[N,4,8,8] x) => (float[N,6,8,8] y) {
        c = Conv (x, w)
        y, mean, var = BatchNormalization (c, s, b, m, v)
    }"""
    assert misses(NAME, parse(text, {"w": weight(6, 4, 1, 1), **statistics(6)})) == ["the BatchNormalization trains"]


def test_weight_shared_with_another_convolution_is_copied() -> None:
    text = """agraph (float[N,4,8,8] x) => (float[N,6,8,8] y, float[N,6,8,8] z) {
        c = Conv (x, w)
        y = BatchNormalization (c, s, b, m, v)
        z = Conv (x, w)
    }"""
    after = ["y = Conv(x, w_1, Conv_bias)", "z = Conv(x, w)"]
    fires(NAME, parse(text, {"w": weight(6, 4, 1, 1), **statistics(6)}), after)


def test_result_read_twice() -> None:
    text = """agraph (float[N,4,8,8] x) => (float[N,6,8,8] y, float[N,6,8,8] z) {
        c = Conv (x, w)
        y = BatchNormalization (c, s, b, m, v)
        z = Relu (c)
    }"""
    assert misses(NAME, parse(text, {"w": weight(6, 4, 1, 1), **statistics(6)})) == [
        "the convolution's result is read elsewhere"
    ]


def test_convolution_is_a_graph_output() -> None:
    text = CONV.replace("(float[N,6,8,8] y)", "(float[N,6,8,8] y, float[N,6,8,8] c)")
    assert misses(NAME, parse(text, {"w": weight(6, 4, 3, 3), **statistics(6)})) == [
        "the convolution's result is read elsewhere"
    ]


def test_weight_or_statistic_not_constant() -> None:
    text = """agraph (float[N,4,8,8] x, float[6,4,1,1] w, float[6] s) => (float[N,6,8,8] y) {
        c = Conv (x, w)
        y = BatchNormalization (c, s, b, m, v)
    }"""
    overridable = statistics(6)
    constant = text.replace(", float[6,4,1,1] w", "")
    assert misses(NAME, parse(constant, {"w": weight(6, 4, 1, 1), **overridable})) == [
        "a BatchNormalization statistic is not constant"
    ]
    assert misses(NAME, parse(text.replace(", float[6] s)", ")"), overridable)) == ["the weight is not constant"]


def test_variance_that_is_not_positive() -> None:
    weights = {"w": weight(6, 4, 3, 3), **statistics(6), "v": np.full(6, -1, np.float32)}
    assert misses(NAME, parse(CONV, weights)) == ["a BatchNormalization variance is not positive"]


def test_training_batchnorm() -> None:
    text = CONV.replace("BatchNormalization (", "BatchNormalization <training_mode = 1> (")
    assert misses(NAME, parse(text, {"w": weight(6, 4, 3, 3), **statistics(6)})) == ["the BatchNormalization trains"]


CONCAT = """agraph (float[N,4,8,8] x, float[N,3,8,8] z) => (float[N,11,8,8] y) {
    c = Conv (x, w)
    d = Conv <group = 3> (z, u, k)
    t = Concat <axis = 1> (c, d)
    y = BatchNormalization (t, s, b, m, v)
}"""
PARTS = {"w": weight(5, 4, 1, 1), "u": weight(6, 1, 1, 1), "k": weight(6), **statistics(11)}


@pytest.mark.parametrize("axis", [1, -3])
def test_convolutions_in_a_concat_take_their_shares(axis: int) -> None:
    model = parse(CONCAT.replace("<axis = 1>", f"<axis = {axis}>"), PARTS)
    first, second, concat = lines(fires(NAME, model, count=1))
    assert first.endswith(" = Conv(x, w_1, Conv_bias)")
    assert second.endswith(" = Conv<group=3>(z, u_1, k_1)")
    assert concat.startswith(f"y = Concat<axis={axis}>(")


@pytest.mark.parametrize("inner", ["c", "t"])
def test_part_of_a_concat_read_elsewhere(inner: str) -> None:
    text = CONCAT.replace("y) {", f"y, float[A,B,C,D] {inner}) {{")
    assert misses(NAME, parse(text, PARTS)) == ["the convolution's result is read elsewhere"]


@pytest.mark.parametrize("concat", ["<axis = 1> (c, x, d)", "<axis = 1> (d, r)"])
def test_concat_of_something_else(concat: str) -> None:
    text = CONCAT.replace("<axis = 1> (c, d)", concat).replace("t = Conc", "r = Relu (c) t = Conc")
    channels = 15 if "x" in concat.split("(")[1] else 11
    unchanged(NAME, parse(text.replace("N,11", f"N,{channels}"), {**PARTS, **statistics(channels)}))


def test_concat_along_another_axis() -> None:
    text = CONCAT.replace("axis = 1> (c", "axis = 0> (c").replace("N,11", "M,5").replace("<group = 3> ", "")
    unchanged(NAME, parse(text, {**PARTS, "u": weight(5, 3, 1, 1), "k": weight(5), **statistics(5)}))
