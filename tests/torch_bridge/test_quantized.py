"""Quantized graphs train: rounding lets gradients through, clipping does not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from harness import parse, run

import graphopt.torch as bridge

RANDOM = np.random.default_rng(0)

PAIR = """agraph (float[N,4] x) => (float[N,4] y) {
    q = QuantizeLinear (x, scale, zero)
    y = DequantizeLinear (q, scale, zero)
}"""


@pytest.mark.parametrize("kind", [np.int8, np.uint8, np.int16, np.uint16])
def test_gradients_pass_inside_the_range_only(kind: Any) -> None:
    limits = np.iinfo(kind)
    zero = np.array(3, kind)
    model = parse(PAIR, {"scale": np.array(0.5, np.float32), "zero": zero})
    inside = [0.3, -1.4]
    outside = [(limits.max + 10) * 0.5, (limits.min - 10) * 0.5]
    x = torch.tensor([[*inside, *outside]], requires_grad=True)
    y = bridge.from_onnx(model)(x)[0]
    assert np.array_equal(y.detach().numpy(), run(model, {"x": x.detach().numpy()})[0])
    y.backward(torch.tensor([[1.0, 2.0, 3.0, 4.0]]))
    assert x.grad is not None
    assert x.grad.tolist() == [[1, 2, 0, 0]]


def test_a_scale_that_trains_gets_the_gradient_of_learned_step_sizes() -> None:
    model = parse(PAIR, {"scale": np.array(0.5, np.float32), "zero": np.array(0, np.int8)})
    module: Any = bridge.from_onnx(model, trainable="all")
    x = torch.tensor([[0.3, -1.4, 100.0, -100.0]])
    for place, expected in enumerate([1 - 0.6, -3 + 2.8, 127, -128]):
        module.zero_grad()
        module(x)[0][0, place].backward()
        assert module.scale.grad.item() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    ("axis", "scale", "opset"),
    [(0, np.array([0.1, 0.2], np.float32), 13), (1, np.array([[0.1, 0.2], [0.3, 0.4]], np.float32), 21)],
)
def test_scales_by_channel_and_by_block(axis: int, scale: Any, opset: int) -> None:
    blocks = "block_size=2, " if scale.ndim == 2 else ""
    text = f"""<ir_version: 10, opset_import: ["" : {opset}]> agraph (float[2,4] x) => (float[2,4] y) {{
        q = QuantizeLinear<{blocks}axis={axis}>(x, scale, zero)
        y = DequantizeLinear<{blocks}axis={axis}>(q, scale, zero)
    }}"""
    model = parse(text, {"scale": scale, "zero": np.full(scale.shape, 7, np.uint8)})
    x = torch.from_numpy(RANDOM.standard_normal((2, 4)).astype(np.float32)).requires_grad_()
    y = bridge.from_onnx(model)(x)[0]
    assert np.array_equal(y.detach().numpy(), run(model, {"x": x.detach().numpy()})[0])
    y.sum().backward()
    assert x.grad is not None
    inside = (x / torch.from_numpy(scale if scale.ndim == 1 else scale.repeat(2, 1)).reshape(2, -1)).round() >= -7
    torch.testing.assert_close(x.grad, inside.float())


def test_integers_that_someone_else_reads_stay_integers() -> None:
    text = """agraph (float[N,4] x) => (float[N,4] y, int8[N,4] q) {
        q = QuantizeLinear (x, scale, zero)
        y = DequantizeLinear (q, scale, zero)
    }"""
    model = parse(text, {"scale": np.array(0.5, np.float32), "zero": np.array(3, np.int8)})
    x = RANDOM.standard_normal((2, 4)).astype(np.float32)
    found = bridge.from_onnx(model)(torch.from_numpy(x))
    assert [one.dtype for one in found] == [torch.float32, torch.int8]
    for one, other in zip(run(model, {"x": x}), found, strict=True):
        assert np.array_equal(one, other.numpy())


def test_a_quantized_network_learns_and_onnx_runtime_agrees() -> None:
    text = """agraph (float[N,4] x) => (float[N,2] y) {
        xq = QuantizeLinear (x, xs, zero)
        xd = DequantizeLinear (xq, xs, zero)
        wq = QuantizeLinear (w, ws, zero)
        wd = DequantizeLinear (wq, ws, zero)
        m = MatMul (xd, wd)
        y = Add (m, b)
    }"""
    arrays = {
        "w": RANDOM.standard_normal((4, 2)).astype(np.float32) * 0.1,
        "b": np.zeros(2, np.float32),
        "xs": np.array(4 / 127, np.float32),
        "ws": np.array(2 / 127, np.float32),
        "zero": np.array(0, np.int8),
    }
    model = parse(text, arrays)
    module: Any = bridge.from_onnx(model)
    x = torch.from_numpy(RANDOM.standard_normal((64, 4)).astype(np.float32))
    wanted = x @ torch.tensor([[1.0, -0.5], [0.25, 1.5], [-1.0, 0.0], [0.5, 0.5]])
    assert {name for name, one in module.named_parameters() if one.requires_grad} == {"w", "b"}
    optimizer = torch.optim.Adam(module.parameters(), 0.05)
    losses = []
    for _ in range(100):
        optimizer.zero_grad()
        loss = (module(x)[0] - wanted).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.01 * losses[0]
    back = bridge.to_onnx(module, model)
    np.testing.assert_allclose(run(back, {"x": x.numpy()})[0], module(x)[0].detach(), rtol=1e-5, atol=1e-5)


INTEGERS = """agraph (float[N,4] x) => (float[N,3] y) {
    wd = DequantizeLinear<axis=1> (wq, ws, wz)
    bd = DequantizeLinear (bq, bs)
    m = MatMul (x, wd)
    y = Add (m, bd)
}"""


def integer_model(kind: Any = np.int8) -> Any:
    limits = np.iinfo(kind)
    arrays = {
        "wq": RANDOM.integers(limits.min, limits.max, (4, 3), endpoint=True).astype(kind),
        "ws": np.array([3, 4, 5], np.float32) / np.float32(limits.max - limits.min),
        "wz": np.array([1, 2, 3], kind) + kind((limits.max + limits.min) // 2),
        "bq": RANDOM.integers(-100_000, 100_000, 3).astype(np.int32),
        "bs": np.array(1e-5, np.float32),
    }
    return parse(INTEGERS, arrays)


@pytest.mark.parametrize("kind", [np.int8, np.uint8, np.int16])
def test_weights_in_integers_train_as_the_floats_they_stand_for(kind: Any) -> None:
    model = integer_model(kind)
    module: Any = bridge.from_onnx(model)
    assert {name for name, one in module.named_parameters() if one.requires_grad} == {"wq", "bq"}
    x = torch.from_numpy(RANDOM.standard_normal((64, 4)).astype(np.float32))
    np.testing.assert_allclose(module(x)[0].detach(), run(model, {"x": x.numpy()})[0], rtol=1e-6, atol=1e-5)
    untouched = bridge.to_onnx(module, model)
    for name, value in model.graph.initializers.items():
        assert untouched.graph.initializers[name].const_value is value.const_value
    wanted = x @ torch.tensor([[0.5, -0.25, 1.0], [0.25, 0.1, -0.5], [-0.4, 0.0, 0.2], [0.5, 0.5, 0.1]])
    optimizer = torch.optim.Adam(module.parameters(), 0.02)
    losses = []
    for _ in range(200):
        optimizer.zero_grad()
        loss = (module(x)[0] - wanted).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.05 * losses[0]
    back = bridge.to_onnx(module, model)
    assert back.graph.initializers["wq"].dtype == model.graph.initializers["wq"].dtype
    np.testing.assert_allclose(run(back, {"x": x.numpy()})[0], module(x)[0].detach(), rtol=1e-5, atol=1e-5)


def test_every_integer_finds_back() -> None:
    for kind in (np.int8, np.uint8, np.int16, np.uint16):
        limits = np.iinfo(kind)
        every = np.arange(limits.min, limits.max + 1).astype(kind)
        text = (
            f"agraph (float[{len(every)}] x) => (float[{len(every)}] y) {{ d = DequantizeLinear(q, s) y = Add(x, d) }}"
        )
        for scale in RANDOM.uniform(1e-4, 1, 5).astype(np.float32):
            model = parse(text, {"q": every, "s": np.asarray(scale)})
            module: Any = bridge.from_onnx(model)
            assert np.array_equal(module.stored("q").numpy(), every)


@pytest.mark.parametrize("policy", ["none", lambda value: value.name == "bq"])
def test_policy_holds_for_integers_too(policy: Any) -> None:
    module: Any = bridge.from_onnx(integer_model(), trainable=policy)
    assert {name for name, one in module.named_parameters() if one.requires_grad} == (
        set() if policy == "none" else {"bq"}
    )


def test_integers_that_several_read_stay_as_they_are() -> None:
    text = """agraph (float[N,4] x) => (float[N,4] y) {
        a = DequantizeLinear (q, s)
        b = DequantizeLinear (q, t)
        m = Mul (x, a)
        y = Add (m, b)
    }"""
    arrays = {"q": np.arange(4).astype(np.int8), "s": np.array(0.5, np.float32), "t": np.array(0.25, np.float32)}
    assert not list(bridge.from_onnx(parse(text, arrays)).parameters())


def test_quantized_statistics_are_no_weights() -> None:
    text = """agraph (float[N,3,2,2] x) => (float[N,3,2,2] y) {
        variance = DequantizeLinear (q, s)
        y = BatchNormalization (x, scale, bias, mean, variance)
    }"""
    vectors = {name: np.ones(3, np.float32) for name in ("scale", "bias", "mean")}
    module: Any = bridge.from_onnx(
        parse(text, {"q": np.array([1, 2, 3], np.int8), "s": np.array(0.5, np.float32), **vectors})
    )
    assert {name for name, _ in module.named_parameters()} == {"scale", "bias"}
    module(torch.ones(1, 3, 2, 2))[0].sum().backward()


def test_weights_can_start_between_their_integers() -> None:
    model = integer_model()
    module: Any = bridge.from_onnx(model)
    before = module.wq.detach().clone()
    step = torch.tensor(model.graph.initializers["ws"].const_value.numpy())
    finer = before + 0.4 * step * torch.tensor([[1.0], [-1.0], [1.0], [4.0]])  # the last row is nearer to others
    module.refine({"wq": finer.numpy(), "bq": np.zeros(9, np.float32), "nobody": np.zeros(3, np.float32)})
    assert torch.equal(module.wq[:3], finer[:3])
    assert torch.equal(module.wq[3], before[3])
    untouched = bridge.to_onnx(module, model)
    for name, value in model.graph.initializers.items():
        assert untouched.graph.initializers[name].const_value is value.const_value


@pytest.mark.parametrize(("kind", "least", "greatest"), [(np.int8, -64, 64), (np.uint8, 0, 127)])
def test_weights_of_seven_bits_stay_such(kind: Any, least: int, greatest: int) -> None:
    arrays = {
        "wq": RANDOM.integers(least, greatest, (4, 3), endpoint=True).astype(kind),
        "ws": np.array([3, 4, 5], np.float32) / 128,
        "wz": np.full(3, 0, kind),
        "bq": np.zeros(3, np.int32),
        "bs": np.array(1e-5, np.float32),
    }
    model = parse(INTEGERS, arrays)
    module: Any = bridge.from_onnx(model)
    with torch.no_grad():
        module.wq.copy_(torch.tensor([[9.0], [-9.0], [9.0], [-9.0]]).expand(4, 3))
    back = bridge.to_onnx(module, model)
    held = back.graph.initializers["wq"].const_value.numpy()
    assert (held.min(), held.max()) == (least, greatest)
    x = RANDOM.standard_normal((8, 4)).astype(np.float32)
    np.testing.assert_allclose(module(torch.from_numpy(x))[0].detach(), run(back, {"x": x})[0], rtol=1e-5, atol=1e-5)
