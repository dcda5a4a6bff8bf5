"""TopK, NonZero, OneHot, Unique, NonMaxSuppression."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import Tensor

from graphopt.torch.node import OpNode
from graphopt.torch.ops.gathering import positive
from graphopt.torch.registry import builds, op
from graphopt.torch.values import Sizes, ints, number

__all__: list[str] = []


@op("TopK")
def top_k_attribute(x: Tensor, *, axis: int = -1, k: int) -> tuple[Tensor, Tensor]:
    return _top_k(x, k, axis, largest=True)


@op("TopK", since=10)
def top_k(x: Tensor, k: Sizes, *, axis: int = -1, largest: int = 1, sorted: int = 1) -> tuple[Tensor, Tensor]:  # noqa: A002
    return _top_k(x, ints(k)[0], axis, largest=bool(largest))


def _top_k(x: Tensor, k: int, axis: int, *, largest: bool) -> tuple[Tensor, Tensor]:
    """Of equal elements the first come first, which torch.topk does not promise."""
    values, indices = torch.sort(x, dim=axis, descending=largest, stable=True)
    return values.narrow(axis, 0, k), indices.narrow(axis, 0, k)


@op("NonZero", since=9)
def non_zero(x: Tensor) -> Tensor:
    return x.nonzero().t()


@op("OneHot", since=9)
def one_hot(indices: Tensor, depth: Sizes, values: Tensor, *, axis: int = -1) -> Tensor:
    count = int(number(depth))
    places = positive(indices.to(torch.int64), count).unsqueeze(axis)
    shape = [1] * places.ndim
    shape[axis] = count
    hot = places == torch.arange(count, device=indices.device).reshape(shape)
    return torch.where(hot, values[1], values[0])


@builds("Unique", since=11)
def unique(node: OpNode) -> Callable[..., tuple[Tensor, ...]]:
    return functools.partial(_unique, axis=node.attribute("axis"), ordered=bool(node.attribute("sorted", 1)))


def _unique(x: Tensor, *, axis: int | None, ordered: bool) -> tuple[Tensor, ...]:
    if axis is None:
        x, axis = x.reshape(-1), 0
    values, inverse, counts = torch.unique(x, sorted=True, return_inverse=True, return_counts=True, dim=axis)
    size = values.shape[axis]
    first = torch.full((size,), inverse.numel(), dtype=torch.int64, device=x.device)
    first = first.scatter_reduce(0, inverse, torch.arange(inverse.numel(), device=x.device), "amin")
    if not ordered:
        order = torch.argsort(first)
        values, first, counts = values.index_select(axis, order), first[order], counts[order]
        inverse = torch.argsort(order)[inverse]
    return values, first, inverse, counts


@builds("NonMaxSuppression", since=10, sizes=(2,))
def non_max_suppression(node: OpNode) -> Callable[..., Tensor]:
    return functools.partial(_suppress, centred=bool(node.attribute("center_point_box", 0)))


def _suppress(
    boxes: Tensor,
    scores: Tensor,
    most: Sizes | None = None,
    overlap: Tensor | None = None,
    threshold: Tensor | None = None,
    *,
    centred: bool,
) -> Tensor:
    count = 0 if most is None else ints(most)[0]
    limit = 0.0 if overlap is None else float(number(overlap))
    least = None if threshold is None else float(number(threshold))
    found: list[tuple[int, int, int]] = []
    for batch in range(scores.shape[0]):
        corners = _corners(boxes[batch], centred)
        for kind in range(scores.shape[1]):
            kept = _kept(corners, scores[batch, kind], count, limit, least)
            found.extend((batch, kind, place) for place in kept)
    return torch.tensor(found, dtype=torch.int64, device=boxes.device).reshape(-1, 3)


def _corners(boxes: Tensor, centred: bool) -> Tensor:
    if centred:
        middle, half = boxes[:, :2], boxes[:, 2:] / 2
        return torch.cat([middle - half, middle + half], 1)
    return torch.cat([torch.minimum(boxes[:, :2], boxes[:, 2:]), torch.maximum(boxes[:, :2], boxes[:, 2:])], 1)


def _kept(corners: Tensor, scores: Tensor, count: int, limit: float, least: float | None) -> list[int]:
    order = torch.argsort(scores, descending=True, stable=True)
    if least is not None:
        order = order[scores[order] > least]
    kept: list[int] = []
    while order.numel() and len(kept) < count:
        best, rest = order[0], order[1:]
        kept.append(int(best))
        low = torch.maximum(corners[best, :2], corners[rest, :2])
        high = torch.minimum(corners[best, 2:], corners[rest, 2:])
        common = (high - low).clamp(min=0).prod(1)
        areas = (corners[:, 2:] - corners[:, :2]).prod(1)
        joint = areas[best] + areas[rest] - common
        order = rest[~((common / joint) > limit)]
    return kept
