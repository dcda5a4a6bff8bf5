"""Replaces an If whose condition is constant by the branch it takes."""

from __future__ import annotations

import dataclasses

import onnx_ir as ir

from graphopt.pipeline.base import Context, GraphPass, Outcome, Safety
from graphopt_passes._lifting import lift, replace

__all__ = ["FoldIf"]


@dataclasses.dataclass(frozen=True)
class FoldIf(GraphPass):
    """Replaces an If whose condition is constant by the branch it takes.

    What it does:
        The nodes and constants of the branch move to the place of the If; the other branch goes away.

    Before:
        ``y = If (true) <then_branch = {t = Relu(x)}, else_branch = {e = Neg(x)}>``

    After:
        ``y = Relu(x)``

    Does not apply when:
        - the condition is not constant, or can be overridden by the caller;
        - the branch does not give as many results as the If, which no runtime accepts.

    Safety:
        Exact.
    """

    name = "fold-if"
    safety = Safety.EXACT

    def run(self, model: ir.Model, context: Context) -> Outcome:
        count = 0
        touched: list[ir.Node] = []
        for scope in context.scopes():
            # The list is taken now; an If that arrives with an inlined branch is appended and seen in its turn.
            pending = [node for node in scope.graph if node.op_type == "If" and not node.domain]
            for node in pending:
                condition = context.scalar(node.inputs[0])
                if condition is None:
                    continue
                taken = node.attributes["then_branch" if condition else "else_branch"]
                if taken.is_ref() or len(taken.as_graph().outputs) != len(node.outputs):
                    continue
                moved = _inline(node, taken.as_graph(), context)
                pending += [inner for inner in moved if inner.op_type == "If" and not inner.domain]
                touched += moved
                count += 1
        return Outcome(count, touched)


def _inline(node: ir.Node, branch: ir.Graph, context: Context) -> list[ir.Node]:
    """Moves ``branch`` in front of the If ``node`` and removes the If; returns what moved and what reads it."""
    nodes, results = lift(branch, node, context)
    wrappers, others = replace(node, results, context)
    return [*nodes, *wrappers, *others]
