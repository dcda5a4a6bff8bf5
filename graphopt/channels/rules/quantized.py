"""Quantization: scales go with their channels, and the masked value is the zero point."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from graphopt.analysis import constants
from graphopt.channels.op import Op, Unlinkable
from graphopt.channels.rules.rule import Rule, Table

__all__ = ["TABLE"]


def _quantize(op: Op) -> None:
    """QuantizeLinear and DequantizeLinear: x, scale, zero point."""
    axes, zeros = op.axes(0), op.zeros(0)
    if op.integer("block_size", 0):
        raise Unlinkable(f"{op.node.op_type} in blocks has no rule")
    for index in (1, 2):
        if not op.has(index):
            continue
        own = op.axes(index)
        op.keep(index)
        if len(own) > 1:
            raise Unlinkable(f"{op.node.op_type} in blocks has no rule")
        if own and own[0].size != 1:
            op.unite(own[0], axes[op.axis(1, len(axes))])
    if op.is_constant(0) and op.node.op_type == "DequantizeLinear":
        op.quantized(0, 2, op.integer("axis", 1) % max(len(axes), 1))
    elif op.node.op_type == "DequantizeLinear" and _is_moved_constant(op.value(0)) and _is_shifted(op):
        zeros = (False,) * len(axes)
    op.give(axes, zeros)


_MOVERS = ("Concat", "Flatten", "Gather", "Identity", "Reshape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze")


def _is_moved_constant(value: ir.Value | None) -> bool:
    """Whether it holds elements of constants, which masking makes zero and not the zero point."""
    while value is not None and (producer := value.producer()) is not None and producer.op_type in _MOVERS:
        value = producer.inputs[0]
    return constants.constant(value) is not None


def _is_shifted(op: Op) -> bool:
    points = constants.array(op.value(2)) if op.has(2) else np.zeros(1)
    return points is None or bool(points.astype(np.int64).any())


def _dynamic_quantize(op: Op) -> None:
    """The scale is that of the largest lane; zero is always within its range, so zero lanes change nothing."""
    axes, zeros = op.axes(0), op.zeros(0)
    for axis, zero in zip(axes, zeros, strict=True):
        if isinstance(axis.size, int) and axis.size != 1 and not zero:
            op.freeze(axis, "its range is measured over all lanes, also those that masking leaves")
    op.give(axes, zeros)
    op.give((), True, output=1)
    op.give((), True, output=2)


TABLE: Table = {
    "DequantizeLinear": Rule(_quantize),
    "DynamicQuantizeLinear": Rule(_dynamic_quantize),
    "QuantizeLinear": Rule(_quantize),
}
