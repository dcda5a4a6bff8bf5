"""Slice: by attributes before opset 10, by inputs since."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from graphopt.torch.registry import op
from graphopt.torch.values import Sizes, ints

__all__: list[str] = []

_FAR = (1 << 31) - 1


@op("Slice")
def slice_attributes(
    x: Tensor, *, starts: Sequence[int], ends: Sequence[int], axes: Sequence[int] | None = None
) -> Tensor:
    return _slice(x, starts, ends, axes if axes is not None else range(len(starts)), [1] * len(starts))


@op("Slice", since=10)
def slice_inputs(
    x: Tensor, starts: Sizes, ends: Sizes, axes: Sizes | None = None, steps: Sizes | None = None
) -> Tensor:
    begins = ints(starts)
    return _slice(
        x,
        begins,
        ints(ends),
        ints(axes) if axes is not None else range(len(begins)),
        ints(steps) if steps is not None else [1] * len(begins),
    )


def _slice(x: Tensor, starts: Sequence[int], ends: Sequence[int], axes: Sequence[int], steps: Sequence[int]) -> Tensor:
    for begin, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        x = _forward(x, axis, begin, end, step) if step > 0 else _backward(x, axis, begin, end, step)
    return x


def _forward(x: Tensor, axis: int, begin: int, end: int, step: int) -> Tensor:
    if step == 1 and isinstance(begin, int) and begin == 0 and isinstance(end, int) and end >= _FAR:
        return x
    index: list[slice] = [slice(None)] * (axis % x.ndim)
    return x[(*index, slice(begin, end, step))]


def _backward(x: Tensor, axis: int, begin: int, end: int, step: int) -> Tensor:
    size = x.shape[axis]
    begin = min(begin + size if begin < 0 else begin, size - 1)
    end = max(end + size if end < 0 else end, -1)
    if begin == size - 1 and end == -1 and step == -1:
        return x.flip(axis)
    return x.index_select(axis, torch.arange(begin, end, step, device=x.device) if begin > end else _nothing(x))


def _nothing(x: Tensor) -> Tensor:
    return torch.zeros(0, dtype=torch.int64, device=x.device)
