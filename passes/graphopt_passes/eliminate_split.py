"""Removes Split nodes that split nothing, or what was just put together."""

from __future__ import annotations

import dataclasses

import onnx_ir as ir

from graphopt.pipeline.base import Context, RulePass, Safety
from graphopt.rewrite.match import Match, Miss
from graphopt_passes._shape_ops import input_of, ints_attribute

__all__ = ["EliminateSplit"]


@dataclasses.dataclass(frozen=True)
class EliminateSplit(RulePass):
    """Removes Split nodes of one output, and those that take a Concat apart into its operands.

    What it does:
        Readers of the one output read what is split. Readers of the outputs of a Split of a Concat, along the same
        axis and where the operands meet, read the operands.

    Before:
        ``c = Concat <axis=1> (a, b); s, t = Split <axis=1> (c, [3, 5]); y = Mul(s, t)`` with ``a: [N, 3]`` and
        ``b: [N, 5]``

    After:
        ``y = Mul(a, b)``

    Does not apply when:
        - the lengths of operands and outputs are not all known, or differ;
        - an output is a graph output that would have to be computed by another node.

    Safety:
        Exact.
    """

    name = "eliminate-split"
    safety = Safety.EXACT
    ops = ("Split",)

    def match(self, node: ir.Node, context: Context) -> Match | Miss | None:
        source = input_of(node, 0)
        if source is None:
            return None
        if len(node.outputs) == 1:
            return Match(node, forward=(source,)) if _is_complete(node, source, context) else None
        concat = context.producer(source, "Concat")
        if concat is None or len(concat.inputs) != len(node.outputs):
            return None
        rank = context.shapes.rank(source)
        axis = concat.attributes.get_int("axis", 1)
        if rank is None or (axis - node.attributes.get_int("axis", 0)) % rank:
            return Miss("the two are not along the same axis", node)
        for operand, output in zip(concat.inputs, node.outputs, strict=True):
            before, after = (context.shapes.of(value) if value is not None else None for value in (operand, output))
            if before is None or after is None or len(before) != rank or before[axis] != after[axis]:
                return Miss("the lengths of operands and outputs are not known to be the same", node)
        return Match(node, forward=list(concat.inputs))


def _is_complete(node: ir.Node, source: ir.Value, context: Context) -> bool:
    """Whether the only output is all of the source, as it must be: a runtime refuses other sizes."""
    return context.opset(node) >= 2 or ints_attribute(node, "split") is None
