"""Weights in few bits: what is stored, what it stands for, and what ONNX Runtime makes of it."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from harness import parse
from quantization.examples import perceptron, rows, weights

import graphopt
from graphopt import runtime
from graphopt.pruning.layers import Layer, find_layers
from graphopt.quantization.blocks import Moments, gather, round_blocks
from graphopt.quantization.normalizing import normalize
from graphopt.quantization.weights import blocked, held, in_blocks, quantized


def layers(model: ir.Model) -> dict[str, Layer]:
    normalize(model)
    return {layer.name: layer for layer in find_layers(model.graph)}


@pytest.mark.parametrize("inputs", [32, 48, 7, 100])
@pytest.mark.parametrize(("bits", "most"), [(8, 1.01 / 255), (4, 1.01 / 15)])
def test_blocks_stand_for_what_the_kernel_computes(inputs: int, bits: int, most: float) -> None:
    """Multiplied with unit vectors, which rounding leaves alone, MatMulNBits gives the weight that it holds."""
    given = weights({"w": (inputs, 24)}, 0)
    model = parse(f"agraph (float[N,{inputs}] x) => (float[N,24] y) {{ [only] y = MatMul (x, w) }}", given)
    layer = layers(model)["only"]
    blocks = in_blocks(layer, bits)
    expected = held(layer, blocks)
    session = runtime.open_session(blocked(model, {layer: blocks}), threads=1)
    (found,) = session.run(None, {"x": np.eye(inputs, dtype=np.float32)})
    assert np.allclose(found, expected, atol=1e-6)
    spread = np.ptp(given["w"]) * most
    assert 0 < np.abs(expected - given["w"]).max() < spread


def test_transposed_weights_and_biases() -> None:
    model = perceptron()
    layer = layers(model)["second"]
    blocks = in_blocks(layer, 8)
    assert held(layer, blocks).shape == (40, 48)
    result = blocked(model, {layer: blocks})
    found = runtime.open_session(result, threads=1).run(None, {"x": rows()})[0]
    original = runtime.open_session(perceptron(), threads=1).run(None, {"x": rows()})[0]
    assert np.square(found - original).sum() < 1e-3 * np.square(original).sum()
    node = next(node for node in result.graph if node.op_type == "MatMulNBits")
    assert node.domain == "com.microsoft"
    assert result.opset_imports["com.microsoft"] == 1
    assert len(node.inputs) == 6
    assert node.inputs[3] is None


@pytest.mark.parametrize("bits", [4, 8])
def test_data_make_up_for_rounding(bits: int) -> None:
    """Correlated inputs that are not zero on average: what one weight loses, others and the bias can make up for."""
    random = np.random.default_rng(0)
    x = np.maximum(random.standard_normal((2000, 12)) @ random.standard_normal((12, 80)) + 1, 0).astype(np.float32)
    weight = weights({"w": (80, 40)}, 0)["w"].T
    moments = Moments(x.mean(0, dtype=np.float64), x.T.astype(np.float64) @ x / len(x))
    exact = x @ weight.T
    nearest, better = round_blocks(weight, bits), round_blocks(weight, bits, moments)
    assert nearest.shift is None
    assert better.shift is not None
    left = exact - x @ better.matrix(80).T - better.shift
    lost = np.square(exact - x @ nearest.matrix(80).T).mean()
    assert np.square(left).mean() < 0.2 * lost
    assert abs(left.mean(0)).max() < 1e-4


def test_gathers_what_layers_read() -> None:
    model = perceptron()
    found = layers(model)
    x = rows(100)
    batches = [{"x": x[:60]}, {"x": x[60:]}]
    moments = dict(gather(model, list(found.values()), batches, threads=1))
    first, second = moments[found["first"]], moments[found["second"]]
    assert first is not None
    assert second is not None
    assert np.allclose(first.mean, x.mean(0), atol=1e-5)
    assert np.allclose(first.products, x.T @ x / 100, atol=1e-4)
    assert second.products.shape == (48, 48)


@pytest.mark.parametrize("x", [np.zeros((0, 32)), np.full((4, 32), np.inf), np.full((4, 32), np.nan)])
def test_what_says_nothing(x: np.ndarray[tuple[int, int], np.dtype[np.float64]]) -> None:
    model = perceptron()
    layer = layers(model)["first"]
    assert dict(gather(model, [layer], [{"x": x.astype(np.float32)}], threads=1)) == {layer: None}


@pytest.mark.parametrize("data", [True, False])
def test_shared_weights_are_stored_once(data: bool) -> None:
    model = parse(
        """agraph (float[N,32] x) => (float[N,32] y) {
            [one] a = MatMul (x, w)
            [two] y = MatMul (a, w)
        }""",
        weights({"w": (32, 32)}, 0),
    )
    given = {"x": rows()} if data else None
    result = graphopt.quantize(model, given, scheme="weights-int4", max_error=0.1, samples=32, time=False, threads=1)
    assert sum(value.dtype == ir.DataType.UINT8 for value in result.graph.initializers.values()) == 2  # and zeros


def test_symmetric_integers() -> None:
    model = perceptron()
    layer = layers(model)["second"]
    contents, scale = quantized(layer)
    assert contents.dtype == np.int8
    assert scale.shape == (40, 1)
    assert np.abs(contents).max(1).min() == 127
    assert np.abs(contents * scale - layer.read()).max() <= 0.5001 * scale.max()
    contents, scale = quantized(layer, whole=True, levels=63)
    assert scale.shape == (1, 1)
    assert np.abs(contents).max() == 63


def test_channels_of_zeros() -> None:
    given = weights({"w": (32, 24)}, 0)
    given["w"][:, 3] = 0
    model = parse("agraph (float[N,32] x) => (float[N,24] y) { [only] y = MatMul (x, w) }", given)
    contents, scale = quantized(layers(model)["only"])
    assert (contents[:, 3] == 0).all()
    assert np.isfinite(scale).all()
    assert (scale > 0).all()
