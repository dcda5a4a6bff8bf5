"""What torch offers for modules works for graphs: compilation, transforms, mixed precision, many processes, devices."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from harness import parse
from torch import Tensor
from zoo.architecture import export
from zoo.catalogue import ARCHITECTURES
from zoo.checks import feeds

import graphopt
import graphopt.torch as bridge

BY_NAME = {architecture.name: architecture for architecture in ARCHITECTURES}
RANDOM = np.random.default_rng(0)


def loaded(name: str, exporter: str = "legacy") -> tuple[Any, dict[str, Tensor]]:
    model = export(BY_NAME[name], exporter)
    inputs = {key: torch.from_numpy(np.asarray(array)) for key, array in feeds(model).items()}
    return bridge.from_onnx(model), inputs


def weights(**shapes: tuple[int, ...]) -> dict[str, Any]:
    return {name: RANDOM.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def loss(outputs: Any) -> Tensor:
    total = torch.zeros(())
    for one in outputs:
        if one.is_floating_point():
            total = total + one.float().square().mean()
    return total


def gradients(module: Any, value: Tensor) -> dict[str, Tensor]:
    named = {name: one for name, one in module.named_parameters() if one.requires_grad}
    found = torch.autograd.grad(value, list(named.values()), allow_unused=True)
    return {name: one for name, one in zip(named, found, strict=True) if one is not None}


def assert_close(actual: dict[str, Tensor], expected: dict[str, Tensor], share: float) -> None:
    """Every tensor within a share of its largest element."""
    assert actual.keys() == expected.keys()
    for name, one in expected.items():
        assert (actual[name] - one).detach().abs().max() <= share * one.detach().abs().max(), name


@pytest.mark.parametrize("exporter", ["legacy", "dynamo"])
@pytest.mark.parametrize(
    "name",
    [
        pytest.param("resnet-basic", marks=pytest.mark.slow),
        pytest.param("bert", marks=pytest.mark.slow),
        "lstm",
        pytest.param("swin", marks=pytest.mark.slow),
        pytest.param("gpt2", marks=pytest.mark.slow),
        pytest.param("llama", marks=pytest.mark.slow),
        pytest.param("t5", marks=pytest.mark.slow),
        pytest.param("gru", marks=pytest.mark.slow),
    ],
)
def test_compiles_into_one_graph_with_the_same_gradients(name: str, exporter: str) -> None:
    module, inputs = loaded(name, exporter)
    expected = gradients(module, loss(module(**inputs)))
    torch._dynamo.reset()
    compiled: Any = torch.compile(module, backend="aot_eager", fullgraph=True)
    assert_close(gradients(module, loss(compiled(**inputs))), expected, 1e-5)


@pytest.mark.parametrize("name", ["resnet-basic", "bert"])
def test_bfloat16_by_autocast(name: str) -> None:
    module, inputs = loaded(name)
    exact = loss(module(**inputs))
    with torch.autocast("cpu", torch.bfloat16):
        outputs = module(**inputs)
    half = loss(outputs)
    assert half.item() == pytest.approx(exact.item(), rel=2e-2)
    assert half.item() != exact.item()
    found, expected = gradients(module, half), gradients(module, exact)
    assert {one.dtype for one in found.values()} == {torch.float32}
    alike = [torch.cosine_similarity(found[name].flatten(), one.flatten(), 0) for name, one in expected.items()]
    assert float(torch.stack(alike).median()) > 0.99


def test_gradients_sample_by_sample() -> None:
    text = """agraph (float[N,3,8,8] x) => (float[N,5] y) {
        c = Conv<pads=[1,1,1,1]>(x, w)
        b = BatchNormalization(c, scale, bias, mean, variance)
        r = Relu(b)
        p = GlobalAveragePool(r)
        s = Shape(p)
        n = Gather(s, zero)
        first = Unsqueeze(n, zeros)
        target = Concat<axis=0>(first, rest)
        f = Reshape(p, target)
        y = Gemm<transB=1>(f, v)
    }"""
    arrays = weights(w=(4, 3, 3, 3), scale=(4,), bias=(4,), mean=(4,), v=(5, 4))
    sizes = {"zero": np.array(0), "zeros": np.array([0]), "rest": np.array([-1])}
    module: Any = bridge.from_onnx(parse(text, {**arrays, "variance": np.ones(4, np.float32), **sizes}))
    x = torch.from_numpy(RANDOM.standard_normal((6, 3, 8, 8)).astype(np.float32))
    parameters = dict(module.named_parameters())

    def of_one(weights: dict[str, Tensor], sample: Tensor) -> Tensor:
        return loss(torch.func.functional_call(module, weights, (sample[None],)))

    each = torch.func.vmap(torch.func.grad(of_one), (None, 0))(parameters, x)
    for number, sample in enumerate(x):
        expected = gradients(module, loss(module(sample[None])))
        assert_close({name: one[number] for name, one in each.items()}, expected, 1e-5)


def test_transforms_of_an_exported_network() -> None:
    module, inputs = loaded("bert")
    parameters = dict(module.named_parameters())

    def value(weights: dict[str, Tensor]) -> Tensor:
        return loss(torch.func.functional_call(module, weights, (), inputs))

    assert_close(torch.func.grad(value)(parameters), gradients(module, loss(module(**inputs))), 1e-5)
    tangents = {name: torch.randn_like(one) for name, one in parameters.items()}
    slope = torch.func.jvp(value, (parameters,), (tangents,))[1]
    expected = sum(float((one * tangents[name]).sum()) for name, one in torch.func.grad(value)(parameters).items())
    assert float(slope.detach()) == pytest.approx(expected, rel=1e-3)


WORKER = """
import sys
import torch
import graphopt.torch as bridge

folder, rank = sys.argv[1], int(sys.argv[2])
torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
module = torch.nn.parallel.DistributedDataParallel(bridge.from_onnx(f"{folder}/model.onnx"))
x = torch.load(f"{folder}/x.pt")[rank::2]
optimizer = torch.optim.SGD(module.parameters(), 0.1)
for _ in range(3):
    optimizer.zero_grad()
    module(x)[0].square().mean().backward()
    optimizer.step()
torch.save(module.module.state_dict(), f"{folder}/{rank}.pt")
torch.distributed.destroy_process_group()
"""


@pytest.mark.slow
def test_two_processes_learn_what_one_does(tmp_path: Path) -> None:
    text = "agraph (float[N,4] x) => (float[N,2] y) { h = MatMul(x, w)  r = Tanh(h)  y = MatMul(r, v) }"
    arrays = {
        name: RANDOM.standard_normal(size).astype(np.float32) for name, size in {"w": (4, 3), "v": (3, 2)}.items()
    }
    model = parse(text, arrays)
    x = torch.from_numpy(RANDOM.standard_normal((8, 4)).astype(np.float32))
    graphopt.save(model, tmp_path / "model.onnx")
    torch.save(x, tmp_path / "x.pt")
    workers = [subprocess.Popen([sys.executable, "-c", WORKER, str(tmp_path), str(rank)]) for rank in range(2)]
    assert [worker.wait(120) for worker in workers] == [0, 0]
    module: Any = bridge.from_onnx(model)
    optimizer = torch.optim.SGD(module.parameters(), 0.1)
    for _ in range(3):
        optimizer.zero_grad()
        module(x)[0].square().mean().backward()
        optimizer.step()
    for rank in range(2):
        assert_close(torch.load(tmp_path / f"{rank}.pt"), module.state_dict(), 1e-5)
    assert not np.allclose(module.w.detach(), arrays["w"])


@pytest.mark.cuda
@pytest.mark.parametrize("name", ["resnet-basic", "bert", "llama", "swin", "gru"])
def test_a_step_on_a_gpu_waits_for_nothing(name: str) -> None:
    module, inputs = loaded(name)
    expected = gradients(module, loss(module(**inputs)))
    module.to("cuda")
    there = {key: one.cuda() for key, one in inputs.items()}
    gradients(module, loss(one.cpu() for one in module(**there)))  # libraries are loaded, and whatever asks the device
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        outputs = [one.square().mean() for one in module(**there) if one.is_floating_point()]
        found = gradients(module, torch.stack(outputs).sum())
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert_close({key: one.cpu() for key, one in found.items()}, expected, 1e-3)
