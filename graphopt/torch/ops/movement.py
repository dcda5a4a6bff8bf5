"""What moves elements without computing: Reshape, Transpose, Concat, Split, Expand, Tile, ..."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from graphopt.torch.node import OpNode
from graphopt.torch.registry import builds, op
from graphopt.torch.values import Sizes, ints

__all__: list[str] = []


def _reshape(x: Tensor, target: Sequence[int], *, allowzero: int) -> Tensor:
    if not allowzero:
        target = [x.shape[place] if size == 0 else size for place, size in enumerate(target)]
    return x.reshape(target)


@op("Reshape")
def reshape_to_attribute(x: Tensor, *, shape: Sequence[int]) -> Tensor:
    return _reshape(x, shape, allowzero=0)


@op("Reshape", since=5)
def reshape(x: Tensor, shape: Sizes, *, allowzero: int = 0) -> Tensor:
    return _reshape(x, ints(shape), allowzero=allowzero)


@op("Flatten")
def flatten(x: Tensor, *, axis: int = 1) -> Tensor:
    axis = axis + x.ndim if axis < 0 else axis
    if axis == 1 and x.ndim > 1:
        return x.flatten(1)
    return x.reshape(math.prod(x.shape[:axis]), math.prod(x.shape[axis:]))


@builds("Transpose")
def transpose(node: OpNode) -> Callable[..., Tensor]:
    perm = node.attribute("perm")
    return _reverse if perm is None else functools.partial(_permute, perm=perm)


def _permute(x: Tensor, *, perm: Sequence[int]) -> Tensor:
    return x.permute(tuple(perm))


def _reverse(x: Tensor) -> Tensor:
    return x.permute(tuple(reversed(range(x.ndim))))


@op("Squeeze")
def squeeze_attribute(x: Tensor, *, axes: Sequence[int] | None = None) -> Tensor:
    return x.squeeze() if axes is None else x.squeeze(tuple(axes))


@op("Squeeze", since=13)
def squeeze(x: Tensor, axes: Sizes | None = None) -> Tensor:
    return x.squeeze() if axes is None else x.squeeze(tuple(ints(axes)))


def _unsqueeze(x: Tensor, axes: Sequence[int]) -> Tensor:
    rank = x.ndim + len(axes)
    for axis in sorted(axis % rank for axis in axes):
        x = x.unsqueeze(axis)
    return x


@op("Unsqueeze")
def unsqueeze_attribute(x: Tensor, *, axes: Sequence[int]) -> Tensor:
    return _unsqueeze(x, axes)


@op("Unsqueeze", since=13)
def unsqueeze(x: Tensor, axes: Sizes) -> Tensor:
    return _unsqueeze(x, ints(axes))


@op("Concat")
def concat(*parts: Tensor, axis: int = 1) -> Tensor:
    return torch.cat(parts, axis)


@builds("Split", sizes=(1,))
@builds("Split", since=2)
def split_attribute(node: OpNode) -> Callable[..., tuple[Tensor, ...]]:
    sizes = node.attribute("split")
    return functools.partial(_split, fixed=sizes, axis=node.attribute("axis", 0), count=node.outputs, even=True)


@builds("Split", since=13, sizes=(1,))
def split(node: OpNode) -> Callable[..., tuple[Tensor, ...]]:
    count = node.attribute("num_outputs", node.outputs)
    return functools.partial(_split, fixed=None, axis=node.attribute("axis", 0), count=count, even=False)


def _split(
    x: Tensor, sizes: Sizes | None = None, *, fixed: Sequence[int] | None, axis: int, count: int, even: bool
) -> tuple[Tensor, ...]:
    given = ints(sizes) if sizes is not None else fixed
    if given is None:
        length = x.shape[axis]
        each = -(-length // count)
        given = [max(0, min(each, length - each * place)) for place in range(count)]
    return torch.split(x, list(given), axis)


@op("Expand", since=8)
def expand(x: Tensor, shape: Sizes) -> Tensor:
    target = ints(shape)
    target = [1] * (x.ndim - len(target)) + target
    own = [1] * (len(target) - x.ndim) + list(x.shape)
    return x.expand([size if want == 1 else want for size, want in zip(own, target, strict=True)])


@op("Tile", since=6)
def tile(x: Tensor, repeats: Sizes) -> Tensor:
    return x.repeat(ints(repeats)) if x.ndim else x


@op("DepthToSpace")
def depth_to_space(x: Tensor, *, blocksize: int, mode: str = "DCR") -> Tensor:
    n, c, h, w = x.shape
    b = blocksize
    if mode == "CRD":
        return torch.pixel_shuffle(x, b)
    y = x.reshape(n, b, b, c // (b * b), h, w).permute(0, 3, 4, 1, 5, 2)
    return y.reshape(n, c // (b * b), h * b, w * b)


@op("SpaceToDepth")
def space_to_depth(x: Tensor, *, blocksize: int, mode: str = "DCR") -> Tensor:
    n, c, h, w = x.shape
    b = blocksize
    if mode == "CRD":
        return torch.pixel_unshuffle(x, b)
    y = x.reshape(n, c, h // b, b, w // b, b).permute(0, 3, 5, 1, 2, 4)
    return y.reshape(n, c * b * b, h // b, w // b)


@op("Trilu", since=14)
def trilu(x: Tensor, k: Sizes | None = None, *, upper: int = 1) -> Tensor:
    diagonal = 0 if k is None else ints(k)[0]
    return torch.triu(x, diagonal) if upper else torch.tril(x, diagonal)


@op("ReverseSequence", since=10)
def reverse_sequence(x: Tensor, lengths: Tensor, *, batch_axis: int = 1, time_axis: int = 0) -> Tensor:
    time = torch.arange(x.shape[time_axis], device=x.device)
    lengths = lengths.to(torch.int64)
    places = torch.where(time < lengths[:, None], lengths[:, None] - 1 - time, time)  # (batch, time)
    if time_axis < batch_axis:
        places = places.t()
    shape = [1] * x.ndim
    shape[min(batch_axis, time_axis)], shape[max(batch_axis, time_axis)] = places.shape
    return x.gather(time_axis, places.reshape(shape).expand(x.shape))
