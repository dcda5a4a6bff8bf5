"""Weights go back by name; what did not change stays the very tensor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
from harness import feeds, parse, run

import graphopt
import graphopt.torch as bridge
from graphopt.errors import ModelError

RANDOM = np.random.default_rng(0)
SHIPPED = ["silero_vad_16k_op15", "ppocrv2_cls", "light_squeezenet", "thai_deepcut"]


def model_of(dtype: Any = np.float32) -> ir.Model:
    kind = {np.float16: "float16", np.float64: "double"}.get(dtype, "float")
    text = f"agraph ({kind}[N,4] x) => ({kind}[N,2] y) {{ h = MatMul(x, w)  r = Relu(h)  y = MatMul(r, v) }}"
    return parse(
        text, {name: RANDOM.standard_normal(s).astype(dtype) for name, s in {"w": (4, 3), "v": (3, 2)}.items()}
    )


@pytest.mark.parametrize("name", SHIPPED)
def test_an_untrained_module_gives_back_the_very_tensors(name: str, models: Path) -> None:
    model = graphopt.load(models / f"{name}.onnx")
    back = bridge.to_onnx(bridge.from_onnx(model), model)
    assert back is not model
    for key, value in model.graph.initializers.items():
        assert back.graph.initializers[key].const_value is value.const_value
    assert len(list(back.graph)) == len(list(model.graph))


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.float64])
def test_only_what_changed_is_written(dtype: Any) -> None:
    model = model_of(dtype)
    module: Any = bridge.from_onnx(model)
    with torch.no_grad():
        module.v.mul_(2)
    back = bridge.to_onnx(module, model)
    assert back.graph.initializers["w"].const_value is model.graph.initializers["w"].const_value
    tensor = back.graph.initializers["v"].const_value
    assert tensor is not None
    assert tensor.dtype == model.graph.initializers["v"].dtype
    np.testing.assert_array_equal(tensor.numpy(), 2 * model.graph.initializers["v"].const_value.numpy())  # type: ignore[union-attr]


def test_a_step_of_training_then_onnx_runtime_agrees() -> None:
    model = model_of()
    module: Any = bridge.from_onnx(model)
    inputs = feeds(model)
    optimizer = torch.optim.SGD(module.parameters(), 0.1)
    module.named(inputs)["y"].square().mean().backward()
    optimizer.step()
    back = bridge.to_onnx(module, model)
    expected = module.named(inputs)["y"].detach().numpy()
    np.testing.assert_allclose(run(back, inputs)[0], expected, rtol=1e-5, atol=1e-6)
    assert np.abs(run(model, inputs)[0] - expected).max() > 1e-3


def test_the_model_computes_in_its_own_type_whatever_the_module_does() -> None:
    model = model_of()
    back = bridge.to_onnx(bridge.from_onnx(model).half(), model)
    tensor = back.graph.initializers["w"].const_value
    assert tensor is not None
    assert tensor.dtype == ir.DataType.FLOAT


def test_constant_nodes_hold_weights_too() -> None:
    text = "agraph (float[N,2] x) => (float[N,2] y) { w = Constant<value_floats=[1.0, 2.0]>()  y = Mul(x, w) }"
    model = parse(text)
    module: Any = bridge.from_onnx(model)
    with torch.no_grad():
        module.w.fill_(7)
    assert run(bridge.to_onnx(module, model), {"x": np.ones((1, 2), np.float32)})[0].tolist() == [[7, 7]]
    assert run(model, {"x": np.ones((1, 2), np.float32)})[0].tolist() == [[1, 2]]


FUNCTIONS = """<ir_version: 10, opset_import: ["" : 21, "local" : 1]>
agraph (float[N,2] x, bool c) => (float[N,2] y) {
    w = Constant<value_floats=[1.0, 2.0]>()
    a = local.scaled(x)
    b = Mul(a, w)
    d = local.scaled(b)
    y = If(c) <
        then_branch = one () => (float[N,2] e) { e = local.twice(d) },
        else_branch = two () => (float[N,2] f) { f = Identity(d) }
    >
}
<opset_import: ["" : 21, "local" : 1], domain: "local">
scaled (a) => (b) { w = Constant<value_floats=[3.0, 4.0]>()  b = Mul(a, w) }
<opset_import: ["" : 21, "local" : 1], domain: "local">
twice (a) => (b) { c = local.scaled(a)  w = Constant<value_floats=[5.0, 6.0]>()  b = Add(c, w) }"""


def test_constants_of_functions_train_as_one_wherever_they_are_called() -> None:
    model = parse(FUNCTIONS)
    module: Any = bridge.from_onnx(model)
    assert sorted(one.tolist() for one in module.parameters()) == [[1, 2], [3, 4], [5, 6]]
    x, yes = torch.ones(1, 2), torch.tensor(True)
    module(x, yes)[0].sum().backward()
    shared = next(one for one in module.parameters() if one[0] == 3)
    assert shared.grad.tolist() == [3 * 3**2, 3 * 2 * 4**2]
    with torch.no_grad():
        for one in module.parameters():
            one.add_(1)
    back = bridge.to_onnx(module, model)
    assert len(back.functions) == 2
    for which in (True, False):
        expected = module(x, torch.tensor(which))[0].detach().numpy()
        assert np.array_equal(run(back, {"x": x.numpy(), "c": np.array(which)})[0], expected)


def test_another_model_is_refused() -> None:
    module: Any = bridge.from_onnx(model_of())
    other = model_of()
    other.graph.initializers["v"].name = "elsewhere"
    with pytest.raises(ModelError, match="no constant 'v'"):
        bridge.to_onnx(module, other)
    text = "agraph (float[N,4] x) => (float[N,5] y) { h = MatMul(x, w)  y = MatMul(h, v) }"
    wider = parse(text, {"w": np.zeros((4, 3), np.float32), "v": np.zeros((3, 5), np.float32)})
    with pytest.raises(ModelError, match=r"'v' has the shape \[3, 5\] in the model and \[3, 2\]"):
        bridge.to_onnx(module, wider)
