"""Pad and CenterCropPad."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from graphopt.torch.registry import op
from graphopt.torch.values import Sizes, ints, number

__all__: list[str] = []


@op("Pad")
@op("Pad", since=2)
def pad_attributes(
    x: Tensor,
    *,
    pads: Sequence[int] = (),
    paddings: Sequence[int] = (),
    mode: str = "constant",
    value: float = 0.0,
) -> Tensor:
    return _pad(x, pads or paddings, range(x.ndim), mode, value)


@op("Pad", since=11)
def pad(
    x: Tensor, pads: Sizes, value: Tensor | None = None, axes: Sizes | None = None, *, mode: str = "constant"
) -> Tensor:
    places = range(x.ndim) if axes is None else [axis % x.ndim for axis in ints(axes)]
    fill: Any = 0
    if value is not None and mode == "constant" and value.numel():
        fill = number(value)
    return _pad(x, ints(pads), places, mode, fill)


def _pad(x: Tensor, pads: Sequence[int], axes: Sequence[int], mode: str, fill: Any) -> Tensor:
    half = len(pads) // 2
    both = {axis: (pads[place], pads[place + half]) for place, axis in enumerate(axes)}
    if mode == "constant":
        flat = [pad for axis in reversed(range(x.ndim)) for pad in both.get(axis, (0, 0))]
        while len(flat) > 2 and flat[-2:] == [0, 0]:
            del flat[-2:]
        if x.dtype == torch.bool:
            return F.pad(x.to(torch.uint8), flat, value=int(fill)).to(torch.bool)
        return F.pad(x, flat, value=fill)
    for axis, (begin, end) in both.items():
        if begin or end:
            x = x.index_select(axis, _places(x, axis, begin, end, mode))
    return x


def _places(x: Tensor, axis: int, begin: int, end: int, mode: str) -> Tensor:
    """Where the elements of the padded axis come from."""
    size = x.shape[axis]
    places = torch.arange(-begin, size + end, device=x.device)
    if mode == "edge":
        return places.clamp(0, size - 1)
    if mode == "wrap":
        return places % size
    period = max(1, 2 * (size - 1))
    folded = places % period
    return torch.where(folded >= size, period - folded, folded)


@op("CenterCropPad", since=18)
def center_crop_pad(x: Tensor, shape: Sizes, *, axes: Sequence[int] | None = None) -> Tensor:
    wanted = ints(shape)
    flat = [0] * (2 * x.ndim)
    for axis, size in zip(axes if axes is not None else range(x.ndim), wanted, strict=True):
        have = x.shape[axis]
        if have > size:
            x = x.narrow(axis, (have - size) // 2, size)
        else:
            before = (size - have) // 2
            place = 2 * (x.ndim - 1 - axis % x.ndim)
            flat[place], flat[place + 1] = before, size - have - before
    return F.pad(x, flat)
