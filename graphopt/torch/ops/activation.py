"""Activations (ONNX: Relu, Gelu, Elu, ...)."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from graphopt.torch.node import OpNode
from graphopt.torch.registry import builds, op

__all__: list[str] = []

for _name, _function in {
    "Relu": torch.relu,
    "Sigmoid": torch.sigmoid,
    "Softplus": F.softplus,
    "Softsign": F.softsign,
    "Tanh": torch.tanh,
    "Mish": F.mish,
    "HardSwish": F.hardswish,
}.items():
    builds(_name)(functools.partial(lambda function, node: function, _function))


@op("Elu")
def elu(x: Tensor, *, alpha: float = 1.0) -> Tensor:
    return F.elu(x, alpha)


@op("Celu")
def celu(x: Tensor, *, alpha: float = 1.0) -> Tensor:
    return F.celu(x, alpha)


@op("Selu")
def selu(x: Tensor, *, alpha: float = 1.67326319217681884765625, gamma: float = 1.05070102214813232421875) -> Tensor:
    return gamma * F.elu(x, alpha)


@op("LeakyRelu")
def leaky_relu(x: Tensor, *, alpha: float = 0.01) -> Tensor:
    return F.leaky_relu(x, alpha)


@op("ThresholdedRelu")
def thresholded_relu(x: Tensor, *, alpha: float = 1.0) -> Tensor:
    return torch.where(x > alpha, x, torch.zeros_like(x))


@op("HardSigmoid")
def hard_sigmoid(x: Tensor, *, alpha: float = 0.2, beta: float = 0.5) -> Tensor:
    if math.isclose(alpha, 1 / 6, rel_tol=1e-6) and beta == 0.5:
        return F.hardsigmoid(x)
    return torch.clamp(x * alpha + beta, 0, 1)


@op("Shrink")
def shrink(x: Tensor, *, bias: float = 0.0, lambd: float = 0.5) -> Tensor:
    zero = torch.zeros_like(x)
    return torch.where(x < -lambd, x + bias, torch.where(x > lambd, x - bias, zero)).to(x.dtype)


@op("Gelu", since=20)
@op("Gelu", domain="com.microsoft")
def gelu(x: Tensor, *, approximate: str = "none") -> Tensor:
    return F.gelu(x, approximate=approximate)


@op("Swish", since=24)
def swish(x: Tensor, *, alpha: float = 1.0) -> Tensor:
    return F.silu(x) if alpha == 1.0 else x * torch.sigmoid(alpha * x)


@op("PRelu")
def prelu(x: Tensor, slope: Tensor) -> Tensor:
    if slope.ndim < x.ndim and slope.ndim == 1 and x.ndim > 1 and slope.numel() == x.shape[1] != x.shape[-1]:
        slope = slope.reshape(-1, *[1] * (x.ndim - 2))  # before opset 7: one for each channel
    return torch.where(x < 0, x * slope, x)


@op("Clip")
@op("Clip", since=6)
def clip_to_attributes(x: Tensor, *, min: float | None = None, max: float | None = None) -> Tensor:  # noqa: A002
    return x if min is None and max is None else torch.clamp(x, min, max)


@builds("Clip", since=11)
def clip(node: OpNode) -> Callable[..., Tensor]:
    low, high = node.constant(1), node.constant(2)
    if (low is None) == node.given(1) or (high is None) == node.given(2):
        return _clip
    return functools.partial(
        _clip_to_numbers, low=None if low is None else low.item(), high=None if high is None else high.item()
    )


def _clip(x: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
    if low is not None:
        x = torch.maximum(x, low)
    return x if high is None else torch.minimum(x, high)


def _clip_to_numbers(x: Tensor, *_: Any, low: float | None, high: float | None) -> Tensor:
    if low == 0 and high is None:
        return torch.relu(x)
    if low is None and high is None:
        return x
    if low is not None and high is not None and low > high:
        return torch.full_like(x, high)
    return torch.clamp(x, low, high)
