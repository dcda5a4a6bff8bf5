"""Removes casts to the type that the value has already."""

from __future__ import annotations

import dataclasses

import onnx_ir as ir

from graphopt.pipeline.base import Context, RulePass, Safety
from graphopt.rewrite.match import Match, Miss
from graphopt_passes._shape_ops import input_of

__all__ = ["EliminateCast"]


@dataclasses.dataclass(frozen=True)
class EliminateCast(RulePass):
    """Removes casts to the type that the value has already.

    What it does:
        Readers of a Cast or CastLike whose input has the target type read that input.

    Before:
        ``y = Cast<to=FLOAT>(x); z = Relu(y)`` with a float ``x``

    After:
        ``z = Relu(x)``

    Does not apply when:
        - the input's type is not known, as of a function's inputs.

    Safety:
        Exact.
    """

    name = "eliminate-cast"
    safety = Safety.EXACT
    ops = ("Cast", "CastLike")

    def match(self, node: ir.Node, context: Context) -> Match | Miss | None:
        source = input_of(node, 0)
        if source is None:
            return None
        wanted = _target(node) if node.op_type == "Cast" else _dtype(input_of(node, 1), node, context)
        if wanted is None:
            return None
        own = _dtype(source, node, context)
        if own is None:
            return Miss("the type of the Cast's input is not known", node)
        return Match(node, forward=(source,)) if own == wanted else None


def _target(node: ir.Node) -> int | None:
    """The type to cast to; before opset 6 it was given by name."""
    to = node.attributes.get("to")
    if to is None:
        return None
    if to.type == ir.AttributeType.STRING:
        return ir.DataType.__members__.get(to.as_string().upper())
    return to.as_int() if to.type == ir.AttributeType.INT else None


def _dtype(value: ir.Value | None, node: ir.Node, context: Context) -> ir.DataType | None:
    """The element type. What a function declares of its values is not trusted: each call may bring other types."""
    if value is None:
        return None
    declared = value.dtype if context.scope(node).function is None else None
    found = declared if declared is not None else context.shapes.dtype(value)
    return None if found == ir.DataType.UNDEFINED else found
