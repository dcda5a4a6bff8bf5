"""Pooling (ONNX: MaxPool, AveragePool, LpPool, MaxUnpool, Global*Pool)."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from graphopt.torch.node import OpNode
from graphopt.torch.ops.convolution import padded, same_pads
from graphopt.torch.registry import builds, op
from graphopt.torch.values import Sizes, ints

__all__: list[str] = []

_MAX: tuple[Callable[..., Any], ...] = (torch.max_pool1d, torch.max_pool2d, torch.max_pool3d)
_MAX_INDICES: tuple[Callable[..., Any], ...] = (
    F.max_pool1d_with_indices,
    F.max_pool2d_with_indices,
    F.max_pool3d_with_indices,
)


class _Window(NamedTuple):
    """How a window moves; one number for each axis of space, ``pads`` those at the begins, then those at the ends."""

    kernel: Sequence[int]
    strides: Sequence[int]
    dilations: Sequence[int]
    pads: Sequence[int]
    auto_pad: str
    ceil: bool

    @property
    def rank(self) -> int:
        return len(self.kernel)

    @property
    def is_plain(self) -> bool:
        """Whether torch's own pooling knows such windows."""
        begins, ends = self.pads[: self.rank], self.pads[self.rank :]
        fits = begins == ends and all(2 * pad <= size for pad, size in zip(begins, self.kernel, strict=True))
        return fits and self.rank <= 3 and self.auto_pad == "NOTSET" and not self.ceil


def _window(node: OpNode) -> _Window:
    kernel = node.attribute("kernel_shape")
    ones = (1,) * len(kernel)
    return _Window(
        kernel,
        node.attribute("strides") or ones,
        node.attribute("dilations") or ones,
        node.attribute("pads") or (0,) * (2 * len(kernel)),
        node.attribute("auto_pad", "NOTSET"),
        bool(node.attribute("ceil_mode", 0)),
    )


def _pads(x: Tensor, window: _Window) -> tuple[list[int], list[int]]:
    """Pads, and what must be added at the ends so that the last window fits (ceil_mode)."""
    kernel, strides, dilations, pads, auto_pad, ceil = window
    rank = window.rank
    if auto_pad.startswith("SAME"):
        pads = same_pads(x.shape[2:], kernel, strides, dilations, upper=auto_pad == "SAME_UPPER")
    elif auto_pad == "VALID":
        pads = [0] * (2 * rank)
    more = [0] * rank
    if ceil:
        for axis in range(rank):
            size, begin = x.shape[2 + axis], pads[axis]
            span = (kernel[axis] - 1) * dilations[axis] + 1
            room = size + begin + pads[axis + rank] - span
            places = -(-room // strides[axis]) + 1
            if (places - 1) * strides[axis] >= size + begin:
                places -= 1  # a window that starts in the padding at the end does not count
            more[axis] = max(0, (places - 1) * strides[axis] - room)
    return list(pads), more


@builds("MaxPool")
def max_pool(node: OpNode) -> Callable[..., Any]:
    window = _window(node)
    if node.outputs > 1:
        return functools.partial(_max_pool_indices, window=window, column=bool(node.attribute("storage_order", 0)))
    if not window.is_plain:
        return functools.partial(_max_pool, window=window)
    return functools.partial(
        _plain,
        inner=_MAX[window.rank - 1],
        kernel_size=window.kernel,
        stride=window.strides,
        padding=window.pads[: window.rank],
        dilation=window.dilations,
    )


def _plain(x: Tensor, *, inner: Callable[..., Tensor], **settings: Any) -> Tensor:
    return inner(x, **settings)


def _lowest(dtype: torch.dtype) -> float:
    return -math.inf if dtype.is_floating_point else torch.iinfo(dtype).min


def _max_pool(
    x: Tensor,
    *,
    window: _Window,
) -> Tensor:
    pads, more = _pads(x, window)
    rank, dtype = window.rank, x.dtype
    work = x if dtype.is_floating_point else x.to(torch.float64)
    ends = [pad + add for pad, add in zip(pads[rank:], more, strict=True)]
    work = padded(work, [*pads[:rank], *ends], -math.inf)
    result: Tensor = _MAX[rank - 1](work, window.kernel, window.strides, 0, window.dilations)
    return result.to(dtype)


def _max_pool_indices(
    x: Tensor,
    *,
    window: _Window,
    column: bool,
) -> tuple[Tensor, Tensor]:
    pads, more = _pads(x, window)
    rank, sizes = window.rank, x.shape[2:]
    ends = [pad + add for pad, add in zip(pads[rank:], more, strict=True)]
    work = padded(x, [*pads[:rank], *ends], _lowest(x.dtype))
    result, places = _MAX_INDICES[rank - 1](work, window.kernel, window.strides, 0, window.dilations)
    coordinates = []
    for axis in reversed(range(rank)):
        coordinates.append(places % work.shape[2 + axis] - pads[axis])
        places = places // work.shape[2 + axis]
    coordinates.reverse()
    order = range(rank) if not column else reversed(range(rank))
    flat = torch.zeros_like(coordinates[0])
    for axis in order:
        flat = flat * sizes[axis] + coordinates[axis]
    planes = torch.arange(x.shape[0] * x.shape[1], device=x.device).reshape(x.shape[0], x.shape[1], *[1] * rank)
    return result, flat + planes * math.prod(sizes)


@builds("AveragePool")
def average_pool(node: OpNode) -> Callable[..., Tensor]:
    window, counts = _window(node), bool(node.attribute("count_include_pad", 0))
    if not window.is_plain or any(dilation != 1 for dilation in window.dilations):
        return functools.partial(_average_pool, window=window, include=counts)
    return functools.partial(
        _plain,
        inner=(F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)[window.rank - 1],
        kernel_size=window.kernel,
        stride=window.strides,
        padding=window.pads[: window.rank],
        count_include_pad=counts,
    )


def _average_pool(
    x: Tensor,
    *,
    window: _Window,
    include: bool,
) -> Tensor:
    pads, more = _pads(x, window)
    extension = [0] * window.rank + more
    ones = torch.ones((1, 1, *x.shape[2:]), dtype=x.dtype, device=x.device)
    ones = padded(padded(ones, pads, float(include)), extension)
    sums = _windows(padded(padded(x, pads), extension), window).sum(-1)
    return sums / _windows(ones, window).sum(-1)


def _windows(x: Tensor, window: _Window) -> Tensor:
    """``(N, C, places..., elements)``: a view of the windows, then flattened."""
    kernel, strides, dilations, *_ = window
    rank = window.rank
    x = x.contiguous()
    shape, stride = list(x.shape[:2]), list(x.stride()[:2])
    for axis in range(rank):
        span = (kernel[axis] - 1) * dilations[axis] + 1
        shape.append((x.shape[2 + axis] - span) // strides[axis] + 1)
        stride.append(x.stride(2 + axis) * strides[axis])
    for axis in range(rank):
        shape.append(kernel[axis])
        stride.append(x.stride(2 + axis) * dilations[axis])
    return x.as_strided(shape, stride).flatten(2 + rank)


@builds("LpPool")
def lp_pool(node: OpNode) -> Callable[..., Tensor]:
    return functools.partial(_lp_pool, window=_window(node), p=node.attribute("p", 2))


def _lp_pool(
    x: Tensor,
    *,
    window: _Window,
    p: float,
) -> Tensor:
    pads, more = _pads(x, window)
    work = padded(padded(x, pads), [0] * window.rank + more)
    return _windows(work.abs().pow(p), window).sum(-1).pow(1 / p)


@op("GlobalAveragePool")
def global_average_pool(x: Tensor) -> Tensor:
    return x.mean(dim=tuple(range(2, x.ndim)), keepdim=True)


@op("GlobalMaxPool")
def global_max_pool(x: Tensor) -> Tensor:
    return x.amax(dim=tuple(range(2, x.ndim)), keepdim=True)


@op("GlobalLpPool")
def global_lp_pool(x: Tensor, *, p: float = 2) -> Tensor:
    return x.abs().pow(p).sum(dim=tuple(range(2, x.ndim)), keepdim=True).pow(1 / p)


@op("MaxUnpool", since=9)
def max_unpool(
    x: Tensor,
    indices: Tensor,
    output_shape: Sizes | None = None,
    *,
    kernel_shape: Sequence[int],
    pads: Sequence[int] = (),
    strides: Sequence[int] = (),
) -> Tensor:
    rank = len(kernel_shape)
    pads, strides = pads or [0] * (2 * rank), strides or [1] * rank
    natural = [
        (x.shape[2 + axis] - 1) * strides[axis] + kernel_shape[axis] - pads[axis] - pads[axis + rank]
        for axis in range(rank)
    ]
    natural = [*x.shape[:2], *natural]
    flat = torch.zeros(math.prod(natural), dtype=x.dtype, device=x.device)
    made = flat.scatter(0, indices.reshape(-1), x.reshape(-1)).reshape(natural)
    if output_shape is None:
        return made
    wanted = ints(output_shape)
    grown = [size - have for size, have in zip(wanted[2:], natural[2:], strict=True)]
    return padded(made, [0] * rank + grown)
