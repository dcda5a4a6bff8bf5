"""Gradients are those of the network that was exported, and of the losses they are said to be."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from harness import parse
from zoo.architecture import export, randomize
from zoo.catalogue import ARCHITECTURES

import graphopt
import graphopt.torch as bridge
from graphopt.errors import UsageError
from graphopt.pruning.importance import CRITERIA, Evidence
from graphopt.torch.gradients import gradients

RANDOM = np.random.default_rng(0)
BY_NAME = {architecture.name: architecture for architecture in ARCHITECTURES}


def by_size(network: torch.nn.Module) -> dict[tuple[int, ...], list[torch.Tensor]]:
    """Gradients by the sorted shape of their parameter: exporters rename and transpose."""
    found: dict[tuple[int, ...], list[torch.Tensor]] = {}
    for parameter in network.parameters():
        if parameter.grad is not None:
            found.setdefault(tuple(sorted(parameter.shape)), []).append(parameter.grad)
    return found


@pytest.mark.parametrize(
    ("name", "least"),
    [("convnext", 8), ("groupnorm", 3), ("vit-fused-h3d", 6), ("bert", 10), ("swin", 10), ("llama", 8), ("gru", 1)],
)
def test_gradients_are_those_of_the_network(name: str, least: int) -> None:
    architecture = BY_NAME[name]
    model = export(architecture, "legacy")
    torch.manual_seed(0)
    network: Any = randomize(architecture.build(1.0))
    module = bridge.from_onnx(model)
    inputs = list(architecture.inputs())
    expected = network(*inputs)
    expected = expected[0] if isinstance(expected, tuple) else getattr(expected, "last_hidden_state", expected)
    given = dict(zip(module.input_names, inputs, strict=False))
    actual = module(**given)[0]
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)
    towards = torch.from_numpy(RANDOM.standard_normal(tuple(actual.shape)).astype(np.float32))
    (expected * towards).sum().backward()
    (actual * towards).sum().backward()
    theirs, compared = by_size(network), 0
    for parameter in module.parameters():
        if parameter.grad is None or parameter.ndim < 2:
            continue
        candidates = theirs.get(tuple(sorted(parameter.shape)), [])
        ways = [way for one in candidates for way in (one, one.mT) if way.shape == parameter.shape]
        if ways:
            scale = parameter.grad.abs().max()
            assert min(float((way - parameter.grad).abs().max()) for way in ways) <= 1e-4 * float(scale)
            compared += 1
    assert compared >= least


def classifier() -> Any:
    text = "agraph (float[N,4] x) => (float[N,3] y) { h = MatMul(x, w)  y = Add(h, b) }"
    arrays = {"w": RANDOM.standard_normal((4, 3)).astype(np.float32), "b": np.zeros(3, np.float32)}
    return parse(text, arrays)


def test_cross_entropy_against_labels() -> None:
    model = classifier()
    x, labels = RANDOM.standard_normal((5, 4)).astype(np.float32), np.array([0, 1, 2, 1, 0])
    (found,) = gradients(model, ["w", "b"], [{"x": x}], labels=[labels])
    logits = x @ model.graph.initializers["w"].const_value.numpy()
    chances = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    error = (chances - np.eye(3)[labels]) / 5
    np.testing.assert_allclose(found["b"], error.sum(0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found["w"], x.T @ error, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("loss", ["kl", "mse"])
def test_a_teacher_that_agrees_leaves_nothing_to_learn(loss: Any) -> None:
    model = classifier()
    x = RANDOM.standard_normal((5, 4)).astype(np.float32)
    own = x @ model.graph.initializers["w"].const_value.numpy()
    (found,) = gradients(model, ["w"], [{"x": x}], labels=[own], loss=loss)
    assert np.abs(found["w"]).max() < 1e-6
    (found,) = gradients(model, ["w"], [{"x": x}], labels=[own + [1, 0, 0]], loss=loss)  # noqa: RUF005
    assert np.abs(found["w"]).max() > 1e-3


def test_without_labels_the_mean_square_is_the_fisher_information() -> None:
    model = classifier()
    x = RANDOM.standard_normal((1, 4)).astype(np.float32)
    batches = [{"x": x}] * 6000
    squares = np.mean([np.square(one["b"]) for one in gradients(model, ["b"], batches)], 0)
    logits = (x @ model.graph.initializers["w"].const_value.numpy())[0]
    chances = np.exp(logits) / np.exp(logits).sum()
    np.testing.assert_allclose(squares, chances * (1 - chances), atol=0.02)


def test_regression_without_labels_moves_too() -> None:
    text = "agraph (float[N,4,2] x) => (float[N,4,3] y) { y = MatMul(x, w) }"
    model = parse(text, {"w": RANDOM.standard_normal((2, 3)).astype(np.float32)})
    (found,) = gradients(model, ["w"], [{"x": RANDOM.standard_normal((5, 4, 2)).astype(np.float32)}])
    assert np.abs(found["w"]).min() > 0


def test_same_seed_same_gradients() -> None:
    model, x = classifier(), RANDOM.standard_normal((5, 4)).astype(np.float32)
    first, again, other = (next(iter(gradients(model, ["w"], [{"x": x}], seed=seed)))["w"] for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_names_that_are_not_asked_for_or_do_not_matter_are_left_out() -> None:
    model, x = classifier(), RANDOM.standard_normal((5, 4)).astype(np.float32)
    (found,) = gradients(model, ["w", "nothing"], [{"x": x}])
    assert set(found) == {"w"}


def test_labels_must_fit_the_batches() -> None:
    with pytest.raises(UsageError, match="2 batches and labels for 1"):
        list(gradients(classifier(), ["w"], [{}, {}], labels=[np.zeros(1)]))


def test_the_hessian_diagonal_is_that_of_the_exact_hessian() -> None:
    text = """agraph (float[N,3] x) => (float[N,2] y) {
        h = MatMul(x, w)
        t = Tanh(h)
        y = MatMul(t, v)
    }"""
    arrays = {
        name: RANDOM.standard_normal(size).astype(np.float32) for name, size in {"w": (3, 4), "v": (4, 2)}.items()
    }
    x, labels = RANDOM.standard_normal((6, 3)).astype(np.float32), np.array([0, 1, 1, 0, 1, 0])
    probes = 1000
    (found,) = gradients(parse(text, arrays), ["w", "v"], [{"x": x}], labels=[labels], order=2, probes=probes)

    def loss(flat: torch.Tensor) -> torch.Tensor:
        logits = torch.tanh(torch.from_numpy(x) @ flat[:12].reshape(3, 4)) @ flat[12:].reshape(4, 2)
        return torch.nn.functional.cross_entropy(logits, torch.from_numpy(labels))

    weights = torch.from_numpy(np.concatenate([arrays["w"].ravel(), arrays["v"].ravel()]))
    exact = torch.autograd.functional.hessian(loss, weights).numpy()  # type: ignore[no-untyped-call]
    beside = exact - np.diag(exact.diagonal())
    spread = np.sqrt(np.square(beside).sum(1) / probes)  # the standard deviation of Hutchinson's estimate
    error = np.concatenate([found["w"].ravel(), found["v"].ravel()]) - exact.diagonal()
    assert np.abs(error / spread).max() < 4.5
    assert spread.max() < 0.1 * np.abs(exact.diagonal()).max()


def test_a_hessian_with_nothing_beside_its_diagonal_takes_one_probe() -> None:
    model = parse("agraph (float[N,3] x) => (float[N,3] y) { y = Mul(x, w) }", {"w": np.ones(3, np.float32)})
    x = RANDOM.standard_normal((5, 3)).astype(np.float32)
    (found,) = gradients(model, ["w"], [{"x": x}], labels=[np.zeros_like(x)], loss="mse", order=2, probes=1)
    np.testing.assert_allclose(found["w"], np.square(x).mean(0), rtol=1e-5)


@pytest.mark.parametrize("text", [
    "agraph (float[N,4,2] x) => (float[N,4,3] y) { y = MatMul(x, w) }",
    """<ir_version: 11, opset_import: ["" : 23]> agraph (float[N,2,4,2] x) => (float[N,2,4,3] y) {
        a = Attention(x, x, x)
        y = MatMul(a, w)
    }""",
])  # fmt: skip
def test_curvature_without_labels(text: str) -> None:
    model = parse(text, {"w": RANDOM.standard_normal((2, 3)).astype(np.float32)})
    x = RANDOM.standard_normal([5, 2, 4, 2] if "Attention" in text else [5, 4, 2]).astype(np.float32)
    (found,) = gradients(model, ["w"], [{"x": x}], order=2, probes=50)
    assert found["w"].mean() > 0


@pytest.mark.parametrize("criterion", ["taylor", "fisher", "hessian"])
def test_importance_by_gradients_spares_what_matters(criterion: str) -> None:
    text = """agraph (float[N,4] x) => (float[N,3] y) {
        h = Gemm<transB=1>(x, w, b)
        r = Relu(h)
        y = Gemm<transB=1>(r, v)
    }"""
    last = RANDOM.standard_normal((3, 8)).astype(np.float32)
    last[:, :4] *= 1e-3  # nobody would miss these
    arrays = {"w": RANDOM.standard_normal((8, 4)).astype(np.float32), "b": np.ones(8, np.float32), "v": last}
    model = parse(text, arrays)
    graph = graphopt.channels.analyze(model)
    batches = [{"x": RANDOM.standard_normal((16, 4)).astype(np.float32)} for _ in range(4)]
    (ranking,) = CRITERIA[criterion].rank(Evidence(graph, batches, gradients=gradients))
    assert set(ranking.order[:4]) == {unit.index for unit in ranking.group.units[:4]}
