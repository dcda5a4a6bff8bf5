"""Removes Where nodes that choose the same for all elements."""

from __future__ import annotations

import dataclasses

import onnx_ir as ir

from graphopt.pipeline.base import Context, RulePass, Safety
from graphopt.rewrite.builder import Builder
from graphopt.rewrite.match import Match, Miss

__all__ = ["EliminateWhere"]

_MAX_ELEMENTS = 1 << 16


@dataclasses.dataclass(frozen=True)
class EliminateWhere(RulePass):
    """Removes Where nodes whose condition is constant, and the Not of a condition.

    What it does:
        A condition that is true everywhere chooses the second operand, one that is false everywhere the third. If
        these two are the same value, the condition does not count. A Not of the condition goes, and the two change
        places.

    Before:
        ``n = Not(c); y = Where(n, a, b); z = Where(true, y, d); w = Relu(z)``

    After:
        ``y = Where(c, b, a); w = Relu(y)``

    Does not apply when:
        - the other operand, or the condition, makes the result larger than what is chosen;
        - the condition is not constant, can be overridden by the caller, or has more than 65,536 elements.

    Safety:
        Exact.
    """

    name = "eliminate-where"
    safety = Safety.EXACT
    ops = ("Where",)

    def match(self, node: ir.Node, context: Context) -> Match | Miss | None:
        condition, one, other = node.inputs
        if condition is None or one is None or other is None:
            return None
        contents = context.array(condition, _MAX_ELEMENTS)
        constant = contents is not None and contents.size > 0
        if one is other or (constant and contents is not None and (contents.all() or not contents.any())):
            chosen = one if one is other or (contents is not None and contents.all()) else other
            shape = context.shapes.of(chosen)
            if shape is None or shape != context.shapes.of(node.outputs[0]):
                return Miss("the result may be larger than what is chosen", node)
            return Match(node, forward=(chosen,))
        negation = context.producer(condition, "Not")
        if negation is None:
            return None

        def build(builder: Builder) -> list[ir.Value | None]:
            return [builder.like(node, [negation.inputs[0], other, one])]

        return Match(node, build=build)
