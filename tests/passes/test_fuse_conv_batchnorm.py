"""fuse-conv-batchnorm."""

from __future__ import annotations

import numpy as np
import pytest
from harness import fires, misses, parse

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
    fires(NAME, parse(CONV, {"w": weight(6, 4, 3, 3), **statistics(6)}), [
        "y = Conv<kernel_shape=(3, 3), pads=(1, 1, 1, 1)>(x, w_1, Conv_bias)",
    ])


def test_existing_bias_and_epsilon_count() -> None:
    text = """agraph (float[N,4,8,8] x) => (float[N,6,8,8] y) {
        c = Conv (x, w, k)
        y = BatchNormalization <epsilon = 0.1> (c, s, b, m, v)
    }"""
    fires(NAME, parse(text, {"w": weight(6, 4, 1, 1), "k": weight(6), **statistics(6)}), ["y = Conv(x, w_1, k_1)"])


@pytest.mark.parametrize("group", [1, 2])
def test_transposed_convolution_in_groups(group: int) -> None:
    text = f"""agraph (float[N,4,8,8] x) => (float[N,6,M,L] y) {{
        c = ConvTranspose <group = {group}, strides = [2,2]> (x, w)
        y = BatchNormalization (c, s, b, m, v)
    }}"""
    fires(NAME, parse(text, {"w": weight(4, 6 // group, 3, 3), **statistics(6)}), count=1)


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


def test_weight_shared_with_another_convolution_is_copied() -> None:
    text = """agraph (float[N,4,8,8] x) => (float[N,6,8,8] y, float[N,6,8,8] z) {
        c = Conv (x, w)
        y = BatchNormalization (c, s, b, m, v)
        z = Conv (x, w)
    }"""
    fires(NAME, parse(text, {"w": weight(6, 4, 1, 1), **statistics(6)}), ["y = Conv(x, w_1, Conv_bias)", "z = Conv(x, w)"])


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
    assert misses(NAME, parse(text, {"w": weight(6, 4, 1, 1), **overridable})) == [
        "a BatchNormalization statistic is not constant"
    ]
    assert misses(NAME, parse(text.replace(", float[6] s)", ")"), overridable)) == ["the weight is not constant"]


def test_variance_that_is_not_positive() -> None:
    weights = {"w": weight(6, 4, 3, 3), **statistics(6), "v": np.full(6, -1, np.float32)}
    assert misses(NAME, parse(CONV, weights)) == ["a BatchNormalization variance is not positive"]


def test_training_batchnorm() -> None:
    text = CONV.replace("BatchNormalization (", "BatchNormalization <training_mode = 1> (")
    assert misses(NAME, parse(text, {"w": weight(6, 4, 3, 3), **statistics(6)})) == ["the BatchNormalization trains"]
