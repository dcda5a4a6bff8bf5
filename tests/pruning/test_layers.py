"""A layer's rows times its matrix is what ONNX Runtime computes."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import pytest
from harness import parse, run

from graphopt.pruning.layers import Layer, find_layers, layer_of

Array = npt.NDArray[Any]


def _random(*shape: int) -> Array:
    return np.random.default_rng(list(shape)).standard_normal(shape).astype(np.float32)


CASES: dict[str, tuple[str, str, tuple[int, ...], dict[str, Array]]] = {
    "conv": ("Conv <pads=[1,1,1,1]> (x, w)", "N,4,7,6", (3, 4, 7, 6), {"w": _random(5, 4, 3, 3)}),
    "strided": (
        "Conv <pads=[0,1,2,0], strides=[2,3]> (x, w)", "N,4,9,11", (2, 4, 9, 11), {"w": _random(5, 4, 3, 2)}
    ),
    "dilated": ("Conv <dilations=[2,3]> (x, w)", "N,2,12,13", (2, 2, 12, 13), {"w": _random(3, 2, 3, 3)}),
    "grouped": ("Conv <group=2, pads=[1,1,1,1]> (x, w)", "N,6,5,5", (2, 6, 5, 5), {"w": _random(4, 3, 3, 3)}),
    "depthwise": ("Conv <group=4, pads=[1,1,1,1]> (x, w)", "N,4,5,5", (2, 4, 5, 5), {"w": _random(8, 1, 3, 3)}),
    "upper": (
        'Conv <auto_pad="SAME_UPPER", strides=[2,2]> (x, w)', "N,3,7,8", (2, 3, 7, 8), {"w": _random(4, 3, 4, 3)}
    ),
    "lower": (
        'Conv <auto_pad="SAME_LOWER", strides=[2,2]> (x, w)', "N,3,7,8", (2, 3, 7, 8), {"w": _random(4, 3, 4, 3)}
    ),
    "valid": ('Conv <auto_pad="VALID"> (x, w)', "N,3,7,8", (2, 3, 7, 8), {"w": _random(4, 3, 4, 3)}),
    "one-dim": ("Conv <pads=[2,0]> (x, w)", "N,3,9", (2, 3, 9), {"w": _random(4, 3, 3)}),
    "volume": ("Conv <pads=[1,0,0,1,0,0]> (x, w)", "N,2,4,5,3", (2, 2, 4, 5, 3), {"w": _random(3, 2, 3, 2, 2)}),
    "transposed": ("ConvTranspose (x, w)", "N,4,5,6", (2, 4, 5, 6), {"w": _random(4, 3, 3, 3)}),
    "transposed-strided": (
        "ConvTranspose <strides=[2,3], pads=[1,0,1,2], output_padding=[1,0]> (x, w)",
        "N,4,5,6", (2, 4, 5, 6), {"w": _random(4, 3, 3, 4)},
    ),
    "transposed-grouped": (
        "ConvTranspose <group=2, strides=[2,2], dilations=[2,1]> (x, w)",
        "N,4,5,6", (2, 4, 5, 6), {"w": _random(4, 3, 3, 3)},
    ),
    "gemm": ("Gemm (x, w)", "N,6", (5, 6), {"w": _random(6, 4)}),
    "gemm-transposed": ("Gemm <transB=1> (x, w)", "N,6", (5, 6), {"w": _random(4, 6)}),
    "matmul": ("MatMul (x, w)", "N,3,6", (2, 3, 6), {"w": _random(6, 4)}),
}  # fmt: skip


def _layer(name: str) -> tuple[Layer, ir.Model, Array]:
    text, dims, shape, weights = CASES[name]
    model = parse(f"agraph (float[{dims}] x) => (float y) {{ [layer] y = {text} }}", weights)
    (layer,) = find_layers(model.graph)
    return layer, model, _random(*shape)


@pytest.mark.parametrize("name", CASES)
def test_rows_times_matrix_is_the_result(name: str) -> None:
    layer, model, x = _layer(name)
    y = run(model, {"x": x})[0]
    rows, matrix = layer.rows(x, y.shape), layer.matrix()
    assert matrix.shape == (layer.groups, layer.outputs, layer.columns)
    np.testing.assert_allclose(rows @ matrix.transpose(0, 2, 1), layer.results(y), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_some_positions_are_those_of_all(name: str) -> None:
    layer, model, x = _layer(name)
    y = run(model, {"x": x})[0]
    picks = np.sort(np.random.default_rng(0).choice(layer.positions(y.shape), 5, replace=False))
    assert np.array_equal(layer.rows(x, y.shape, picks), layer.rows(x, y.shape)[:, picks])
    assert np.array_equal(layer.results(y, picks), layer.results(y)[:, picks])


@pytest.mark.parametrize("name", CASES)
def test_a_matrix_goes_back_to_the_same_weight(name: str) -> None:
    layer, _, _ = _layer(name)
    assert np.array_equal(layer.from_matrix(layer.matrix()), layer.read())


@pytest.mark.parametrize("name", ["conv", "grouped", "matmul"])
def test_columns_of_a_channel_are_all_that_it_touches(name: str) -> None:
    layer, model, x = _layer(name)
    shape = run(model, {"x": x})[0].shape
    channel = 1
    other = x.copy()
    index: list[Any] = [slice(None)] * x.ndim
    index[layer.input_axis] = channel
    other[tuple(index)] += 1
    changed = np.flatnonzero((layer.rows(x, shape)[0] != layer.rows(other, shape)[0]).any(axis=0))
    assert set(changed.tolist()) == set(layer.columns_of(np.array([channel])).reshape(-1).tolist())


@pytest.mark.parametrize(
    "text",
    [
        "y = MatMul (w, x)",
        "y = Gemm <transA=1> (x, w)",
        "y = MatMul (x, x)",
        "y = ConvTranspose <output_shape=[9,9]> (x, k)",
        'y = ConvTranspose <auto_pad="SAME_UPPER"> (x, k)',
        "y = Relu (x)",
    ],
)
def test_what_is_no_layer(text: str) -> None:
    model = parse(
        f"agraph (float[4,4,4,4] x) => (float y) {{ {text} }}", {"w": _random(4, 4), "k": _random(4, 4, 3, 3)}
    )
    assert layer_of(model.graph[0]) is None


def test_half_precision_stays_half_precision() -> None:
    model = parse(
        "agraph (float16[N,4] x) => (float16[N,3] y) { y = MatMul (x, w) }", {"w": _random(4, 3).astype("f2")}
    )
    (layer,) = find_layers(model.graph)
    assert layer.matrix().dtype == np.float32
    assert layer.from_matrix(layer.matrix()).dtype == np.float16


def test_only_layers_that_read_the_same_rows_share_a_key() -> None:
    text = (
        "agraph (float[N,2,9,9] x) => (float a, float b, float c) { a = Conv (x, u) b = Conv (x, v) c = Conv (x, w) }"
    )
    kernels = {"u": _random(3, 2, 3, 3), "v": _random(4, 2, 3, 3), "w": _random(3, 2, 1, 9)}
    square, same, flat = find_layers(parse(text, kernels).graph)
    assert square.rows_key == same.rows_key != flat.rows_key
