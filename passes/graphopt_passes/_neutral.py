"""What the passes share that remove arithmetic with a constant that changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from graphopt.analysis.dims import broadcast
from graphopt.pipeline.base import Context

__all__ = ["Test", "is_filled", "other_operand"]

Test: TypeAlias = Callable[[npt.NDArray[Any]], bool]
"""Whether an operand with these contents changes nothing."""

_MAX_ELEMENTS = 1 << 16


def other_operand(node: ir.Node, position: int, test: Test, context: Context) -> ir.Value | str | None:
    """The operand that the result equals, if the one at ``position`` is constant and passes ``test``.

    Returns:
        The operand; or why it is not the result though the constant passes; or ``None``.
    """
    if len(node.inputs) != 2:
        return None
    neutral, other = node.inputs[position], node.inputs[1 - position]
    contents = context.array(neutral, _MAX_ELEMENTS)
    if contents is None or neutral is None or other is None or not contents.size or not test(contents):
        return None
    if context.opset(node) < 7:
        return "before opset 7, arithmetic broadcasts by attributes"
    if not _keeps_shape(other, contents.shape, context):
        return "the constant may give the result another shape"
    return other


def is_filled(contents: npt.NDArray[Any], number: float, negative: bool = False) -> bool:
    """Whether all elements are ``number``; of zeros of a floating-point type, those of the given sign."""
    if contents.flat[0] != number or not np.all(contents == number):
        return False
    if number or contents.dtype.kind in "iub":
        return True
    return bool(np.all(np.signbit(contents) == negative))


def _keeps_shape(value: ir.Value, added: tuple[int, ...], context: Context) -> bool:
    """Whether ``value`` broadcast with a shape of numbers has its own shape."""
    shape = context.shapes.of(value)
    if shape is None:
        return not added
    if len(added) > len(shape):
        return False
    aligned = zip(shape[len(shape) - len(added) :], added, strict=True)
    return all(size == 1 or broadcast(dim, size) == dim for dim, size in aligned)
