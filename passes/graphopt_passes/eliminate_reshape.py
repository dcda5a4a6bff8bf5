"""Removes Reshape, Flatten, Squeeze and Unsqueeze nodes that keep the shape."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import onnx_ir as ir

from graphopt.analysis.dims import lower_bound, product
from graphopt.pipeline.base import Context, RulePass, Safety
from graphopt.rewrite.match import Match, Miss
from graphopt_passes._shape_ops import axes, input_of, ints_attribute, is_shape_of, numbers

__all__ = ["EliminateReshape"]


@dataclasses.dataclass(frozen=True)
class EliminateReshape(RulePass):
    """Removes Reshape, Flatten, Squeeze and Unsqueeze nodes that provably keep the shape.

    What it does:
        Reshape: each target extent is the input's own, a copying ``0``, or the one ``-1``; or the target is the
        input's Shape. Flatten: the input is a matrix already. Squeeze: there is no axis of length 1 to take.
        Unsqueeze: there are no axes to add. Extents may be symbolic.

    Before:
        ``y = Reshape(x, [0, -1]); z = Relu(y)`` with a two-dimensional ``x``

    After:
        ``z = Relu(x)``

    Does not apply when:
        - the equality holds only for some inputs (``[2, 4]`` for an ``x`` of ``[N, 4]``);
        - ``allowzero`` is set and the target has a ``0`` where the input has not;
        - a Squeeze names axes, or names none and an extent might be 1 (runtimes take an empty list for none).

    Safety:
        Exact.
    """

    name = "eliminate-reshape"
    safety = Safety.EXACT
    ops = ("Reshape", "Flatten", "Squeeze", "Unsqueeze")

    def match(self, node: ir.Node, context: Context) -> Match | Miss | None:
        source = input_of(node, 0)
        if source is None or not _KEEPS_SHAPE[node.op_type](node, source, context):
            return None
        return Match(node, forward=(source,))


def _reshape(node: ir.Node, source: ir.Value, context: Context) -> bool:
    given = input_of(node, 1)
    if is_shape_of(given, source, context):
        return True
    target = ints_attribute(node, "shape") if given is None else numbers(given, context)
    shape = context.shapes.of(source) if target is not None else None
    if target is None or shape is None or len(target) != len(shape) or target.count(-1) > 1:
        return False
    copied = () if node.attributes.get_int("allowzero", 0) else (0,)
    return all(dim == own or dim == -1 or dim in copied for dim, own in zip(target, shape, strict=True))


def _flatten(node: ir.Node, source: ir.Value, context: Context) -> bool:
    axis = node.attributes.get_int("axis", 1)
    if not -2 <= axis <= 2:
        return False
    shape = context.shapes.of(source)
    return shape is not None and len(shape) == 2 and (product(shape[:axis]), product(shape[axis:])) == shape


def _squeeze(node: ir.Node, source: ir.Value, context: Context) -> bool:
    if axes(node, 1, context) != ():
        return False
    shape = context.shapes.of(source)
    return shape is not None and all(dim == 0 or (lower_bound(dim) or 0) > 1 for dim in shape)


def _unsqueeze(node: ir.Node, source: ir.Value, context: Context) -> bool:
    return axes(node, 1, context) == ()


_KEEPS_SHAPE: dict[str, Callable[[ir.Node, ir.Value, Context], bool]] = {
    "Reshape": _reshape,
    "Flatten": _flatten,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
}
