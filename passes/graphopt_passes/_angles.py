"""Whether tables of cosines and sines repeat their first half, as those of rotary embeddings do."""

from __future__ import annotations

from typing import Final

import numpy as np
import onnx_ir as ir

from graphopt.analysis.dims import Dim
from graphopt.pipeline.base import Context
from graphopt_passes._slices import read

__all__ = ["repeats"]

_ROWWISE: Final = frozenset(
    {"Cast", "Cos", "Div", "Expand", "Gather", "Mul", "Neg", "Reshape", "Sin", "Slice", "Unsqueeze"}
)
"""What computes each row (along the last axis) of its result from a row of the first input, element by element, if the
last extent stays."""


def repeats(value: ir.Value | None, size: Dim, context: Context) -> bool:
    """Whether the second half of each row is the first once more."""
    while value is not None:
        shape = context.shapes.of(value)
        if not shape or shape[-1] != size:
            return False
        constant = context.constant(value)
        if constant is not None:
            low, high = np.split(constant.numpy(), 2, axis=-1)
            return bool(np.array_equal(low, high))
        node = context.producer(value, "Concat", *_ROWWISE)
        if node is None:
            return False
        if node.op_type == "Concat":
            axis = node.attributes.get_int("axis", 0)
            return axis in (-1, len(shape) - 1) and len(node.inputs) == 2 and node.inputs[0] is node.inputs[1]
        value = _row_source(node, len(shape), context)
    return False


def _row_source(node: ir.Node, rank: int, context: Context) -> ir.Value | None:
    """The input whose rows a row-wise node keeps; ``None`` if it does not."""
    source = node.inputs[0]
    if node.op_type in ("Mul", "Div"):
        other = node.inputs[1]
        if context.scalar(other) is not None:
            return source
        return other if node.op_type == "Mul" and context.scalar(source) is not None else None
    if source is None or (node.op_type == "Gather" and _last_axis(node, source, context)):
        return None
    if node.op_type == "Slice":
        cut = read(node, context)
        last = (context.shapes.rank(source) or 0) - 1
        return source if cut is not None and not {last, -1} & set(cut.bounds) else None
    return source


def _last_axis(node: ir.Node, source: ir.Value, context: Context) -> bool:
    return node.attributes.get_int("axis", 0) in (-1, (context.shapes.rank(source) or 0) - 1)
