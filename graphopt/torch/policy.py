"""Which constants of a graph are weights, and which of them train."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal, TypeAlias

import numpy as np
import onnx_ir as ir

from graphopt.analysis import constants

__all__ = ["Policy", "is_statistic", "is_weight"]

Policy: TypeAlias = Literal["weights", "all", "none"] | Callable[[ir.Value], bool]
"""What trains: the weights, every constant of floats, nothing, or those constants for which a function is true."""

_FIXED: Final[dict[str, frozenset[int]]] = {
    "Clip": frozenset({1, 2}),
    "Pad": frozenset({2}),
    "Resize": frozenset({1, 2}),
    "Upsample": frozenset({1}),
    "OneHot": frozenset({2}),
    "Range": frozenset({0, 1, 2}),
    "NonMaxSuppression": frozenset({3, 4}),
    "Pow": frozenset({1}),
    "QuantizeLinear": frozenset({1}),
    "DequantizeLinear": frozenset({1}),
    "QLinearConv": frozenset({1, 4, 6}),
    "QLinearMatMul": frozenset({1, 4, 6}),
    "Dropout": frozenset({1}),
    "Less": frozenset({0, 1}),
    "Greater": frozenset({0, 1}),
    "LessOrEqual": frozenset({0, 1}),
    "GreaterOrEqual": frozenset({0, 1}),
    "Equal": frozenset({0, 1}),
}
"""Inputs that are settings, not weights."""
_ARITHMETIC: Final = frozenset({"Add", "Sub", "Mul", "Div", "Pow", "Max", "Min", "Where", "Sum", "Mean", "Mod"})
_ABSURD: Final = 1e30  # a mask's fill value
_BIG: Final = 1 << 16


def is_statistic(value: ir.Value) -> bool:
    """Whether it is the running mean or variance of a BatchNormalization."""
    return any(node.op_type == "BatchNormalization" and place in (3, 4) for node, place in _uses(value))


def is_weight(value: ir.Value, tensor: ir.TensorProtocol) -> bool:
    """Whether a constant of floats is something that training would change.

    Scalars, one-element operands of arithmetic, settings (bounds, scales of quantization, exponents) and masks are not.
    """
    if tensor.dtype not in constants.FLOAT_TYPES or not len(tensor.shape) or is_statistic(value):
        return False
    uses = _uses(value)
    if uses and all(place in _FIXED.get(node.op_type, ()) for node, place in uses):
        return False
    if tensor.size == 1 and uses and all(node.op_type in _ARITHMETIC for node, _ in uses):
        return False
    if 0 < tensor.size <= _BIG:
        array = np.asarray(tensor.numpy(), np.float64)
        return bool(np.isfinite(array).all() and np.abs(array).max() < _ABSURD)
    return True


def _uses(value: ir.Value) -> list[tuple[ir.Node, int]]:
    """Who reads a value in which place, directly or under another name."""
    found = []
    for use in value.uses():
        if use.node.op_type == "Identity" and not use.node.domain:
            found += _uses(use.node.outputs[0])
        else:
            found.append((use.node, use.idx))
    return found
