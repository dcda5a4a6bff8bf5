"""Removes pairs of Neg nodes."""

from __future__ import annotations

import dataclasses

import onnx_ir as ir

from graphopt.pipeline.base import Context, RulePass, Safety
from graphopt.rewrite.match import Match, Miss


@dataclasses.dataclass(frozen=True)
class EliminateDoubleNegation(RulePass):
    """Removes pairs of Neg nodes.

    What it does:
        Readers of ``Neg(Neg(x))`` read ``x``.

    Safety:
        Exact.
    """

    limit: int = 100

    name = "eliminate-double-negation"
    safety = Safety.EXACT
    ops = ("Neg",)

    def match(self, node: ir.Node, context: Context) -> Match | Miss | None:
        first = context.producer(node.inputs[0], "Neg")
        if first is None:
            return None
        if self.limit == 0:
            return Miss("the limit is 0", node)
        return Match(node, forward=(first.inputs[0],))
