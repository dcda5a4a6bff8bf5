"""Removes Expand nodes that keep the shape."""

from __future__ import annotations

import dataclasses

import onnx_ir as ir

from graphopt.pipeline.base import Context, RulePass, Safety
from graphopt.rewrite.match import Match, Miss
from graphopt_passes._shape_ops import input_of, is_shape_of, numbers

__all__ = ["EliminateExpand"]


@dataclasses.dataclass(frozen=True)
class EliminateExpand(RulePass):
    """Removes Expand nodes that keep the shape.

    What it does:
        Readers of an Expand whose target, aligned from the right, is 1 or the input's own extent on each axis read
        its input. Extents may be symbolic.

    Before:
        ``y = Expand(x, [1, 4]); z = Relu(y)`` with an ``x`` of ``[N, 4]``

    After:
        ``z = Relu(x)``

    Does not apply when:
        - the target has more axes than the input, or an extent that might differ.

    Safety:
        Exact.
    """

    name = "eliminate-expand"
    safety = Safety.EXACT
    ops = ("Expand",)

    def match(self, node: ir.Node, context: Context) -> Match | Miss | None:
        source, given = input_of(node, 0), input_of(node, 1)
        if source is None:
            return None
        if is_shape_of(given, source, context):
            return Match(node, forward=(source,))
        target = numbers(given, context)
        if target is None:
            return Miss("the target of the Expand is not known", node)
        shape = context.shapes.of(source)
        if shape is None or len(target) > len(shape):
            return None
        aligned = zip(target, shape[len(shape) - len(target) :], strict=True)
        return Match(node, forward=(source,)) if all(dim == 1 or dim == own for dim, own in aligned) else None
