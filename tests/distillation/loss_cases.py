"""Batches for the tests of losses, the formulas' building blocks in NumPy, and the check of gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from graphopt.distillation.batch import Batch, TopK
from graphopt.distillation.losses import Loss

Array: TypeAlias = npt.NDArray[np.float64]


def numbers(*shape: int, seed: int = 0, scale: float = 1.0) -> Array:
    return np.random.default_rng(seed).normal(size=shape) * scale


def softmax(logits: Array, temperature: float = 1.0) -> Array:
    powers = np.exp(logits / temperature - (logits / temperature).max(-1, keepdims=True))
    return np.asarray(powers / powers.sum(-1, keepdims=True))


def kl(target: Array, student: Array) -> float:
    """Of rows, batchmean."""
    return float((target * np.log(target / student)).sum() / len(target))


def batch(
    student: Array | Tensor,
    *teachers: Array | TopK,
    labels: npt.NDArray[np.generic] | None = None,
    weights: Sequence[float] | Array | None = None,
    mask: npt.NDArray[np.bool_] | None = None,
    ids: Sequence[int] | None = None,
) -> Batch:
    """One value, ``z``, of each model."""
    values = student if isinstance(student, Tensor) else torch.from_numpy(student)
    equal = [1 / max(len(teachers), 1)] * len(teachers)
    return Batch(
        student={"z": values},
        teachers=[{"z": one if isinstance(one, TopK) else torch.from_numpy(one)} for one in teachers],
        weights=torch.as_tensor(np.asarray(equal if weights is None else weights, np.float64)),
        labels=None if labels is None else torch.from_numpy(labels),
        ids=torch.as_tensor(range(len(values)) if ids is None else ids, dtype=torch.int64),
        mask=None if mask is None else torch.from_numpy(mask),
    )


def top(probabilities: Array, k: int, temperature: float) -> TopK:
    indices = np.argsort(-probabilities, -1)[..., :k]
    kept = np.take_along_axis(probabilities, indices, -1)
    return TopK(
        torch.from_numpy(kept), torch.from_numpy(indices), torch.from_numpy(1 - kept.sum(-1)), temperature=temperature
    )


def value(loss: Loss, given: Batch) -> float:
    return float(loss(given).detach())


def check_gradient(loss: Loss, given: Batch) -> None:
    """Compares the gradients of the student's value and of everything that is trained along with differences."""
    student = given.student["z"].clone().requires_grad_()

    def compute(first: Tensor, *_: Tensor) -> Tensor:
        seen = Batch({"z": first}, given.teachers, given.weights, given.labels, given.ids, given.mask)
        result = loss(seen)
        assert isinstance(result, Tensor)
        assert result.shape == ()
        return result

    loss.eval()
    inputs = student, *loss.parameters()
    many = sum(one.numel() for one in inputs) > 100  # then along random directions, not number by number
    assert torch.autograd.gradcheck(compute, inputs, eps=1e-6, atol=1e-6, fast_mode=many)
