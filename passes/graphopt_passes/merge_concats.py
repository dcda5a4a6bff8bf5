"""Merges a Concat of Concats into one."""

from __future__ import annotations

import dataclasses

import onnx_ir as ir

from graphopt.pipeline.base import Context, RulePass, Safety
from graphopt.rewrite.match import Match, Miss

__all__ = ["MergeConcats"]


@dataclasses.dataclass(frozen=True)
class MergeConcats(RulePass):
    """Merges a Concat into the Concat along the same axis that reads it.

    What it does:
        The outer one reads what the inner one reads. One copy of its elements is saved.

    Before:
        ``c = Concat <axis=1> (a, b); y = Concat <axis=1> (c, d)``

    After:
        ``y = Concat <axis=1> (a, b, d)``

    Does not apply when:
        - anything else reads what the inner one gives (the outer one, a second time), or it is a graph output;
        - the axes differ, or might.

    Safety:
        Exact.
    """

    name = "merge-concats"
    safety = Safety.EXACT
    ops = ("Concat",)

    def match(self, node: ir.Node, context: Context) -> Match | Miss | None:
        producers = [context.producer(value, "Concat") for value in node.inputs]
        if not any(producers):
            return None
        axis = node.attributes.get_int("axis", 1)  # opset 1 had a default
        operands: list[ir.Value | None] = []
        for value, inner in zip(node.inputs, producers, strict=True):
            mergeable = inner is not None and _is_part(inner, node, axis, context)
            operands += inner.inputs if inner is not None and mergeable else [value]
        if len(operands) == len(node.inputs):
            return Miss("the inner result is read elsewhere, or joined along another axis", node)
        return Match(node, build=lambda builder: [builder.like(node, operands)])


def _is_part(inner: ir.Node, node: ir.Node, axis: int, context: Context) -> bool:
    if inner.graph is not node.graph or not context.only_reader(inner.outputs[0], node):
        return False
    own = inner.attributes.get_int("axis", 1)
    if own == axis:
        return True
    rank = context.shapes.rank(inner.outputs[0])
    return rank is not None and -rank <= min(own, axis) and (own - axis) % rank == 0
