"""What passes on shape operators read off a node, whether its opset gives numbers as an attribute or as an input."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from graphopt.analysis.dims import Dim
from graphopt.pipeline.base import Context
from graphopt.rewrite.builder import Builder

__all__ = [
    "FAR",
    "axes",
    "constant_target",
    "input_of",
    "ints_attribute",
    "is_shape_of",
    "numbers",
    "reshape",
    "result_shape",
]

FAR = 2**31 - 1
"""Exporters write the largest 32-bit or 64-bit integer for "to the end"; no axis is that long."""

_INTS = ir.AttributeType.INTS
_INT64_MAX = (1 << 63) - 1


def input_of(node: ir.Node, index: int) -> ir.Value | None:
    """The input, or ``None`` where it is left out."""
    inputs = node.inputs
    return inputs[index] if index < len(inputs) else None


def ints_attribute(node: ir.Node, name: str) -> tuple[int, ...] | None:
    """An integer-list attribute, or ``None`` if there is none of that type."""
    attribute = node.attributes.get(name)
    if attribute is None or attribute.is_ref() or attribute.type != _INTS:
        return None
    return tuple(attribute.as_ints())


def numbers(value: ir.Value | None, context: Context) -> tuple[Dim, ...] | None:
    """Contents of a small integer tensor, elements possibly symbolic, or ``None``."""
    if value is None:
        return None
    constant = context.ints(value)
    return constant if constant is not None else context.shapes.data(value)


def axes(node: ir.Node, index: int, context: Context) -> tuple[int, ...] | None:
    """The axes of a node, from its attribute or the input ``index``.

    Returns:
        The axes, ``()`` if they are left out or empty, ``None`` if they are not known before the model runs.
    """
    given = ints_attribute(node, "axes")
    if given is not None:
        return given
    value = input_of(node, index)
    return () if value is None else context.ints(value)


def is_shape_of(value: ir.Value | None, source: ir.Value, context: Context) -> bool:
    """Whether ``value`` is ``Shape(source)``, all axes of it."""
    node = context.producer(value, "Shape")
    if node is None or input_of(node, 0) is not source:
        return False
    return "end" not in node.attributes and not node.attributes.get_int("start", 0)


def result_shape(node: ir.Node, context: Context) -> tuple[Dim, ...] | None:
    """What a reshaping node or a Transpose gives by its operator's rule; a declared shape proves nothing."""
    known: object = True
    if node.op_type == "Reshape":
        given = input_of(node, 1)
        known = ints_attribute(node, "shape") if given is None else numbers(given, context)
    elif node.op_type in ("Squeeze", "Unsqueeze"):
        known = axes(node, 1, context)
    source = input_of(node, 0)
    if known is None or source is None or context.shapes.of(source) is None:
        return None
    return context.shapes.of(node.outputs[0])


def constant_target(before: tuple[Dim, ...] | None, after: tuple[Dim, ...] | None) -> list[int] | None:
    """A Reshape target from ``before`` to ``after``, or ``None``."""
    if before is None or after is None:
        return None
    open_axes = [axis for axis, dim in enumerate(after) if not isinstance(dim, int) or dim == 0]
    target = [dim if isinstance(dim, int) else -1 for dim in after]
    if max(target, default=0) > _INT64_MAX:
        return None
    if len(open_axes) <= 1:
        return [dim or -1 for dim in target]
    for axis in open_axes:
        if axis >= len(before) or before[axis] != after[axis]:
            return None
        target[axis] = 0
    return target


def reshape(builder: Builder, source: ir.Value, target: Sequence[int]) -> ir.Value:
    """Adds a Reshape to a constant target."""
    if builder.context.opset(builder.root) < 5:
        return builder.op("Reshape", [source], {"shape": target})
    return builder.op("Reshape", [source, builder.constant(np.array(target, np.int64))])
