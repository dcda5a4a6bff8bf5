"""Removes quantizing anew what was quantized like that before."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx_ir as ir

from graphopt.pipeline.base import Context, RulePass, Safety
from graphopt.rewrite.match import Match, Miss
from graphopt_passes._shape_ops import input_of

__all__ = ["EliminateQuantize"]

_INTEGERS = (
    ir.DataType.INT8, ir.DataType.UINT8, ir.DataType.INT16, ir.DataType.UINT16, ir.DataType.INT4, ir.DataType.UINT4,
)  # fmt: skip
_SMALLEST, _LARGEST = 1e-30, 1e30
"""Scales between these neither overflow nor lose bits, whatever integer they are multiplied with."""


@dataclasses.dataclass(frozen=True)
class EliminateQuantize(RulePass):
    """Removes a QuantizeLinear of a DequantizeLinear with the same scale and zero point.

    What it does:
        Dequantizing an integer and quantizing it again by the same numbers gives the integer: the product and the
        quotient are off by far less than one half.

    Before:
        ``f = DequantizeLinear(q, s, z); r = QuantizeLinear(f, s, z); y = DequantizeLinear(r, s, z)``

    After:
        ``y = DequantizeLinear(q, s, z)``

    Does not apply when:
        - scales, zero points, axes or types differ, or a precision is asked for;
        - the scales are not constants of type float32 between 1e-30 and 1e30.

    Safety:
        Exact.
    """

    name = "eliminate-quantize"
    safety = Safety.EXACT
    ops = ("QuantizeLinear",)

    def match(self, node: ir.Node, context: Context) -> Match | Miss | None:
        inner = context.producer(input_of(node, 0), "DequantizeLinear")
        source = None if inner is None else input_of(inner, 0)
        if inner is None or source is None:
            return None
        dtype = context.shapes.dtype(source)
        if dtype not in _INTEGERS or dtype != context.shapes.dtype(node.outputs[0]):
            return Miss("the two integer types differ, or are not known", node)
        if any(not _same(input_of(inner, index), input_of(node, index), context) for index in (1, 2)):
            return Miss("scales or zero points differ", node)
        if "output_dtype" in inner.attributes or "precision" in node.attributes:
            return Miss("the numbers in between are of another precision", node)
        if any(inner.attributes.get_int(*one) != node.attributes.get_int(*one) for one in _ATTRIBUTES):
            return Miss("the axes differ", node)
        scale = context.array(input_of(node, 1))
        if scale is None or scale.dtype != np.float32 or not np.all((scale > _SMALLEST) & (scale < _LARGEST)):
            return Miss("the scale is not a constant of type float32, or an extreme one", node)
        return Match(node, forward=(source,))


_ATTRIBUTES = (("axis", 1), ("block_size", 0))


def _same(one: ir.Value | None, other: ir.Value | None, context: Context) -> bool:
    """Whether the two are the same value, or equal constants; a zero point left out is 0."""
    if one is other:
        return True
    contents = [context.array(value) if value is not None else np.zeros((), np.int8) for value in (one, other)]
    first, second = contents
    if first is None or second is None:
        return False
    if one is None or other is None:
        return not first.any() and not second.any()
    return first.shape == second.shape and bool(np.array_equal(first, second))
