"""Which constants of a graph are weights, and which of them train."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal, TypeAlias

import numpy as np
import onnx_ir as ir

from graphopt.analysis import constants

__all__ = ["Policy", "dequantizer", "is_statistic", "is_weight"]

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
_INTEGERS: Final = (ir.DataType.INT8, ir.DataType.UINT8, ir.DataType.INT16, ir.DataType.UINT16, ir.DataType.INT32)
_MOST: Final = 1 << 22  # integers beyond it, times a scale, do not find back through float32
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
    if _is_setting(value):
        return False
    if tensor.size == 1 and uses and all(node.op_type in _ARITHMETIC for node, _ in uses):
        return False
    if 0 < tensor.size <= _BIG:
        array = np.asarray(tensor.numpy(), np.float64)
        return bool(np.isfinite(array).all() and np.abs(array).max() < _ABSURD)
    return True


def dequantizer(value: ir.Value, tensor: ir.TensorProtocol) -> ir.Node | None:
    """The DequantizeLinear, by a constant scale, of a weight in integers that nobody else reads."""
    uses = value.uses()
    if tensor.dtype not in _INTEGERS or not len(tensor.shape) or len(uses) != 1 or value.is_graph_output():
        return None
    ((node, place),) = ((use.node, use.idx) for use in uses)
    if node.op_type != "DequantizeLinear" or node.domain or place or value.is_graph_input():
        return None
    floats = node.outputs[0]
    if (
        is_statistic(floats)
        or _is_setting(floats)
        or not all(one is None or _is_settled(one) for one in node.inputs[1:])
    ):
        return None
    if tensor.dtype == ir.DataType.INT32 and np.abs(tensor.numpy().astype(np.int64)).max(initial=0) >= _MOST:
        return None
    return node


def _is_setting(value: ir.Value) -> bool:
    uses = _uses(value)
    return bool(uses) and all(place in _FIXED.get(node.op_type, ()) for node, place in uses)


def _is_settled(value: ir.Value) -> bool:
    held = value.const_value if value.is_initializer() else constants.constant(value)
    return held is not None and not value.is_graph_input()


def _uses(value: ir.Value) -> list[tuple[ir.Node, int]]:
    """Who reads a value in which place, directly or under another name."""
    found = []
    for use in value.uses():
        if use.node.op_type == "Identity" and not use.node.domain:
            found += _uses(use.node.outputs[0])
        else:
            found.append((use.node, use.idx))
    return found
