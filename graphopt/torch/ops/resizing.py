"""Resize and Upsample.

What ``torch.nn.functional.interpolate`` means too goes there; everything else is a matrix for each axis (linear,
cubic; antialiased or not) or a choice of places (nearest).
"""

from __future__ import annotations

import dataclasses
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


@dataclasses.dataclass(frozen=True)
class _How:
    mode: str = "nearest"
    coordinates: str = "half_pixel"
    nearest: str = "round_prefer_floor"
    a: float = -0.75
    exclude: bool = False
    extrapolation: float = 0.0
    antialias: bool = False
    axes: tuple[int, ...] | None = None
    policy: str = "stretch"


@op("Upsample")
@op("Upsample", since=7)
def upsample_attributes(x: Tensor, *, scales: Sequence[float], mode: str = "nearest") -> Tensor:
    return _resize(x, list(scales), None, None, _How(mode, "asymmetric", "floor"))


@builds("Upsample", since=9)
@builds("Resize", since=10)
def upsample(node: OpNode) -> Callable[..., Tensor]:
    scales = node.constant(1)
    how = _How(node.attribute("mode", "nearest"), "asymmetric", "floor")
    return functools.partial(_upsample, fixed=None if scales is None else scales.tolist(), how=how)


def _upsample(x: Tensor, scales: Tensor, *, fixed: list[float] | None, how: _How) -> Tensor:
    return _resize(x, fixed or scales.tolist(), None, None, how)


@builds("Resize", since=11, sizes=(3,))
def resize(node: OpNode) -> Callable[..., Tensor]:
    how = _How(
        node.attribute("mode", "nearest"),
        node.attribute("coordinate_transformation_mode", "half_pixel"),
        node.attribute("nearest_mode", "round_prefer_floor"),
        node.attribute("cubic_coeff_a", -0.75),
        bool(node.attribute("exclude_outside", 0)),
        node.attribute("extrapolation_value", 0.0),
        bool(node.attribute("antialias", 0)),
        node.attribute("axes"),
        node.attribute("keep_aspect_ratio_policy", "stretch"),
    )
    roi, scales = node.constant(1), node.constant(2)
    return functools.partial(
        _resize_inputs,
        how=how,
        fixed_roi=None if roi is None or how.coordinates != "tf_crop_and_resize" else roi.tolist(),
        fixed_scales=None if scales is None else scales.tolist(),
    )


def _resize_inputs(
    x: Tensor,
    roi: Tensor | None = None,
    scales: Tensor | None = None,
    sizes: Sizes | None = None,
    *,
    how: _How,
    fixed_roi: list[float] | None,
    fixed_scales: list[float] | None,
) -> Tensor:
    box = fixed_roi
    if box is None and roi is not None and how.coordinates == "tf_crop_and_resize":
        box = roi.tolist()
    if sizes is not None and (not isinstance(sizes, Tensor) or sizes.numel()):
        return _resize(x, None, ints(sizes), box, how)
    factors = fixed_scales
    if factors is None:
        assert scales is not None
        factors = scales.tolist()
    return _resize(x, factors, None, box, how)


def _resize(
    x: Tensor, scales: list[float] | None, sizes: list[int] | None, roi: list[float] | None, how: _How
) -> Tensor:
    axes = [axis % x.ndim for axis in how.axes] if how.axes is not None else list(range(x.ndim))
    have = [x.shape[axis] for axis in axes]
    if sizes is not None:
        sizes, scales = _fitted(have, sizes, how.policy)
    else:
        assert scales is not None
        sizes = [math.floor(size * scale) for size, scale in zip(have, scales, strict=True)]
    boxes = dict.fromkeys(axes, (0.0, 1.0))
    if roi:
        boxes = {axis: (roi[place], roi[place + len(axes)]) for place, axis in enumerate(axes)}
    plan = [
        (axis, size, scale)
        for axis, size, scale, old in zip(axes, sizes, scales, have, strict=True)
        if size != old or scale != 1 or boxes[axis] != (0.0, 1.0)
    ]
    quick = _quick(x, plan, how)
    if quick is not None:
        return quick
    dtype = x.dtype
    if not x.is_floating_point() and how.mode != "nearest":
        x = x.float()
    outside = []
    for axis, size, scale in plan:
        x, out = _along(x, axis, size, scale, boxes[axis], how)
        outside.append((axis, out))
    if how.coordinates == "tf_crop_and_resize":
        for axis, out in outside:
            shape = [1] * x.ndim
            shape[axis] = -1
            x = torch.where(out.reshape(shape), torch.full((), how.extrapolation, dtype=x.dtype, device=x.device), x)
    return x if x.dtype == dtype else x.round().to(dtype) if dtype == torch.uint8 else x.to(dtype)


def _fitted(have: list[int], sizes: list[int], policy: str) -> tuple[list[int], list[float]]:
    scales = [size / old for size, old in zip(sizes, have, strict=True)]
    if policy == "stretch":
        return sizes, scales
    scale = min(scales) if policy == "not_larger" else max(scales)
    return [math.floor(old * scale + 0.5) for old in have], [scale] * len(have)


def _quick(x: Tensor, plan: list[tuple[int, int, float]], how: _How) -> Tensor | None:
    """By torch's kernel, where that means the same."""
    rank = x.ndim - 2
    if not plan:
        return x
    if how.antialias or how.exclude or rank not in (1, 2, 3) or not x.is_floating_point():
        return None
    if any(axis < 2 for axis, _, _ in plan) or any(
        abs(x.shape[axis] * scale - size) > 1e-6 for axis, size, scale in plan
    ):
        return None
    target = list(x.shape[2:])
    for axis, size, _ in plan:
        target[axis - 2] = size
    if how.mode == "nearest":
        whole = all(size % x.shape[axis] == 0 for axis, size, _ in plan)
        simple = how.coordinates == "asymmetric" and how.nearest == "floor"
        rounded = how.coordinates in ("half_pixel", "pytorch_half_pixel") and how.nearest.startswith("round_prefer")
        return F.interpolate(x, size=target, mode="nearest") if whole and (simple or rounded) else None
    corners = how.coordinates == "align_corners"
    if how.coordinates not in ("half_pixel", "pytorch_half_pixel", "align_corners"):
        return None
    if how.coordinates == "pytorch_half_pixel" and 1 in target:
        return None
    if how.mode == "linear":
        return F.interpolate(x, size=target, mode=("linear", "bilinear", "trilinear")[rank - 1], align_corners=corners)
    if how.mode == "cubic" and rank == 2 and how.a == -0.75:
        return F.interpolate(x, size=target, mode="bicubic", align_corners=corners)
    return None


def _places(have: int, size: int, scale: float, box: tuple[float, float], how: _How) -> Tensor:
    """Where each element of the result lies on the axis of the input."""
    out = torch.arange(size, dtype=torch.float32)
    kind = how.coordinates
    if kind == "asymmetric":
        return out / scale
    if kind == "align_corners":
        return torch.zeros(size) if size == 1 else out * (have - 1) / (size - 1)
    if kind == "tf_half_pixel_for_nn":
        return (out + 0.5) / scale
    if kind == "tf_crop_and_resize":
        begin, end = box
        if size == 1:
            return torch.full((1,), 0.5 * (begin + end) * (have - 1))
        return begin * (have - 1) + out * ((end - begin) * (have - 1) / (size - 1))
    if kind == "pytorch_half_pixel" and size == 1:
        return torch.full((1,), 0.0)
    places = (out + 0.5) / scale - 0.5
    if kind == "half_pixel_symmetric":
        exact = scale * have
        places = places + have / 2 * (1 - size / exact)
    return places


def _along(x: Tensor, axis: int, size: int, scale: float, box: tuple[float, float], how: _How) -> tuple[Tensor, Tensor]:
    have = x.shape[axis]
    places = _places(have, size, scale, box, how)
    outside = ((places < 0) | (places > have - 1)).to(x.device)
    if how.mode == "nearest":
        return x.index_select(axis, _nearest(places, how.nearest).clamp(0, have - 1).to(x.device)), outside
    matrix = _weights(places, have, scale, how).to(x.device, x.dtype)
    return torch.matmul(x.movedim(axis, -1), matrix.t()).movedim(-1, axis), outside


def _nearest(places: Tensor, rule: str) -> Tensor:
    if rule == "floor":
        chosen = places.floor()
    elif rule == "ceil":
        chosen = places.ceil()
    elif rule == "round_prefer_ceil":
        chosen = (places + 0.5).floor()
    else:
        chosen = (places - 0.5).ceil()
    return chosen.to(torch.int64)


def _weights(places: Tensor, have: int, scale: float, how: _How) -> Tensor:
    """``(size, have)``: how much of each input element each result takes."""
    stretch = max(1.0, 1 / scale) if how.antialias else 1.0
    reach = (2 if how.mode == "cubic" else 1) * stretch
    first = torch.floor(places - reach).to(torch.int64)
    taps = first[:, None] + torch.arange(2 * math.ceil(reach) + 3)
    distance = (taps - places.double()[:, None]).abs() / stretch
    weights = _cubic(distance, how.a) if how.mode == "cubic" else (1 - distance).clamp(min=0)
    if how.exclude:
        weights = weights * ((taps >= 0) & (taps < have))
    if how.exclude or how.antialias:
        weights = weights / weights.sum(1, keepdim=True)
    matrix = torch.zeros(len(places), have, dtype=torch.float64)
    return matrix.scatter_add(1, taps.clamp(0, have - 1), weights)


def _cubic(distance: Tensor, a: float) -> Tensor:
    near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
    far = a * (((distance - 5) * distance + 8) * distance - 4)
    return torch.where(distance <= 1, near, torch.where(distance < 2, far, torch.zeros_like(distance)))
