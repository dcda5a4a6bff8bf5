"""Shape arithmetic: ONNX operators on :class:`~graphopt.torch.values.Ints`, and those that make them."""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

import onnx_ir as ir
import torch
from torch import Tensor

from graphopt.torch.registry import host, op
from graphopt.torch.values import Ints, torch_dtype

__all__: list[str] = []

_MOST = 64
_INTEGERS = frozenset({torch.int64, torch.int32})


@op("Shape")
def shape(x: Tensor, *, start: int = 0, end: int | None = None) -> Ints:
    return Ints(tuple(x.shape[start:end]))


@op("Size")
def size(x: Tensor) -> Ints:
    return Ints((math.prod(x.shape),), 0)


@host("Identity")
def identity(x: Ints) -> Ints:
    return x


@host("Shape")
def shape_of_sizes(x: Ints, *, start: int = 0, end: int | None = None) -> Ints:
    return Ints(((len(x.values),) if x.rank else ())[start:end])


@host("Gather")
def gather(x: Ints, places: Ints, *, axis: int = 0) -> Any:
    if x.rank == 0 or axis not in (0, -1):
        return NotImplemented
    return Ints(tuple(x.values[place] for place in places.values), places.rank, x.dtype)


@host("Concat")
def concat(*parts: Ints, axis: int = 0) -> Any:
    if any(part.rank == 0 for part in parts):
        return NotImplemented
    return Ints(tuple(value for part in parts for value in part.values), 1, parts[0].dtype)


@host("Unsqueeze")
def unsqueeze(x: Ints, at: Ints | None = None, *, axes: Sequence[int] = ()) -> Any:
    axes = at.values if at is not None else axes
    return Ints(x.values, 1, x.dtype) if x.rank == 0 and len(axes) == 1 else NotImplemented


@host("Squeeze")
def squeeze(x: Ints, at: Ints | None = None, *, axes: Sequence[int] = ()) -> Any:
    return Ints(x.values, 0, x.dtype) if x.rank == 1 and len(x.values) == 1 else NotImplemented


@host("Reshape")
def reshape(x: Ints, target: Ints, *, allowzero: int = 0) -> Any:
    if target.values in ((-1,), (len(x.values),)):
        return Ints(x.values, 1, x.dtype)
    return Ints(x.values, 0, x.dtype) if not target.values and len(x.values) == 1 else NotImplemented


@host("Slice")
def slice_(
    x: Ints,
    first: Ints | None = None,
    last: Ints | None = None,
    at: Ints | None = None,
    by: Ints | None = None,
    *,
    starts: Sequence[int] = (),
    ends: Sequence[int] = (),
    axes: Sequence[int] = (),
) -> Any:
    starts = first.values if first is not None else starts
    ends = last.values if last is not None else ends
    step = by.values[0] if by is not None else 1
    if x.rank == 0 or len(starts) != 1:
        return NotImplemented
    begin, end = starts[0], ends[0]
    if step < 0 and end < -len(x.values):
        end = None
    return Ints(tuple(x.values[begin:end:step]), 1, x.dtype)


@host("Split")
def split(x: Ints, sizes: Ints | None = None, *, axis: int = 0, num_outputs: int = 0) -> Any:
    if sizes is None or x.rank == 0:
        return NotImplemented
    parts, at = [], 0
    for count in sizes.values:
        parts.append(Ints(x.values[at : at + count], 1, x.dtype))
        at += count
    return tuple(parts)


@host("Cast")
def cast(x: Ints, *, to: int, saturate: int = 1) -> Any:
    dtype = torch_dtype(ir.DataType(to))
    if dtype in _INTEGERS:
        return Ints(tuple(int(value) if isinstance(value, bool) else value for value in x.values), x.rank, dtype)
    if dtype == torch.bool:
        return Ints(tuple(value != 0 for value in x.values), x.rank, dtype)
    return NotImplemented


def _pairwise(function: Callable[[Any, Any], Any], dtype: torch.dtype | None, x: Ints, y: Ints) -> Any:
    count = max(len(x.values), len(y.values)) if min(len(x.values), len(y.values)) else 0
    if {len(x.values), len(y.values)} - {1, count}:
        return NotImplemented
    xs = x.values if len(x.values) == count else x.values * count
    ys = y.values if len(y.values) == count else y.values * count
    values = tuple(function(a, b) for a, b in zip(xs, ys, strict=True))
    return Ints(values, max(x.rank, y.rank), dtype or x.dtype)


def _truncated(a: int, b: int) -> int:
    if a >= 0 and b > 0:
        return a // b
    quotient = abs(a) // abs(b)
    return quotient if (a < 0) == (b < 0) else -quotient


for _name, _function in {"Add": operator.add, "Sub": operator.sub, "Mul": operator.mul, "Div": _truncated}.items():
    host(_name)(functools.partial(_pairwise, _function, None))

for _name, _test in {
    "Equal": operator.eq,
    "Greater": operator.gt,
    "GreaterOrEqual": operator.ge,
    "Less": operator.lt,
    "LessOrEqual": operator.le,
    "And": operator.and_,
    "Or": operator.or_,
}.items():
    host(_name)(functools.partial(_pairwise, _test, torch.bool))


@host("Mod")
def modulo(x: Ints, y: Ints, *, fmod: int = 0) -> Any:
    return NotImplemented if fmod else _pairwise(operator.mod, None, x, y)


@host("Max")
def maximum(x: Ints, *more: Ints) -> Any:
    for y in more:
        x = _pairwise(max, None, x, y)
    return x


@host("Min")
def minimum(x: Ints, *more: Ints) -> Any:
    for y in more:
        x = _pairwise(min, None, x, y)
    return x


@host("Neg")
def negate(x: Ints) -> Ints:
    return Ints(tuple(-value for value in x.values), x.rank, x.dtype)


@host("Not")
def invert(x: Ints) -> Ints:
    return Ints(tuple(not value for value in x.values), x.rank, torch.bool)


@host("Where")
def where(condition: Ints, x: Ints, y: Ints) -> Any:
    chosen = _pairwise(lambda a, b: (a, b), None, x, y)
    if chosen is NotImplemented:
        return NotImplemented
    return _pairwise(lambda truth, pair: pair[0] if truth else pair[1], x.dtype, condition, chosen)


def _reduced(
    function: Callable[[Sequence[Any]], Any],
    x: Ints,
    at: Ints | None = None,
    *,
    axes: Sequence[int] = (),
    keepdims: int = 1,
) -> Any:
    return Ints((function(x.values),), x.rank if keepdims else 0, x.dtype)


_REDUCTIONS: dict[str, Callable[[Any], Any]] = {
    "ReduceProd": math.prod,
    "ReduceSum": sum,
    "ReduceMax": max,
    "ReduceMin": min,
}
for _name, _reduction in _REDUCTIONS.items():
    host(_name)(functools.partial(_reduced, _reduction))


@host("ConstantOfShape")
def constant_of_shape(x: Ints, *, value: Ints | None = None) -> Any:
    if value is None or value.dtype not in _INTEGERS or len(x.values) > 1 or math.prod(x.values) > _MOST:
        return NotImplemented
    return Ints(value.values * math.prod(x.values), len(x.values), value.dtype)


@host("Expand")
def expand(x: Ints, target: Ints) -> Any:
    if len(x.values) != 1 or len(target.values) > 1 or math.prod(target.values) > _MOST:
        return NotImplemented
    return Ints(x.values * math.prod(target.values), max(x.rank, len(target.values)), x.dtype)
