"""Operators that work element by element; what does not have an axis is one number along it, or unknown."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir

from graphopt.analysis import constants
from graphopt.channels.liveness.lanes import Floats, Rule, Step, carrying, rounded, same, zero_only

__all__ = ["TABLE"]

_FLOAT8_TYPES = frozenset(
    {
        ir.DataType.FLOAT8E4M3FN,
        ir.DataType.FLOAT8E4M3FNUZ,
        ir.DataType.FLOAT8E5M2,
        ir.DataType.FLOAT8E5M2FNUZ,
    }
)
_ROUNDED_TO_EVEN = constants.FLOAT_TYPES | _FLOAT8_TYPES


def _unary(step: Step) -> None:
    step.carry(step.applied)


def _cast(step: Step) -> None:
    """Rounds; what is too large for the target is left unknown, as types differ in whether it saturates."""
    to = ir.DataType(step.integer("to", 0))
    if to in _ROUNDED_TO_EVEN:
        step.carry(lambda lanes: rounded(lanes, to))
    elif to != ir.DataType.FLOAT8E8M0:  # has no zero
        step.carry(zero_only)


def _each(step: Step, function: Callable[..., Floats]) -> None:
    """Applies a function of all inputs to the lanes of each axis; what does not have the axis is one number or NaN."""
    given = [index for index in range(len(step.node.inputs)) if step.has(index)]
    if not any(step.any_known(index) for index in given):
        return
    axes = step.gives()
    for place, axis in enumerate(axes):
        having = {}
        for index in given:
            own = step.axes(index)
            at = place - len(axes) + len(own)
            if at >= 0 and own[at].size != 1:
                having[index] = step.lanes(index, at)
        if axis.size == 1 or not having or len({len(one) for one in having.values()}) > 1:
            continue
        if all(np.isnan(one).all() for one in having.values()):
            continue
        size = len(next(iter(having.values())))
        operands = [having.get(index, np.full(size, step.number(index))) for index in given]
        with np.errstate(all="ignore"):
            step.give_lanes(place, function(*operands))


def _elementwise(function: Callable[..., Floats]) -> Rule:
    return lambda step: _each(step, function)


def _sum(*operands: Floats) -> Floats:
    return functools.reduce(np.add, operands)


def _mean(*operands: Floats) -> Floats:
    return _sum(*operands) / len(operands)


def _largest(*operands: Floats) -> Floats:
    return functools.reduce(np.maximum, operands)


def _smallest(*operands: Floats) -> Floats:
    return functools.reduce(np.minimum, operands)


def _product(a: Floats, b: Floats) -> Floats:
    return np.where((a == 0) | (b == 0), 0.0, a * b)


def _quotient(a: Floats, b: Floats) -> Floats:
    return np.where(a == 0, 0.0, a / b)


def _power(a: Floats, b: Floats) -> Floats:
    return np.where(np.isnan(a) | np.isnan(b), np.nan, a**b)


def _sloped(x: Floats, slope: Floats) -> Floats:
    return np.where(x >= 0, x, x * slope)


def _either(condition: Floats, a: Floats, b: Floats) -> Floats:
    same = np.where(a == b, a, np.nan)
    return np.where(np.isnan(condition), same, np.where(condition != 0, a, b))


def _clip(step: Step) -> None:
    attributes = step.node.attributes
    low = step.number(1) if step.has(1) else attributes.get_float("min", -math.inf)
    high = step.number(2) if step.has(2) else attributes.get_float("max", math.inf)
    step.carry(lambda lanes: np.minimum(np.maximum(lanes, low), high))


def _bias_gelu(step: Step) -> None:
    """Only what stays zero: the formulas differ in rounding."""
    _each(step, lambda *operands: zero_only(_sum(*operands)))


_UNARY: Sequence[str] = (
    "Abs", "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "Ceil", "Celu", "Cos", "Cosh", "Elu", "Erf", "Exp",
    "Floor", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "Log", "Mish", "Neg", "Reciprocal", "Relu", "Round",
    "Selu", "Shrink", "Sigmoid", "Sign", "Sin", "Sinh", "Softplus", "Softsign", "Sqrt", "Swish", "Tan", "Tanh",
    "ThresholdedRelu", "com.microsoft::Gelu", "com.microsoft::QuickGelu",
)  # fmt: skip

TABLE: dict[str, Rule] = {
    **dict.fromkeys(_UNARY, _unary),
    **dict.fromkeys(("Dropout", "Identity"), carrying(same)),
    **dict.fromkeys(("com.microsoft::BiasGelu", "com.microsoft::FastGelu"), _bias_gelu),
    "Add": _elementwise(_sum),
    "Cast": _cast,
    "Clip": _clip,
    "Div": _elementwise(_quotient),
    "Max": _elementwise(_largest),
    "Mean": _elementwise(_mean),
    "Min": _elementwise(_smallest),
    "Mul": _elementwise(_product),
    "PRelu": _elementwise(_sloped),
    "Pow": _elementwise(_power),
    "Sub": _elementwise(np.subtract),
    "Sum": _elementwise(_sum),
    "Where": _elementwise(_either),
}
