"""Removes Concat nodes of one operand, and operands that are empty."""

from __future__ import annotations

import dataclasses

import onnx_ir as ir

from graphopt.pipeline.base import Context, RulePass, Safety
from graphopt.rewrite.builder import Builder
from graphopt.rewrite.match import Match, Miss

__all__ = ["EliminateConcat"]


@dataclasses.dataclass(frozen=True)
class EliminateConcat(RulePass):
    """Removes Concat nodes of one operand, and operands of length 0 along the axis.

    What it does:
        Readers of a Concat of a single value read that value. An operand of static length 0 along the axis (an empty
        cache, an empty constant) adds nothing; it is left out if another operand of the same rank remains.

    Before:
        ``c = Concat<axis=1>(x, empty); y = Relu(c)``

    After:
        ``y = Relu(x)``

    Does not apply when:
        - an operand's length might be 0 only for some inputs.

    Safety:
        Exact.
    """

    name = "eliminate-concat"
    safety = Safety.EXACT
    ops = ("Concat",)

    def match(self, node: ir.Node, context: Context) -> Match | Miss | None:
        operands = [value for value in node.inputs if value is not None]
        if not operands or len(operands) != len(node.inputs):
            return None
        if len(operands) == 1:
            return Match(node, forward=(operands[0],))
        kept = _not_empty(node, operands, context)
        if len(kept) == len(operands):
            return None

        def build(builder: Builder) -> list[ir.Value | None]:
            return [kept[0] if len(kept) == 1 else builder.like(node, kept)]

        return Match(node, build=build)


def _not_empty(node: ir.Node, operands: list[ir.Value], context: Context) -> list[ir.Value]:
    """The operands that have, or might have, elements along the axis; the first if there is none."""
    axis = node.attributes.get_int("axis", 1)  # opset 1 had a default
    shapes = [context.shapes.of(value) for value in operands]
    ranks = {len(shape) for shape in shapes if shape is not None}
    if len(ranks) != 1 or not -min(ranks) <= axis < min(ranks):
        return operands
    kept = [value for value, shape in zip(operands, shapes, strict=True) if shape is None or shape[axis] != 0]
    return kept or operands[:1]
