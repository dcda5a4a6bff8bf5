"""Sampling at computed coordinates: GridSample, AffineGrid, RoiAlign, DeformConv; and Col2Im."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from graphopt.torch.node import OpNode
from graphopt.torch.registry import builds, op
from graphopt.torch.values import Sizes, ints

__all__: list[str] = []

_MODES = {"linear": "bilinear", "cubic": "bicubic"}


@op("GridSample", since=16)
def grid_sample(
    x: Tensor, grid: Tensor, *, align_corners: int = 0, mode: str = "linear", padding_mode: str = "zeros"
) -> Tensor:
    return F.grid_sample(x, grid, _MODES.get(mode, mode), padding_mode, bool(align_corners))


@op("AffineGrid", since=20)
def affine_grid(theta: Tensor, size: Sizes, *, align_corners: int = 0) -> Tensor:
    return F.affine_grid(theta, ints(size), bool(align_corners))


@op("Col2Im", since=18)
def col2im(
    x: Tensor,
    image_shape: Sizes,
    block_shape: Sizes,
    *,
    dilations: Sequence[int] = (),
    pads: Sequence[int] = (),
    strides: Sequence[int] = (),
) -> Tensor:
    image, block = ints(image_shape), ints(block_shape)
    rank = len(image)
    dilations, strides, pads = dilations or [1] * rank, strides or [1] * rank, pads or [0] * (2 * rank)
    full = [size + pads[axis] + pads[axis + rank] for axis, size in enumerate(image)]
    index = torch.zeros((), dtype=torch.int64, device=x.device)
    for axis in range(rank):  # (block..., places...)
        count = (full[axis] - dilations[axis] * (block[axis] - 1) - 1) // strides[axis] + 1
        inner = torch.arange(block[axis], device=x.device) * dilations[axis]
        outer = torch.arange(count, device=x.device) * strides[axis]
        shape = [1] * (2 * rank)
        shape[axis], shape[rank + axis] = block[axis], count
        index = index * full[axis] + (inner[:, None] + outer).reshape(shape)
    planes = x.reshape(x.shape[0], -1, index.numel())
    flat = torch.zeros(*planes.shape[:2], math.prod(full), dtype=x.dtype, device=x.device)
    made = flat.index_add(2, index.reshape(-1), planes).reshape(*planes.shape[:2], *full)
    for axis in range(rank):
        made = made.narrow(2 + axis, pads[axis], image[axis])
    return made


@builds("RoiAlign", since=10)
def roi_align_older(node: OpNode) -> Callable[..., Tensor]:
    return _roi_builder(node, half=False)


@builds("RoiAlign", since=16)
def roi_align(node: OpNode) -> Callable[..., Tensor]:
    return _roi_builder(node, half=node.attribute("coordinate_transformation_mode", "half_pixel") == "half_pixel")


def _roi_builder(node: OpNode, *, half: bool) -> Callable[..., Tensor]:
    return functools.partial(
        _roi_align,
        half=half,
        mode=node.attribute("mode", "avg"),
        size=(node.attribute("output_height", 1), node.attribute("output_width", 1)),
        ratio=node.attribute("sampling_ratio", 0),
        scale=node.attribute("spatial_scale", 1.0),
    )


def _roi_align(
    x: Tensor, rois: Tensor, batches: Tensor, *, half: bool, mode: str, size: tuple[int, int], ratio: int, scale: float
) -> Tensor:
    """Each box by itself: the number of samples may depend on its size."""
    results = []
    for roi, batch in zip(rois * scale, batches, strict=True):
        image = x[batch.to(torch.int64)]
        low = roi[:2] - 0.5 if half else roi[:2]
        extent = roi[2:] - 0.5 - low if half else (roi[2:] - low).clamp(min=1.0)
        rows, columns = (
            _samples(low[axis], extent[axis], size[1 - axis], ratio, image.shape[2 - axis]) for axis in (1, 0)
        )
        results.append(_pooled(image, rows, columns, mode))
    if not results:
        return x.new_zeros(0, x.shape[1], *size)
    return torch.stack(results)


_Line = tuple[Tensor, Tensor, Tensor, Tensor]


def _samples(low: Tensor, extent: Tensor, bins: int, ratio: int, have: int) -> _Line:
    """Lower and upper neighbours ``(bins, samples)`` and their weights."""
    count = ratio or max(1, math.ceil(float(extent) / bins))
    steps = torch.arange(bins, device=low.device)[:, None] + (torch.arange(count, device=low.device) + 0.5) / count
    places = low + steps * extent / bins
    inside = ((places >= -1) & (places <= have)).to(places.dtype)
    places = places.clamp(0, have - 1)
    below = places.floor()
    upper = (below + 1).clamp(max=have - 1)
    share = places - below
    return below.to(torch.int64), upper.to(torch.int64), (1 - share) * inside, share * inside


def _pooled(image: Tensor, rows: _Line, columns: _Line, mode: str) -> Tensor:
    corners = []
    for row, row_share in ((rows[0], rows[2]), (rows[1], rows[3])):
        for column, column_share in ((columns[0], columns[2]), (columns[1], columns[3])):
            picked = image[:, row[:, :, None, None], column[None, None]]
            corners.append(picked * (row_share[:, :, None, None] * column_share[None, None]))
    if mode == "max":
        return torch.stack(corners).amax(0).amax((2, 4))
    return torch.stack(corners).sum(0).mean((2, 4))


@builds("DeformConv", since=19)
def deform_conv(node: OpNode) -> Callable[..., Tensor]:
    return functools.partial(
        _deform_conv,
        dilations=node.attribute("dilations", (1, 1)),
        group=node.attribute("group", 1),
        parts=node.attribute("offset_group", 1),
        pads=node.attribute("pads", (0, 0, 0, 0)),
        strides=node.attribute("strides", (1, 1)),
    )


def _deform_conv(
    x: Tensor,
    w: Tensor,
    offset: Tensor,
    b: Tensor | None = None,
    mask: Tensor | None = None,
    *,
    dilations: Sequence[int],
    group: int,
    parts: int,
    pads: Sequence[int],
    strides: Sequence[int],
) -> Tensor:
    """In two dimensions (Dai et al., arXiv 1703.06211), by way of ``grid_sample``."""
    n, c, height, width = x.shape
    high, wide = w.shape[2:]
    rows, columns = offset.shape[2:]
    shifts = offset.reshape(n, parts, high, wide, 2, rows, columns)
    device, dtype = x.device, x.dtype
    y = (torch.arange(rows, device=device) * strides[0] - pads[0]).reshape(1, 1, -1, 1)
    y = y + (torch.arange(high, device=device) * dilations[0]).reshape(-1, 1, 1, 1)
    z = (torch.arange(columns, device=device) * strides[1] - pads[1]).reshape(1, 1, 1, -1)
    z = z + (torch.arange(wide, device=device) * dilations[1]).reshape(1, -1, 1, 1)
    down, right = shifts[:, :, :, :, 0] + y.to(dtype), shifts[:, :, :, :, 1] + z.to(dtype)
    grid = torch.stack([(2 * right + 1) / width - 1, (2 * down + 1) / height - 1], -1)
    grid = grid.reshape(n * parts, high * wide * rows, columns, 2)
    taken = F.grid_sample(x.reshape(n * parts, c // parts, height, width), grid, "bilinear", "zeros", False)
    taken = taken.reshape(n, parts, c // parts, high * wide, rows, columns)
    if mask is not None:
        taken = taken * mask.reshape(n, parts, 1, high * wide, rows, columns)
    taken = taken.reshape(n, group, c // group * high * wide, rows * columns)
    weights = w.reshape(group, w.shape[0] // group, -1)
    result = torch.einsum("goi,ngip->ngop", weights, taken).reshape(n, w.shape[0], rows, columns)
    return result if b is None else result + b.reshape(-1, 1, 1)
