"""Rows, channels and sizes of the tensors that losses compare."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from graphopt.errors import UsageError

__all__ = ["channels_first", "class_axis", "pooled", "row_mean", "rows", "spread", "wide"]

_POOL: Final[Mapping[int, Callable[[Tensor, list[int]], Tensor]]] = {
    1: lambda value, size: F.adaptive_avg_pool1d(value, size),
    2: lambda value, size: F.adaptive_avg_pool2d(value, size),  # type: ignore[arg-type]
    3: lambda value, size: F.adaptive_avg_pool3d(value, size),  # type: ignore[arg-type]
}


def wide(value: Tensor) -> Tensor:
    """In single precision, or double if it is: sums over classes and pixels lose too much in half."""
    return value if value.dtype == torch.float64 else value.float()


def class_axis(rank: int, axis: int) -> int:
    """Where classes or channels lie: as told, else (0) the second of images and videos, the last of anything else."""
    return axis or (1 if rank >= 4 else -1)


def channels_first(value: Tensor, axis: int) -> Tensor:
    """``(B, C, ...)``, whichever way it was."""
    return value.movedim(class_axis(value.ndim, axis), 1)


def rows(value: Tensor, mask: Tensor | None) -> Tensor:
    """``(B, ..., C)`` as ``(N, C)``; of tokens ``(B, T, C)`` those that the mask has.

    Raises:
        UsageError: The mask is for another number of tokens.
    """
    flat = value.reshape(-1, value.shape[-1])
    if mask is None or value.ndim != 3:
        return flat
    if mask.shape != value.shape[:2]:
        raise UsageError(
            f"the mask of tokens has shape {tuple(mask.shape)}, the values {tuple(value.shape)}: they do not fit",
            hint="The mask must be (batch, tokens).",
        )
    return flat[mask.reshape(-1)]


def row_mean(values: Tensor) -> Tensor:
    """The mean of ``(N,)``; 0 of none."""
    return values.sum() / max(len(values), 1)


def spread(weight: Tensor, shape: Sequence[int]) -> Tensor:
    """A weight per sample ``(B,)`` or of all, for each element of a shape ``(B, ...)``."""
    return weight.reshape(-1, *[1] * (len(shape) - 1)).expand(shape)


def pooled(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Two ``(B, C, ...)`` at the smaller of their sizes, dim by dim, by adaptive average pooling."""
    size = [min(pair) for pair in zip(student.shape[2:], teacher.shape[2:], strict=True)]
    first, second = (one if list(one.shape[2:]) == size else _POOL[len(size)](one, size) for one in (student, teacher))
    return first, second
