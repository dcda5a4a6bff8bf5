"""Replaces an If whose condition is constant by the branch it takes."""

from __future__ import annotations

import dataclasses
from typing import Final

import onnx_ir as ir

from graphopt.pipeline.base import Context, GraphPass, Outcome, Safety
from graphopt_passes._branches import Branches
from graphopt_passes._lifting import lift, replace

__all__ = ["FoldIf"]

_BRANCHES: Final = ("else_branch", "then_branch")


@dataclasses.dataclass(frozen=True)
class FoldIf(GraphPass):
    """Replaces an If whose condition is constant by the branch it takes.

    What it does:
        The nodes and constants of the branch move to the place of the If; the other branch goes away. So does a
        branch that gives another number of axes than a later LSTM, Conv or Gemm takes: torch writes ``squeeze`` as
        an If that may or may not remove the axis, and where the result must have just so many, it always does.

    Before:
        ``y = If (true) <then_branch = {t = Relu(x)}, else_branch = {e = Neg(x)}>``

    After:
        ``y = Relu(x)``

    Does not apply when:
        - the condition is not constant, or can be overridden by the caller, and shapes do not decide it; and the model
          may run with either branch;
        - the branch does not give as many results as the If, which no runtime accepts.

    Safety:
        Exact.
    """

    name = "fold-if"
    safety = Safety.EXACT
    needs = frozenset({"If"})

    def run(self, model: ir.Model, context: Context) -> Outcome:
        count = 0
        touched: list[ir.Node] = []
        branches = Branches(context)
        for scope in context.scopes():
            # The list is taken now; an If that arrives with an inlined branch is appended and seen in its turn.
            pending = [node for node in scope.graph if node.op_type == "If" and not node.domain]
            for node in pending:
                if node.graph is None:
                    continue  # only a branch that went away read it
                condition = context.scalar(node.inputs[0])
                name = _computed(node, context) if condition is None else _BRANCHES[bool(condition)]
                name = name or branches.only(node)
                if name is None:
                    continue
                taken = node.attributes[name]
                if taken.is_ref() or len(taken.as_graph().outputs) != len(node.outputs):
                    continue
                if condition is None:
                    context.shapes.forget_after(node.outputs, context.holders)
                moved = _inline(node, taken.as_graph(), context)
                branches.forget()
                pending += [inner for inner in moved if inner.op_type == "If" and not inner.domain]
                touched += moved
                count += 1
        return Outcome(count, touched)


def _computed(node: ir.Node, context: Context) -> str | None:
    """The branch taken, where shapes decide that."""
    condition = node.inputs[0]
    known = context.shapes.data(condition) if condition is not None else None
    if known is not None and len(known) == 1 and isinstance(known[0], int):
        return _BRANCHES[bool(known[0])]
    return None


def _inline(node: ir.Node, branch: ir.Graph, context: Context) -> list[ir.Node]:
    """Moves ``branch`` in front of the If ``node`` and removes the If; returns what moved and what reads it."""
    nodes, results = lift(branch, node, context)
    wrappers, others = replace(node, results, context)
    return [*nodes, *wrappers, *others]
