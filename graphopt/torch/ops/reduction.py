"""Reductions: over an attribute's axes before opset 13 (ReduceSum) or 18, over an input's since."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from graphopt.torch.node import OpNode
from graphopt.torch.ops.arithmetic import wide
from graphopt.torch.registry import builds, op
from graphopt.torch.values import Sizes, ints

__all__: list[str] = []


def _sum(x: Tensor, axes: Sequence[int], keep: bool) -> Tensor:
    return torch.sum(wide(x), tuple(axes), keepdim=keep, dtype=wide(x).dtype).to(x.dtype)


def _mean(x: Tensor, axes: Sequence[int], keep: bool) -> Tensor:
    if x.is_floating_point():
        return x.mean(tuple(axes), keepdim=keep)
    count = 1
    for axis in axes:
        count *= x.shape[axis]
    return torch.div(_sum(x, axes, keep), count, rounding_mode="trunc")


def _prod(x: Tensor, axes: Sequence[int], keep: bool) -> Tensor:
    for axis in sorted(axes, reverse=True):
        x = torch.prod(x, axis, keepdim=keep, dtype=x.dtype)
    return x


def _max(x: Tensor, axes: Sequence[int], keep: bool) -> Tensor:
    return _extreme(torch.amax, x, axes, keep)


def _min(x: Tensor, axes: Sequence[int], keep: bool) -> Tensor:
    return _extreme(torch.amin, x, axes, keep)


def _extreme(function: Callable[..., Tensor], x: Tensor, axes: Sequence[int], keep: bool) -> Tensor:
    if any(x.shape[axis] == 0 for axis in axes):
        shape = [1 if axis in axes else size for axis, size in enumerate(x.shape)]
        lowest = function is torch.amax
        bound: float
        if x.dtype == torch.bool:
            bound = float(not lowest)
        elif x.is_floating_point():
            bound = float("-inf") if lowest else float("inf")
        else:
            limits = torch.iinfo(x.dtype)
            bound = limits.min if lowest else limits.max
        filled = torch.full(shape, bound, dtype=x.dtype, device=x.device)
        return filled if keep else filled.squeeze(tuple(axes))
    result = function(wide(x), tuple(axes), keepdim=keep)
    return result.to(x.dtype)


def _l1(x: Tensor, axes: Sequence[int], keep: bool) -> Tensor:
    return _sum(x.abs(), axes, keep)


def _l2(x: Tensor, axes: Sequence[int], keep: bool) -> Tensor:
    if not x.is_floating_point():
        return _sum(x.double().square(), axes, keep).sqrt().to(x.dtype)
    norm: Tensor = torch.linalg.vector_norm(x, 2, tuple(axes), keepdim=keep)
    return norm


def _log_sum(x: Tensor, axes: Sequence[int], keep: bool) -> Tensor:
    return _sum(x, axes, keep).log()


def _log_sum_exp(x: Tensor, axes: Sequence[int], keep: bool) -> Tensor:
    return torch.logsumexp(x, tuple(axes), keepdim=keep)


def _sum_square(x: Tensor, axes: Sequence[int], keep: bool) -> Tensor:
    return _sum(x * x, axes, keep)


_FUNCTIONS: dict[str, Callable[[Tensor, Sequence[int], bool], Tensor]] = {
    "ReduceSum": _sum,
    "ReduceMean": _mean,
    "ReduceProd": _prod,
    "ReduceMax": _max,
    "ReduceMin": _min,
    "ReduceL1": _l1,
    "ReduceL2": _l2,
    "ReduceLogSum": _log_sum,
    "ReduceLogSumExp": _log_sum_exp,
    "ReduceSumSquare": _sum_square,
}


@builds(*_FUNCTIONS, sizes=(1,))
def reduction(node: OpNode) -> Callable[..., Tensor]:
    return functools.partial(
        _reduce,
        function=_FUNCTIONS[node.node.op_type],
        fixed=node.attribute("axes"),
        keep=bool(node.attribute("keepdims", 1)),
        nothing=bool(node.attribute("noop_with_empty_axes", 0)),
    )


def _reduce(
    x: Tensor,
    axes: Sizes | None = None,
    *,
    function: Callable[[Tensor, Sequence[int], bool], Tensor],
    fixed: Sequence[int] | None,
    keep: bool,
    nothing: bool,
) -> Tensor:
    given = fixed if axes is None else ints(axes)
    if not given and nothing:
        return function(x.unsqueeze(0), [0], False)
    if x.ndim == 0:
        return function(x.unsqueeze(0), [0], False)
    return function(x, [axis % x.ndim for axis in given] if given else list(range(x.ndim)), keep)


@op("ArgMax")
def arg_max(x: Tensor, *, axis: int = 0, keepdims: int = 1, select_last_index: int = 0) -> Tensor:
    if not select_last_index:
        return x.argmax(axis, keepdim=bool(keepdims))
    return x.shape[axis] - 1 - x.flip(axis).argmax(axis, keepdim=bool(keepdims))


@op("ArgMin")
def arg_min(x: Tensor, *, axis: int = 0, keepdims: int = 1, select_last_index: int = 0) -> Tensor:
    if not select_last_index:
        return x.argmin(axis, keepdim=bool(keepdims))
    return x.shape[axis] - 1 - x.flip(axis).argmin(axis, keepdim=bool(keepdims))


def _cumulative(
    function: Callable[..., Tensor], x: Tensor, axis: int, exclusive: int, reverse: int, neutral: int
) -> Tensor:
    if reverse:
        x = x.flip(axis)
    y = function(x, axis, dtype=x.dtype)
    if exclusive:
        first = torch.full_like(y.narrow(axis, 0, 1), neutral)
        y = torch.cat([first, y.narrow(axis, 0, y.shape[axis] - 1)], axis)
    return y.flip(axis) if reverse else y


@op("CumSum", since=11)
def cumsum(x: Tensor, axis: Sizes, *, exclusive: int = 0, reverse: int = 0) -> Tensor:
    return _cumulative(torch.cumsum, x, ints(axis)[0], exclusive, reverse, 0)


@op("CumProd", since=26)
def cumprod(x: Tensor, axis: Sizes, *, exclusive: int = 0, reverse: int = 0) -> Tensor:
    return _cumulative(torch.cumprod, x, ints(axis)[0], exclusive, reverse, 1)
