"""Removes what undoes itself."""

from __future__ import annotations

import dataclasses

import onnx_ir as ir

from graphopt.pipeline.base import Context, RulePass, Safety
from graphopt.rewrite.match import Match

__all__ = ["EliminateInvolutions"]


@dataclasses.dataclass(frozen=True)
class EliminateInvolutions(RulePass):
    """Removes Neg, Not and BitwiseNot of themselves.

    What it does:
        Each of them done twice is what came in: signs and bits turn and turn back. The smallest whole number, which is
        its own negative, stays too.

    Before:
        ``a = Neg(x); b = Neg(a); y = Relu(b)``

    After:
        ``y = Relu(x)``

    Does not apply when:
        - something else comes between the two;
        - what came in cannot stand for the result: an input of the model for one of its outputs.

    Safety:
        Exact, for infinities, negative zeros and NaN too.
    """

    name = "eliminate-involutions"
    safety = Safety.EXACT
    ops = ("Neg", "Not", "BitwiseNot")

    def match(self, node: ir.Node, context: Context) -> Match | None:
        before = context.producer(node.inputs[0], node.op_type)
        return Match(node, forward=(before.inputs[0],)) if before is not None else None
