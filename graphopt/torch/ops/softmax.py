"""Softmax, LogSoftmax, Hardmax: over one axis since opset 13, over all from an axis on before."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from graphopt.torch.registry import op

__all__: list[str] = []


def _flattened(function: Callable[..., Tensor], x: Tensor, axis: int) -> Tensor:
    axis = axis % x.ndim
    flat = x.flatten(axis) if axis < x.ndim else x.unsqueeze(-1)
    return function(flat, dim=-1).reshape(x.shape)


@op("Softmax")
def softmax_flat(x: Tensor, *, axis: int = 1) -> Tensor:
    return _flattened(torch.softmax, x, axis)


@op("Softmax", since=13)
def softmax(x: Tensor, *, axis: int = -1) -> Tensor:
    return torch.softmax(x, axis)


@op("LogSoftmax")
def log_softmax_flat(x: Tensor, *, axis: int = 1) -> Tensor:
    return _flattened(functools.partial(torch.log_softmax), x, axis)


@op("LogSoftmax", since=13)
def log_softmax(x: Tensor, *, axis: int = -1) -> Tensor:
    return torch.log_softmax(x, axis)


def _hardmax(x: Tensor, dim: int) -> Tensor:
    return F.one_hot(x.argmax(dim), x.shape[dim]).movedim(-1, dim).to(x.dtype)


@op("Hardmax")
def hardmax_flat(x: Tensor, *, axis: int = 1) -> Tensor:
    return _flattened(_hardmax, x, axis)


@op("Hardmax", since=13)
def hardmax(x: Tensor, *, axis: int = -1) -> Tensor:
    return _hardmax(x, axis)
