"""Scales of quantized weights train, and those of biases follow."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
from harness import parse, run
from quantization.examples import convolutional, images, perceptron, rows

import graphopt.torch as bridge
from graphopt.distillation.rounding import rounded
from graphopt.torch.scales import followers

RANDOM = np.random.default_rng(0)

LAYER = """agraph (float[N,4] x) => (float[N,3] y) {
    xq = QuantizeLinear (x, xs, xz)
    xd = DequantizeLinear (xq, xs, xz)
    wd = DequantizeLinear<axis=1> (w, ws)
    bd = DequantizeLinear<axis=0> (b, bs)
    y = Gemm (xd, wd, bd)
}"""


def arrays() -> dict[str, Any]:
    scale, steps = np.float32(0.05), np.array([0.01, 0.02, 0.03], np.float32)
    return {
        "xs": np.array(scale),
        "xz": np.array(128, np.uint8),
        "w": RANDOM.integers(-127, 127, (4, 3)).astype(np.int8),
        "ws": steps,
        "b": RANDOM.integers(-1000, 1000, 3).astype(np.int32),
        "bs": scale * steps,
    }


def layer(text: str = LAYER, **replaced: Any) -> ir.Model:
    return parse(text, arrays() | replaced)


def held(model: ir.Model, name: str) -> Any:
    tensor = model.graph.initializers[name].const_value
    assert tensor is not None
    return tensor.numpy()


def trained(module: Any, steps: int = 30) -> None:
    x = torch.from_numpy(np.random.default_rng(1).standard_normal((64, 4)).astype(np.float32))
    wanted = x @ torch.tensor([[0.5, -0.2, 1.0], [0.2, 0.1, -0.5], [-0.4, 0.0, 0.2], [0.5, 0.5, 0.1]])
    optimizer = torch.optim.Adam(module.parameters(), 0.01)
    for _ in range(steps):
        optimizer.zero_grad()
        (module(x)[0] - wanted).square().mean().backward()
        optimizer.step()


def test_scales_of_biases_are_products_to_the_end() -> None:
    model = layer()
    module: Any = bridge.from_onnx(model, scales=True)
    trained(module)
    back = bridge.to_onnx(module, model)
    assert not np.allclose(held(back, "ws"), held(model, "ws"), rtol=0.02)
    np.testing.assert_allclose(held(back, "bs"), held(back, "xs") * held(back, "ws"), rtol=1e-6)
    for name in ("xs", "xz"):
        assert np.array_equal(held(back, name), held(model, name))
    x = RANDOM.standard_normal((16, 4)).astype(np.float32)
    np.testing.assert_allclose(module(torch.from_numpy(x))[0].detach(), run(back, {"x": x})[0], rtol=1e-5, atol=1e-5)


def test_nothing_changes_before_it_is_trained() -> None:
    model = layer()
    back = bridge.to_onnx(bridge.from_onnx(model, scales=True), model)
    for name, value in model.graph.initializers.items():
        assert back.graph.initializers[name].const_value is value.const_value


def test_scales_stay_unless_asked() -> None:
    model = layer()
    module: Any = bridge.from_onnx(model)
    trained(module)
    back = bridge.to_onnx(module, model)
    for name in ("xs", "ws", "bs"):
        assert np.array_equal(held(back, name), held(model, name))


SHARED = LAYER.replace("wd = DequantizeLinear<axis=1> (w, ws)", "wd = DequantizeLinear (w, xs)")
READ = LAYER.replace("float[N,3] y)", "float[N,3] y, float[4,3] z)").replace("y = Gemm", "z = Relu (wd)  y = Gemm")
FLOAT_INPUT = LAYER.replace("Gemm (xd,", "Gemm (x,")


@pytest.mark.parametrize(
    ("text", "replaced"),
    [
        (SHARED, {}),
        (READ, {}),
        (FLOAT_INPUT, {}),
        (LAYER, {"bs": np.array([1e-3, 2e-3, 3e-3], np.float32)}),
        (LAYER, {"bs": np.array(1e-3, np.float32)}),
    ],
    ids=["activations have it", "others read the weight", "a float input", "another scale", "one scale for all"],
)
def test_what_cannot_change_alone(text: str, replaced: dict[str, Any]) -> None:
    model = layer(text, **replaced)
    scale = next(node.inputs[1] for node in model.graph if node.outputs[0].name == "wd")
    assert scale is not None
    assert followers(scale) is None
    module: Any = bridge.from_onnx(model, scales=True)
    trained(module, 3)
    back = bridge.to_onnx(module, model)
    for name in ("xs", "bs"):
        assert np.array_equal(held(back, name), held(model, name))


@pytest.mark.parametrize(("made", "inputs"), [(perceptron, rows), (convolutional, images)])
def test_all_layers_of_quantized_networks_learn_theirs(made: Any, inputs: Any) -> None:
    model = rounded(made(), "static", {"x": inputs()}, threads=1).model
    module = bridge.from_onnx(model, scales=True)
    names = {name for name, _ in module.named_parameters()}
    weights = [value for value in model.graph.initializers.values() if value.dtype == ir.DataType.INT8 and value.uses()]
    matrices = [value for value in weights if value.shape is not None and len(value.shape) > 1]
    assert sum(name.endswith("_growth") for name in names) == len(matrices)
