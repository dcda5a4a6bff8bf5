"""Elementwise arithmetic, comparison, logic and bits."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from graphopt.torch.node import OpNode
from graphopt.torch.registry import builds, op

__all__ = ["aligned", "narrow", "wide"]

_UNSIGNED = frozenset({torch.uint16, torch.uint32, torch.uint64})
_SIGN = -(1 << 63)


def wide(x: Tensor) -> Tensor:
    """Unsigned types that torch stores but does not compute with, in int64 (the same bits for uint64)."""
    return x.to(torch.int64) if x.dtype in _UNSIGNED else x


def narrow(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Back from :func:`wide`; out-of-range values wrap."""
    return x.to(dtype) if dtype in _UNSIGNED else x


def _ordered(x: Tensor) -> Tensor:
    """Like :func:`wide`, but order survives."""
    if x.dtype == torch.uint64:
        return x.view(torch.int64) ^ _SIGN
    return wide(x)


def aligned(x: Tensor, other: Tensor, axis: int | None) -> Tensor:
    """``other`` with trailing dimensions of one, so that its first lies at ``axis`` of ``x`` (before opset 7)."""
    if axis is None or other.ndim == 0:
        return other
    return other.reshape(*other.shape, *[1] * (x.ndim - axis % x.ndim - other.ndim))


def _unary(function: Callable[..., Tensor], x: Tensor) -> Tensor:
    return function(x) if x.dtype not in _UNSIGNED else function(wide(x)).to(x.dtype)


for _name, _function in {
    "Abs": torch.abs,
    "Acos": torch.acos,
    "Acosh": torch.acosh,
    "Asin": torch.asin,
    "Asinh": torch.asinh,
    "Atan": torch.atan,
    "Atanh": torch.atanh,
    "Ceil": torch.ceil,
    "Cos": torch.cos,
    "Cosh": torch.cosh,
    "Erf": torch.erf,
    "Exp": torch.exp,
    "Floor": torch.floor,
    "IsNaN": torch.isnan,
    "Log": torch.log,
    "Neg": torch.neg,
    "Not": torch.logical_not,
    "Reciprocal": torch.reciprocal,
    "Round": torch.round,
    "Sign": torch.sign,
    "Sin": torch.sin,
    "Sinh": torch.sinh,
    "Sqrt": torch.sqrt,
    "Tan": torch.tan,
    "BitwiseNot": torch.bitwise_not,
}.items():
    if _name in {"Abs", "Sign", "BitwiseNot", "Neg"}:
        builds(_name)(functools.partial(lambda function, node: functools.partial(_unary, function), _function))
    else:
        builds(_name)(functools.partial(lambda function, node: function, _function))


def _binary(function: Callable[..., Tensor], x: Tensor, y: Tensor) -> Tensor:
    if x.dtype in _UNSIGNED:
        return function(wide(x), wide(y)).to(x.dtype)
    return function(x, y)


def _compare(function: Callable[..., Tensor], x: Tensor, y: Tensor) -> Tensor:
    return function(_ordered(x), _ordered(y)) if x.dtype in _UNSIGNED else function(x, y)


def _divide(x: Tensor, y: Tensor) -> Tensor:
    if x.is_floating_point() or y.is_floating_point():
        return torch.div(x, y)
    return torch.div(x, y, rounding_mode="trunc")


def _power(x: Tensor, y: Tensor) -> Tensor:
    return torch.pow(x, y) if x.is_floating_point() else torch.pow(x, y).to(x.dtype)


_ARITHMETIC: dict[str, Callable[..., Any]] = {
    "Add": torch.add,
    "Sub": torch.sub,
    "Mul": torch.mul,
    "Div": _divide,
    "Pow": _power,
    "BitwiseAnd": torch.bitwise_and,
    "BitwiseOr": torch.bitwise_or,
    "BitwiseXor": torch.bitwise_xor,
}
_COMPARISON: dict[str, Callable[..., Any]] = {
    "Equal": torch.eq,
    "Greater": torch.gt,
    "GreaterOrEqual": torch.ge,
    "Less": torch.lt,
    "LessOrEqual": torch.le,
    "And": torch.logical_and,
    "Or": torch.logical_or,
    "Xor": torch.logical_xor,
}


@builds(*_ARITHMETIC, *_COMPARISON, since=1)
def before_broadcasting(node: OpNode) -> Callable[..., Tensor]:
    name = node.node.op_type
    inner = functools.partial(_binary, _ARITHMETIC[name]) if name in _ARITHMETIC else _COMPARISON[name]
    return functools.partial(_along, inner, axis=node.attribute("axis"))


def _along(inner: Callable[..., Tensor], x: Tensor, y: Tensor, *, axis: int | None) -> Tensor:
    return inner(x, aligned(x, y, axis))


@builds(*_ARITHMETIC, since=7)
def arithmetic(node: OpNode) -> Callable[..., Tensor]:
    function = _ARITHMETIC[node.node.op_type]
    kind = node.dtype(0)
    return function if kind is not None and kind.is_floating_point() else functools.partial(_binary, function)


@builds(*_COMPARISON, since=7)
def comparison(node: OpNode) -> Callable[..., Tensor]:
    return functools.partial(_compare, _COMPARISON[node.node.op_type])


@builds("Pow", since=7)
def power(node: OpNode) -> Callable[..., Tensor]:
    """A constant exponent is a number: squares are then products, and their gradient needs no logarithm."""
    exponent = node.constant(1)
    if exponent is not None and exponent.numel() == 1 and exponent.ndim == 0 and exponent.dtype.is_floating_point:
        kind = node.dtype(0)
        if kind is not None and kind.is_floating_point():
            return functools.partial(_power_of, exponent=exponent.item())
    return functools.partial(_binary, _power)


def _power_of(x: Tensor, _: Tensor, *, exponent: float) -> Tensor:
    return torch.pow(x, exponent)


@op("Mod", since=10)
def modulo(x: Tensor, y: Tensor, *, fmod: int = 0) -> Tensor:
    return _binary(torch.fmod if fmod else torch.remainder, x, y)


@op("BitShift", since=11)
def bit_shift(x: Tensor, y: Tensor, *, direction: str) -> Tensor:
    if direction == "LEFT":
        return _binary(torch.bitwise_left_shift, x, y)
    if x.dtype != torch.uint64:
        return _binary(torch.bitwise_right_shift, x, y)
    shift = y.to(torch.int64)
    first = (x.view(torch.int64) >> torch.clamp(shift, max=1)) & torch.where(shift > 0, ~_SIGN, -1)
    return (first >> torch.clamp(shift - 1, min=0)).view(torch.uint64)


@op("IsInf", since=10)
def is_inf(x: Tensor, *, detect_negative: int = 1, detect_positive: int = 1) -> Tensor:
    found = torch.zeros_like(x, dtype=torch.bool)
    if detect_negative:
        found = found | torch.isneginf(x)
    return found | torch.isposinf(x) if detect_positive else found


@op("Identity")
def identity(x: Any) -> Any:
    return x


@op("Where", since=9)
def where(condition: Tensor, x: Tensor, y: Tensor) -> Tensor:
    return torch.where(condition, x, y)


def _fold(function: Callable[..., Tensor], xs: tuple[Tensor, ...]) -> Tensor:
    result = xs[0]
    for x in xs[1:]:
        result = function(result, x)
    return result


@op("Max")
def maximum(*xs: Tensor) -> Tensor:
    if xs[0].dtype in _UNSIGNED:
        return _extreme(xs, torch.maximum)
    return _fold(torch.maximum, xs)


@op("Min")
def minimum(*xs: Tensor) -> Tensor:
    if xs[0].dtype in _UNSIGNED:
        return _extreme(xs, torch.minimum)
    return _fold(torch.minimum, xs)


def _extreme(xs: tuple[Tensor, ...], function: Callable[..., Tensor]) -> Tensor:
    found = _fold(function, tuple(_ordered(x) for x in xs))
    return (found ^ _SIGN).view(torch.uint64) if xs[0].dtype == torch.uint64 else found.to(xs[0].dtype)


@op("Sum")
def total(*xs: Tensor) -> Tensor:
    return _fold(torch.add, xs)


@op("Mean")
def mean(*xs: Tensor) -> Tensor:
    return _fold(torch.add, xs) / len(xs)
