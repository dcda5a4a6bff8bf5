"""Reading at computed places: Gather, GatherElements, GatherND, Compress, ..."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from graphopt.torch.node import OpNode
from graphopt.torch.registry import builds, op

__all__ = ["positive"]


def positive(indices: Tensor, size: int) -> Tensor:
    """Indices counted from the start; negative ones count from the end."""
    return torch.where(indices < 0, indices + size, indices)


@builds("Gather")
def gather(node: OpNode) -> Callable[..., Tensor]:
    axis = node.attribute("axis", 0)
    fixed = node.constant(1)
    if fixed is not None and fixed.ndim == 0:
        return functools.partial(_select, axis=axis, index=int(fixed.item()))
    if fixed is not None and fixed.ndim == 1 and fixed.numel() == 1:
        return functools.partial(_select_one, axis=axis, index=int(fixed.item()))
    return functools.partial(_gather, axis=axis, negative=fixed is None or bool((fixed < 0).any()))


def _select(x: Tensor, indices: Tensor, *, axis: int, index: int) -> Tensor:
    return x.select(axis, index)


def _select_one(x: Tensor, indices: Tensor, *, axis: int, index: int) -> Tensor:
    return x.select(axis, index).unsqueeze(axis)


def _gather(x: Tensor, indices: Tensor, *, axis: int, negative: bool) -> Tensor:
    if negative:
        indices = positive(indices, x.shape[axis])
    if x.ndim == 2 and axis == 0 and x.is_floating_point():
        return F.embedding(indices, x)
    axis = axis % x.ndim
    picked = x.index_select(axis, indices.reshape(-1))
    return picked.reshape(*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :])


@op("GatherElements", since=11)
def gather_elements(x: Tensor, indices: Tensor, *, axis: int = 0) -> Tensor:
    return x.gather(axis, positive(indices.to(torch.int64), x.shape[axis]))


@op("GatherND", since=11)
def gather_nd(x: Tensor, indices: Tensor, *, batch_dims: int = 0) -> Tensor:
    depth = indices.shape[-1]
    batch = x.shape[:batch_dims]
    count = math.prod(batch)
    x = x.reshape(count, *x.shape[batch_dims:])
    places = indices.reshape(count, *indices.shape[batch_dims:]).to(torch.int64)
    rows = torch.arange(count, device=x.device).reshape(-1, *[1] * (places.ndim - 2))
    picked = x[(rows, *(positive(places[..., axis], x.shape[1 + axis]) for axis in range(depth)))]
    return picked.reshape(*batch, *picked.shape[1:])


@op("Compress", since=9)
def compress(x: Tensor, condition: Tensor, *, axis: int | None = None) -> Tensor:
    if axis is None:
        x, axis = x.reshape(-1), 0
    return x.index_select(axis, condition.nonzero().reshape(-1))


@op("ArrayFeatureExtractor", domain="ai.onnx.ml")
def array_feature_extractor(x: Tensor, indices: Tensor) -> Tensor:
    picked = x.index_select(-1, indices.reshape(-1))
    return picked if x.ndim > 1 else picked.unsqueeze(0)
