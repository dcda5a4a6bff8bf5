"""Pooling (ONNX: MaxPool, AveragePool, LpPool, MaxUnpool, Global*Pool)."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

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


def _settings(node: OpNode) -> dict[str, Any]:
    kernel = node.attribute("kernel_shape")
    rank = len(kernel)
    return {
        "kernel": kernel,
        "strides": node.attribute("strides") or (1,) * rank,
        "dilations": node.attribute("dilations") or (1,) * rank,
        "pads": node.attribute("pads") or (0,) * (2 * rank),
        "auto_pad": node.attribute("auto_pad", "NOTSET"),
        "ceil": bool(node.attribute("ceil_mode", 0)),
    }


def _pads(
    x: Tensor,
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
    pads: Sequence[int],
    auto_pad: str,
    ceil: bool,
) -> tuple[list[int], list[int]]:
    """Pads, and what must be added at the ends so that the last window fits (ceil_mode)."""
    rank = len(kernel)
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
    settings = _settings(node)
    kernel, pads, rank = settings["kernel"], settings["pads"], len(settings["kernel"])
    if node.outputs > 1:
        return functools.partial(_max_pool_indices, **settings, column=bool(node.attribute("storage_order", 0)))
    symmetric = pads[:rank] == pads[rank:] and all(2 * p <= k for p, k in zip(pads, kernel))  # noqa: B905
    if rank <= 3 and symmetric and settings["auto_pad"] == "NOTSET" and not settings["ceil"]:
        return functools.partial(
            _plain,
            inner=_MAX[rank - 1],
            kernel_size=kernel,
            stride=settings["strides"],
            padding=pads[:rank],
            dilation=settings["dilations"],
        )
    return functools.partial(_max_pool, **settings)


def _plain(x: Tensor, *, inner: Callable[..., Tensor], **settings: Any) -> Tensor:
    return inner(x, **settings)


def _lowest(dtype: torch.dtype) -> float:
    return -math.inf if dtype.is_floating_point else torch.iinfo(dtype).min


def _max_pool(
    x: Tensor,
    *,
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
    pads: Sequence[int],
    auto_pad: str,
    ceil: bool,
) -> Tensor:
    pads, more = _pads(x, kernel, strides, dilations, pads, auto_pad, ceil)
    rank, dtype = len(kernel), x.dtype
    work = x if dtype.is_floating_point else x.to(torch.float64)
    ends = [pad + add for pad, add in zip(pads[rank:], more, strict=True)]
    work = padded(work, [*pads[:rank], *ends], -math.inf)
    result: Tensor = _MAX[rank - 1](work, kernel, strides, 0, dilations)
    return result.to(dtype)


def _max_pool_indices(
    x: Tensor,
    *,
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
    pads: Sequence[int],
    auto_pad: str,
    ceil: bool,
    column: bool,
) -> tuple[Tensor, Tensor]:
    pads, more = _pads(x, kernel, strides, dilations, pads, auto_pad, ceil)
    rank, sizes = len(kernel), x.shape[2:]
    ends = [pad + add for pad, add in zip(pads[rank:], more, strict=True)]
    work = padded(x, [*pads[:rank], *ends], _lowest(x.dtype))
    result, places = _MAX_INDICES[rank - 1](work, kernel, strides, 0, dilations)
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
    settings = _settings(node)
    counts = bool(node.attribute("count_include_pad", 0))
    kernel, pads, rank = settings["kernel"], settings["pads"], len(settings["kernel"])
    symmetric = pads[:rank] == pads[rank:] and all(2 * p <= k for p, k in zip(pads, kernel))  # noqa: B905
    simple = symmetric and settings["auto_pad"] == "NOTSET" and not settings["ceil"] and rank <= 3
    if simple and all(dilation == 1 for dilation in settings["dilations"]):
        return functools.partial(
            _plain,
            inner=(F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)[rank - 1],
            kernel_size=kernel,
            stride=settings["strides"],
            padding=pads[:rank],
            count_include_pad=counts,
        )
    return functools.partial(_average_pool, **settings, include=counts)


def _average_pool(
    x: Tensor,
    *,
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
    pads: Sequence[int],
    auto_pad: str,
    ceil: bool,
    include: bool,
) -> Tensor:
    pads, more = _pads(x, kernel, strides, dilations, pads, auto_pad, ceil)
    extension = [0] * len(kernel) + more
    ones = torch.ones((1, 1, *x.shape[2:]), dtype=x.dtype, device=x.device)
    ones = padded(padded(ones, pads, float(include)), extension)
    sums = _windows(padded(padded(x, pads), extension), kernel, strides, dilations).sum(-1)
    return sums / _windows(ones, kernel, strides, dilations).sum(-1)


def _windows(x: Tensor, kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int]) -> Tensor:
    """``(N, C, places..., elements)``: a view of the windows, then flattened."""
    rank = len(kernel)
    shape, stride = list(x.shape[:2]), list(x.stride()[:2])
    x = x.contiguous()
    stride = list(x.stride()[:2])
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
    return functools.partial(_lp_pool, **_settings(node), p=node.attribute("p", 2))


def _lp_pool(
    x: Tensor,
    *,
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
    pads: Sequence[int],
    auto_pad: str,
    ceil: bool,
    p: float,
) -> Tensor:
    pads, more = _pads(x, kernel, strides, dilations, pads, auto_pad, ceil)
    work = padded(padded(x, pads), [0] * len(kernel) + more)
    return _windows(work.abs().pow(p), kernel, strides, dilations).sum(-1).pow(1 / p)


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
