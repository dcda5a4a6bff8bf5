"""remove-dead-channels."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir
import pytest
from harness import apply, feeds, fires, lines, parse, run, unchanged

NAME = "remove-dead-channels"
Weights = dict[str, np.ndarray]
EVEN, ODD = slice(0, None, 2), slice(1, None, 2)

CONVS = """agraph (float[N,3,8,8] x) => (float[N,5,6,6] y) {
    c = Conv <pads = [1,1,1,1]> (x, w1, b1)
    r = Relu (c)
    y = Conv (r, w2, b2)
}"""
PADDED = CONVS.replace("(r, w2", "<pads = [1,1,1,1]> (r, w2").replace("y) {", "y) {", 1).replace("6,6", "8,8")


def weight(*shape: int, zero: slice | int | None = None, axis: int = 0, seed: int = 0) -> np.ndarray:
    """Seeded, with some slices zero."""
    array = np.random.default_rng(seed + 31 * len(shape)).standard_normal(shape).astype(np.float32)
    if zero is not None:
        np.moveaxis(array, axis, 0)[zero] = 0
    return array


def convs(**other: np.ndarray) -> Weights:
    """Two convolutions by way of 8 channels; every second filter of the first is zero."""
    given = {"w1": weight(8, 3, 3, 3, zero=ODD), "b1": weight(8, zero=ODD), "w2": weight(5, 8, 3, 3), "b2": weight(5)}
    return given | other


def sizes(model: ir.Model) -> Mapping[str, tuple[int, ...]]:
    """The shapes of the initializers."""
    return {
        name: tuple(value.const_value.shape.numpy())
        for name, value in model.graph.initializers.items()
        if value.const_value is not None
    }


def test_filters_of_zeros_go_with_what_reads_them() -> None:
    result = fires(
        NAME,
        parse(PADDED, convs()),
        ["c = Conv<pads=(1, 1, 1, 1)>(x, w1, b1)", "r = Relu(c)", "y = Conv<pads=(1, 1, 1, 1)>(r, w2, b2)"],
        count=4,
    )
    assert sizes(result) == {"w1": (4, 3, 3, 3), "b1": (4,), "w2": (5, 4, 3, 3), "b2": (5,)}


def test_columns_of_zeros_suffice() -> None:
    weights = convs(w1=weight(8, 3, 3, 3), b1=weight(8), w2=weight(5, 8, 3, 3, zero=slice(3), axis=1))
    assert sizes(fires(NAME, parse(PADDED, weights), count=3))["w1"] == (5, 3, 3, 3)


def test_what_is_left_of_a_filter_is_its_bias() -> None:
    """It goes into the bias of the next convolution, which pads nothing."""
    result = fires(NAME, parse(CONVS, convs(b1=weight(8))), count=4)
    assert sizes(result) == {"w1": (4, 3, 3, 3), "b1": (4,), "w2": (5, 4, 3, 3), "b2_1": (5,)}


def test_a_convolution_gets_a_bias() -> None:
    result = fires(NAME, parse(CONVS.replace(", b2)", ")"), convs(b1=np.abs(weight(8)))), count=4)
    assert lines(result)[-1] == "y = Conv(r, w2, Conv_bias)"


def test_what_is_padded_with_zeros_is_missed_at_the_border() -> None:
    unchanged(NAME, parse(PADDED, convs(b1=np.abs(weight(8)))))
    # Relu makes zero of a negative bias.
    fires(NAME, parse(PADDED, convs(b1=-np.abs(weight(8)))), count=4)


@pytest.mark.parametrize("padding", ["pads = [0,0,1,1]", 'auto_pad = "SAME_UPPER"'])
def test_each_way_to_pad(padding: str) -> None:
    text = CONVS.replace("(r, w2", f"<{padding}> (r, w2").replace("6,6", "M,L")
    unchanged(NAME, parse(text, convs(b1=np.abs(weight(8)))))


def statistics(gamma: np.ndarray, beta: np.ndarray) -> Weights:
    return {"g": gamma, "t": beta, "m": weight(8, seed=3), "v": np.abs(weight(8, seed=4)) + np.float32(0.5)}


NORMED = CONVS.replace("r = Relu (c)", "n = BatchNormalization (c, g, t, m, v) r = Relu (n)")


def test_gamma_of_zero() -> None:
    weights = convs(w1=weight(8, 3, 3, 3), b1=weight(8)) | statistics(weight(8, zero=ODD), weight(8, zero=ODD))
    result = fires(NAME, parse(NORMED, weights), count=4)
    assert {sizes(result)[name] for name in ("g", "t", "m", "v", "b1")} == {(4,)}


def test_beta_without_gamma_is_a_constant() -> None:
    weights = convs(w1=weight(8, 3, 3, 3), b1=weight(8)) | statistics(weight(8, zero=ODD), np.abs(weight(8)))
    assert "b2_1" in sizes(fires(NAME, parse(NORMED, weights), count=4))
    unchanged(NAME, parse(NORMED.replace("(r, w2", "<pads = [1,1,1,1]> (r, w2").replace("6,6", "8,8"), weights))


def test_a_filter_of_zeros_before_a_batchnorm_that_shifts_it() -> None:
    weights = convs() | statistics(weight(8), weight(8))
    fires(NAME, parse(NORMED, weights), count=4)


def test_depthwise() -> None:
    text = """agraph (float[N,3,8,8] x) => (float[N,5,6,6] y) {
        c = Conv (x, w1, b1)
        d = Conv <group = 8, kernel_shape = [3,3]> (c, wd, bd)
        r = HardSwish (d)
        y = Conv (r, w2, b2)
    }"""
    weights = convs(w1=weight(8, 3, 1, 1, zero=ODD), b1=weight(8), w2=weight(5, 8, 1, 1))
    weights |= {"wd": weight(8, 1, 3, 3), "bd": weight(8, seed=5)}
    assert sizes(fires(NAME, parse(text, weights), count=4))["wd"] == (4, 1, 3, 3)
    # Padded, a channel of zeros stays constant, one of another number does not.
    padded = text.replace("<group = 8,", "<pads = [1,1,1,1], group = 8,").replace("6,6", "8,8")
    unchanged(NAME, parse(padded, weights))
    fires(NAME, parse(padded, weights | {"b1": weight(8, zero=ODD)}), count=4)


def test_residual_needs_both_branches_zero() -> None:
    text = """agraph (float[N,3,8,8] x) => (float[N,5,8,8] y) {
        a = Conv <pads = [1,1,1,1]> (x, w1, b1)
        b = Conv (x, w3)
        s = Add (a, b)
        y = Conv <pads = [1,1,1,1]> (s, w2, b2)
    }"""
    unchanged(NAME, parse(text, convs(w3=weight(8, 3, 1, 1))))
    fires(NAME, parse(text, convs(w3=weight(8, 3, 1, 1, zero=slice(1, 4)))), count=2)


def test_gate_of_zero() -> None:
    """A product is zero where one factor is; the other branch goes too."""
    text = """agraph (float[N,3,8,8] x) => (float[N,5,8,8] y) {
        a = Conv <pads = [1,1,1,1]> (x, w1, b1)
        b = Conv (x, w3)
        h = Sigmoid (b)
        s = Mul (a, h)
        y = Conv <pads = [1,1,1,1]> (s, w2, b2)
    }"""
    assert sizes(fires(NAME, parse(text, convs(w3=weight(8, 3, 1, 1))), count=4))["w3"] == (4, 3, 1, 1)


def test_concat_of_what_is_dead_and_what_is_not() -> None:
    text = """agraph (float[N,3,8,8] x) => (float[N,5,8,8] y) {
        a = Conv <pads = [1,1,1,1]> (x, w1, b1)
        b = Conv (x, w3)
        s = Concat <axis = 1> (b, a)
        y = Conv <pads = [1,1,1,1]> (s, w2, b2)
    }"""
    result = fires(NAME, parse(text, convs(w3=weight(4, 3, 1, 1, zero=2), w2=weight(5, 12, 3, 3))), count=5)
    assert sizes(result) == {"w1": (4, 3, 3, 3), "b1": (4,), "w3": (3, 3, 1, 1), "w2": (5, 7, 3, 3), "b2": (5,)}


def test_groups_lose_the_same_places() -> None:
    text = PADDED.replace("<pads = [1,1,1,1]> (r", "<pads = [1,1,1,1], group = 2> (r").replace("N,5,8", "N,6,8")
    # Places 0 and 4 are the first of each group; of places 1 and 5 only one is dead.
    dead = weight(8, 3, 3, 3)
    dead[[0, 4, 5]] = 0
    bias = weight(8)
    bias[[0, 4, 5]] = 0
    result = fires(NAME, parse(text, convs(w1=dead, b1=bias, w2=weight(6, 4, 3, 3), b2=weight(6))), count=1)
    assert sizes(result)["w2"] == (6, 3, 3, 3)


def test_constants_go_through_groups() -> None:
    text = CONVS.replace("(r, w2", "<group = 2> (r, w2").replace("N,5,6", "N,6,6")
    weights = convs(b1=np.abs(weight(8)), w2=weight(6, 4, 3, 3), b2=weight(6))
    fires(NAME, parse(text, weights), count=2)


def test_the_last_channel_stays() -> None:
    weights = convs(w1=np.zeros((8, 3, 3, 3), np.float32), b1=np.zeros(8, np.float32))
    result = fires(NAME, parse(PADDED, weights), count=7)
    assert sizes(result)["w1"] == (1, 3, 3, 3)


def test_shared_weights_go_where_all_their_readers_agree() -> None:
    text = """agraph (float[N,3,8,8] x, float[N,3,8,8] z) => (float[N,5,8,8] y, float[N,5,8,8] u) {
        a = Conv <pads = [1,1,1,1]> (x, w1, b1)
        b = Conv <pads = [1,1,1,1]> (z, w1, b1)
        y = Conv <pads = [1,1,1,1]> (a, w2, b2)
        u = Conv <pads = [1,1,1,1]> (b, w3)
    }"""
    weights = convs(w1=weight(8, 3, 3, 3), b1=weight(8), w2=weight(5, 8, 3, 3, zero=ODD, axis=1))
    unchanged(NAME, parse(text, weights | {"w3": weight(5, 8, 3, 3)}))
    result = fires(NAME, parse(text, weights | {"w3": weight(5, 8, 3, 3, zero=slice(1, 4), axis=1)}), count=2)
    assert sizes(result)["w1"] == (6, 3, 3, 3)


def test_graph_output_keeps_its_size() -> None:
    text = PADDED.replace("y)", "y, float[N,8,8,8] r)", 1)
    unchanged(NAME, parse(text, convs()))


def test_statistics_count_zeros() -> None:
    text = """agraph (float[N,S,4] x) => (float[N,S,5] y) {
        a = MatMul (x, w1)
        n = LayerNormalization (a, g, t)
        y = MatMul (n, w2)
    }"""
    weights = {"w1": weight(4, 8, zero=ODD, axis=1), "w2": weight(8, 5, zero=ODD)}
    weights |= {"g": weight(8, zero=ODD), "t": weight(8, zero=ODD)}
    unchanged(NAME, parse(text, weights))


def test_means_of_squares_are_corrected() -> None:
    text = """<ir_version: 11, opset_import: ["" : 23]>
    agraph (float[N,S,4] x) => (float[N,S,5] y) {
        a = MatMul (x, w1)
        n = RMSNormalization (a, g)
        y = MatMul (n, w2)
    }"""
    weights = {"w1": weight(4, 8, zero=ODD, axis=1), "g": weight(8), "w2": weight(8, 5)}
    assert sizes(fires(NAME, parse(text, weights), count=4))["w2"] == (4, 5)
    # What is zero only after the normalization was part of the mean.
    columns = {"w1": weight(4, 8), "g": weight(8, zero=ODD), "w2": weight(8, 5, zero=ODD)}
    unchanged(NAME, parse(text, columns))


def test_softmax_looks_along_its_axis() -> None:
    text = """agraph (float[N,4] x) => (float[N,5] y) {
        a = MatMul (x, w1)
        s = Softmax (a)
        y = MatMul (s, w2)
    }"""
    unchanged(NAME, parse(text, {"w1": weight(4, 8, zero=ODD, axis=1), "w2": weight(8, 5, zero=ODD)}))


def test_operator_that_looks_along_another_axis() -> None:
    text = """agraph (float[4,8] x) => (float[4,5] y) {
        a = MatMul (x, w1)
        d, u = TopK <axis = 0> (a, k)
        y = MatMul (d, w2)
    }"""
    weights = {"w1": weight(8, 8, zero=ODD, axis=1), "w2": weight(8, 5), "k": np.array([4])}
    assert sizes(fires(NAME, parse(text, weights), count=4))["w1"] == (8, 4)
    unchanged(NAME, parse(text.replace("axis = 0", "axis = 1"), weights | {"k": np.array([8])}))


def test_unknown_operator_may_look_at_anything() -> None:
    text = """<ir_version: 10, opset_import: ["" : 21, "custom" : 1]>
    agraph (float[4,8] x) => (float[4,5] y) {
        a = MatMul (x, w1)
        b = custom.Thing (a)
        y = MatMul (b, w2)
    }"""
    unchanged(NAME, parse(text, {"w1": weight(8, 8, zero=ODD, axis=1), "w2": weight(8, 5, zero=ODD)}))


def test_fully_connected_layers() -> None:
    text = """agraph (float[N,4] x) => (float[N,5] y) {
        a = Gemm <transB = 1> (x, w1, b1)
        r = Sigmoid (a)
        y = Gemm <alpha = 0.5, beta = 1.0> (r, w2, b2)
    }"""
    weights = {"w1": weight(8, 4, zero=ODD), "b1": weight(8), "w2": weight(8, 5), "b2": weight(5)}
    assert sizes(fires(NAME, parse(text, weights), count=4))["w2"] == (4, 5)
    # No bias, or one that is scaled: the sum moves into an Add.
    scaled = text.replace("beta = 1.0", "beta = 2.0")
    assert lines(fires(NAME, parse(scaled, weights), count=4))[-1] == "y = Add(y_1, Gemm_constant)"
    assert lines(fires(NAME, parse(text.replace(", b2)", ")"), weights), count=4))[-1].endswith("(r, w2, Gemm_bias)")


@pytest.mark.parametrize("bias", [True, False])
def test_sequences(bias: bool) -> None:
    last = "m = MatMul (r, w2)\n        y = Add (b2, m)" if bias else "y = MatMul (r, w2)"
    text = f"""agraph (float[N,S,4] x) => (float[N,S,5] y) {{
        a = MatMul (x, w1)
        b = Add (a, b1)
        r = Gelu (b)
        {last}
    }}"""
    weights = {"w1": weight(4, 8, zero=ODD, axis=1), "b1": weight(8), "w2": weight(8, 5), "b2": weight(5)}
    if not bias:
        del weights["b2"]
    result = fires(NAME, parse(text, weights), count=4)
    end = "y = Add(b2_1, m)" if bias else "y = Add(y_1, MatMul_constant)"
    assert lines(result)[-1] == end


@pytest.mark.parametrize("shape", [(5,), (1, 5), (1, 1, 5)])
def test_bias_of_a_higher_rank_keeps_it(shape: tuple[int, ...]) -> None:
    rank = max(2, len(shape))
    text = f"""agraph (float[3,4] x) => (float[{",".join(["1", "3", "5"][3 - rank :])}] y) {{
        a = MatMul (x, w1)
        b = Add (a, b1)
        m = MatMul (b, w2)
        y = Add (m, b2)
    }}"""
    weights = {"w1": weight(4, 8, zero=ODD, axis=1), "b1": weight(8), "w2": weight(8, 5), "b2": weight(*shape)}
    result = fires(NAME, parse(text, weights), count=4)
    assert sizes(result)["b2_1"] == shape


def test_constant_weight_on_the_left() -> None:
    text = """agraph (float[4,N] x) => (float[5,N] y) {
        a = MatMul (w1, x)
        b = Add (a, b1)
        y = MatMul (w2, b)
    }"""
    weights = {"w1": weight(8, 4, zero=ODD), "b1": weight(8, 1), "w2": weight(5, 8)}
    assert sizes(fires(NAME, parse(text, weights), count=4))["w2"] == (5, 4)


def test_matrix_times_vector() -> None:
    text = """agraph (float[4] x) => (float[5] y) {
        a = MatMul (w1, x)
        b = Add (a, b1)
        y = MatMul (w2, b)
    }"""
    weights = {"w1": weight(8, 4, zero=ODD), "b1": weight(8), "w2": weight(5, 8)}
    assert sizes(fires(NAME, parse(text, weights), count=4))["w2"] == (5, 4)


@pytest.mark.parametrize("initial", ["", ", , h0, c0"])
def test_hidden_units_of_an_lstm(initial: str) -> None:
    text = f"""agraph (float[6,N,4] x) => (float[6,N,5] y) {{
        h, last, cell = LSTM <hidden_size = 8> (x, w, r, b{initial})
        s = Squeeze (h, one)
        y = MatMul (s, w2)
    }}"""

    def gates(array: np.ndarray) -> np.ndarray:
        array.reshape(-1, 8, array.shape[-1] if array.ndim == 3 else 1)[:, ODD] = 0
        return array

    weights = {"w": gates(weight(1, 32, 4)), "r": gates(weight(1, 32, 8)), "b": gates(weight(1, 64))}
    weights |= {"one": np.array([1]), "w2": weight(8, 5)}
    if initial:
        weights |= {"h0": np.zeros((1, 3, 8), np.float32), "c0": np.zeros((1, 3, 8), np.float32)}
        text = text.replace("N,4", "3,4").replace("N,5", "3,5")
    result = fires(NAME, parse(text, weights), count=4)
    assert sizes(result)["r"] == (1, 16, 4)
    if initial:  # a cell that starts elsewhere is not zero
        unchanged(NAME, parse(text, weights | {"c0": weight(1, 3, 8)}))


def test_attention_heads() -> None:
    text = """agraph (float[N,S,8] x) => (float[N,S,8] y) {
        q = MatMul (x, wq)
        k = MatMul (x, wk)
        v = MatMul (x, wv)
        q4 = Reshape (q, split)
        k4 = Reshape (k, split)
        v4 = Reshape (v, split)
        qh = Transpose <perm = [0,2,1,3]> (q4)
        kh = Transpose <perm = [0,2,3,1]> (k4)
        vh = Transpose <perm = [0,2,1,3]> (v4)
        a = MatMul (qh, kh)
        p = Softmax (a)
        o = MatMul (p, vh)
        ot = Transpose <perm = [0,2,1,3]> (o)
        j = Reshape (ot, join)
        y = MatMul (j, wo)
    }"""
    names = ("wq", "wk", "wv")
    dead = {name: weight(8, 8, zero=slice(4, 6), axis=1, seed=at) for at, name in enumerate(names)}
    shapes = {"split": np.array([0, 0, 4, 2]), "join": np.array([0, 0, 8]), "wo": weight(8, 8)}
    result = fires(NAME, parse(text, dead | shapes), count=1)
    assert sizes(result)["wo"] == (6, 8)
    # Values of zero suffice for a head; queries of zero do not: it averages then.
    fires(NAME, parse(text, dead | shapes | {"wq": weight(8, 8), "wk": weight(8, 8)}), count=1)
    unchanged(NAME, parse(text, dead | shapes | {"wv": weight(8, 8)}))
    # One lane of each head of queries and keys is a channel of its own.
    lane = {name: weight(8, 8, zero=ODD, axis=1, seed=at) for at, name in enumerate(names)} | {"wv": weight(8, 8)}
    result = fires(NAME, parse(text, lane | shapes), count=1)
    assert sizes(result)["wq"] == (8, 4)
    assert sizes(result)["wv"] == (8, 8)


def test_mean_over_channels_is_corrected() -> None:
    text = """agraph (float[N,3,8,8] x) => (float[N,1,8,8] y) {
        c = Conv <pads = [1,1,1,1]> (x, w1, b1)
        y = ReduceMean (c, axis)
    }"""
    weights = {"w1": weight(8, 3, 3, 3, zero=ODD), "b1": weight(8, zero=ODD), "axis": np.array([1])}
    fires(NAME, parse(text, weights), count=4)
    unchanged(NAME, parse(text, weights | {"b1": weight(8)}))


def test_transposed_convolution() -> None:
    text = """agraph (float[N,3,8,8] x) => (float[N,5,M,L] y) {
        c = ConvTranspose <strides = [2,2]> (x, w1, b1)
        r = Relu (c)
        y = ConvTranspose <strides = [2,2]> (r, w2, b2)
    }"""
    weights = convs(w1=weight(3, 8, 3, 3, zero=ODD, axis=1), w2=weight(8, 5, 3, 3))
    assert sizes(fires(NAME, parse(text, weights), count=4))["w2"] == (4, 5, 3, 3)
    unchanged(NAME, parse(text, weights | {"b1": np.abs(weight(8))}))  # fewer taps at the border


def test_flattened_image() -> None:
    text = """agraph (float[N,3,4,4] x) => (float[N,5] y) {
        c = Conv <pads = [1,1,1,1]> (x, w1, b1)
        p = MaxPool <kernel_shape = [2,2], strides = [2,2]> (c)
        f = Flatten (p)
        y = Gemm (f, w2, b2)
    }"""
    weights = convs(w2=weight(32, 5), b1=weight(8))
    assert sizes(fires(NAME, parse(text, weights), count=4))["w2"] == (16, 5)


def test_quantized_weights_of_zero() -> None:
    text = """agraph (float[N,3,8,8] x) => (float[N,5,8,8] y) {
        f = DequantizeLinear <axis = 0> (w1, s1)
        g = DequantizeLinear (w2, s2, z2)
        c = Conv <pads = [1,1,1,1]> (x, f, b1)
        q = QuantizeLinear (c, s2, z2)
        d = DequantizeLinear (q, s2, z2)
        y = Conv <pads = [1,1,1,1]> (d, g)
    }"""
    weights = {
        "w1": (weight(8, 3, 3, 3, zero=ODD) * 30).astype(np.int8),
        "w2": (weight(5, 8, 3, 3) * 30 + 128).astype(np.uint8),
        "s1": np.abs(weight(8)) + np.float32(0.01),
        "s2": np.array(0.02, np.float32),
        "z2": np.array(128, np.uint8),
        "b1": weight(8, zero=ODD),
    }
    assert sizes(fires(NAME, parse(text, weights), count=4))["w2"] == (5, 4, 3, 3)


@pytest.mark.parametrize("dtype", ["float16", "double"])
def test_other_types(dtype: str) -> None:
    text = f"""agraph ({dtype}[N,4] x) => ({dtype}[N,5] y) {{
        a = Gemm (x, w1, b1)
        r = Relu (a)
        y = Gemm (r, w2, b2)
    }}"""
    weights = {"w1": weight(4, 8, zero=ODD, axis=1), "b1": weight(8), "w2": weight(8, 5), "b2": weight(5)}
    kind = {"float16": np.float16, "double": np.float64}[dtype]
    fires(NAME, parse(text, {name: array.astype(kind) for name, array in weights.items()}), count=4)


@pytest.mark.parametrize("to", ["float16", "bfloat16", "float8e4m3fn", "float8e5m2"])
def test_casts_round(to: str) -> None:
    """There and back: the bias is what is left of the constant, which a float8 keeps a few bits of."""
    target = ir.DataType[to.upper()]
    text = f"""agraph (float[N,4] x) => (float[N,5] y) {{
        a = Gemm (x, w1, b1)
        h = Cast <to = {int(target)}> (a)
        r = Cast <to = 1> (h)
        y = Gemm (r, w2)
    }}"""
    bias = np.array([0, 1.06, 0, -2.3, 0, 0.77, 0, 3.9], np.float32)
    weights = {"w1": np.zeros((4, 8), np.float32), "b1": bias, "w2": weight(8, 5)}
    weights["w1"][:, EVEN] = weight(4, 4)
    result, stats, _ = apply(parse(text, weights), NAME)
    assert stats.counts[NAME] == 4
    (folded,) = (value for name, value in result.graph.initializers.items() if name.endswith("_bias"))
    assert folded.const_value is not None
    kept = bias.astype(target.numpy()).astype(np.float64)
    assert np.abs(kept - bias).max() > 1e-4
    np.testing.assert_allclose(folded.const_value.numpy(), kept @ weights["w2"], rtol=1e-6)


def test_casts_that_overflow() -> None:
    """What the target makes of too large a number is not guessed; of zero nothing but zero comes."""
    text = """agraph (float[N,4] x) => (float[N,5] y) {
        a = Gemm (x, w1, b1)
        h = Cast <to = 10> (a)
        r = Cast <to = 1> (h)
        y = Gemm (r, w2)
    }"""
    weights = {"w1": weight(4, 8, zero=ODD, axis=1), "b1": np.full(8, 7e4, np.float32), "w2": weight(8, 5)}
    unchanged(NAME, parse(text, weights))
    fires(NAME, parse(text, weights | {"b1": np.zeros(8, np.float32)}), count=4)


def test_double_stays_double() -> None:
    """A sigmoid that is computed in float32 is off by 1e-8."""
    text = """agraph (double[N,4] x) => (double[N,5] y) {
        a = Gemm (x, w1, b1)
        r = Sigmoid (a)
        y = Gemm (r, w2)
    }"""
    shapes = {"w1": weight(4, 8, zero=ODD, axis=1), "b1": weight(8), "w2": weight(8, 5)}
    weights = {name: array.astype(np.float64) for name, array in shapes.items()}
    result = fires(NAME, parse(text, weights), count=4)
    folded = result.graph.initializers["Gemm_bias"].const_value
    assert folded is not None
    expected = (1 / (1 + np.exp(-weights["b1"][ODD]))) @ weights["w2"][ODD]
    np.testing.assert_allclose(folded.numpy(), expected, rtol=1e-14)


def test_halves_are_rounded_at_each_step() -> None:
    """A sum that a float16 cannot hold is no constant, even if less is left of it later."""
    text = """agraph (float16[N,4] x) => (float16[N,5] y) {
        a = Gemm (x, w1, b1)
        s = Add (a, a)
        r = Sigmoid (s)
        y = Gemm (r, w2)
    }"""
    weights = {"w1": weight(4, 8, zero=ODD, axis=1), "b1": np.full(8, 6e4), "w2": weight(8, 5)}
    unchanged(NAME, parse(text, {name: array.astype(np.float16) for name, array in weights.items()}))


def test_whole_numbers_divide_to_whole_numbers() -> None:
    """Seven halves, of whole numbers, are three."""
    text = """agraph (float[N,4] x) => (float[N,5] y) {
        a = Gemm (x, w1)
        i = Cast <to = 7> (a)
        j = Add (i, seven)
        q = Div (j, two)
        r = Cast <to = 1> (q)
        y = Gemm (r, w2)
    }"""
    weights = {"w1": weight(4, 8, zero=ODD, axis=1), "w2": weight(8, 5), "two": np.full(8, 2)}
    unchanged(NAME, parse(text, weights | {"seven": np.full(8, 7)}))
    fires(NAME, parse(text, weights | {"seven": np.full(8, 6)}), count=4)


def test_a_constant_too_large_for_a_bias() -> None:
    weights = {name: array.astype(np.float16) for name, array in convs(b1=np.full(8, 3e4, np.float32)).items()}
    unchanged(NAME, parse(CONVS.replace("float[", "float16["), weights))


def test_inside_a_branch() -> None:
    text = """agraph (float[N,3,8,8] x, bool t) => (float[N,5,6,6] y) {
        c = Conv <pads = [1,1,1,1]> (x, w1, b1)
        r = Relu (c)
        y = If (t) <
            then_branch = one () => (float[N,5,6,6] o) { o = Conv (r, w2, b2) },
            else_branch = two () => (float[N,5,6,6] u) { v = Conv (r, w3) u = Relu (v) }
        >
    }"""
    result = fires(NAME, parse(text, convs(w3=weight(5, 8, 3, 3), b1=weight(8))), count=4)
    assert sizes(result)["w3"] == (5, 4, 3, 3)
    branch = next(node for node in result.graph if node.op_type == "If").attributes["else_branch"].as_graph()
    assert [len(node.inputs) for node in branch] == [3, 1]  # it has a bias now


def test_models_with_functions_are_left_alone() -> None:
    text = """<ir_version: 10, opset_import: ["" : 21, "local" : 1]>
    agraph (float[N,3,8,8] x) => (float[N,5,8,8] y) {
        c = Conv <pads = [1,1,1,1]> (x, w1, b1)
        r = local.act (c)
        y = Conv <pads = [1,1,1,1]> (r, w2, b2)
    }
    <domain: "local", opset_import: ["" : 21]>
    act (x) => (y) { y = Relu (x) }"""
    unchanged(NAME, parse(text, convs()))


def test_overridable_weight_is_not_zero_for_sure() -> None:
    text = PADDED.replace("x) =>", "x, float[8,3,3,3] w1) =>")
    unchanged(NAME, parse(text, convs()))


def test_metadata_and_declared_shapes_survive() -> None:
    model = parse(PADDED, convs())
    model.metadata_props["who"] = "me"
    model.graph[0].metadata_props["layer"] = "first"
    model.graph[0].outputs[0].shape = ir.Shape(["N", 8, 8, 8])
    model.graph[0].outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
    result = fires(NAME, model)
    assert result.metadata_props["who"] == "me"
    assert result.graph[0].metadata_props["layer"] == "first"
    assert result.graph[0].outputs[0].shape == ir.Shape(["N", 4, 8, 8])


def test_nothing_is_computed_from_what_is_not_zero() -> None:
    model = parse(PADDED, convs(w1=weight(8, 3, 3, 3), b1=np.zeros(8, np.float32)))
    unchanged(NAME, model)


def test_sparse_weights_are_not_dead() -> None:
    random = np.random.default_rng(0)
    sparse = np.where(random.random((8, 3, 3, 3)) < 0.7, 0, weight(8, 3, 3, 3)).astype(np.float32)
    unchanged(NAME, parse(PADDED, convs(w1=sparse, b1=np.zeros(8, np.float32))))


def test_with_the_other_passes() -> None:
    """BatchNormalization folds into the convolution, which then gives a constant."""
    weights = convs(w1=weight(8, 3, 3, 3), b1=weight(8)) | statistics(weight(8, zero=ODD), np.abs(weight(8)))
    model = parse(NORMED, weights)
    result, stats, _ = apply(model, "default")
    assert stats.counts[NAME] == 4
    assert [node.op_type for node in result.graph] == ["Conv", "Relu", "Conv"]
    inputs = feeds(model)
    np.testing.assert_allclose(run(result, inputs)[0], run(model, inputs)[0], rtol=1e-4, atol=1e-4)
