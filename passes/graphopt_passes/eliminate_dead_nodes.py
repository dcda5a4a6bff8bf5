"""Removes nodes whose results nothing reads."""

from __future__ import annotations

import dataclasses

import onnx_ir as ir

from graphopt.pipeline.base import Context, GraphPass, Outcome, Safety
from graphopt.rewrite import edit

__all__ = ["EliminateDeadNodes"]


@dataclasses.dataclass(frozen=True)
class EliminateDeadNodes(GraphPass):
    """Removes nodes whose results nothing reads, in subgraphs and functions too.

    What it does:
        A node is removed when no output of it is read or is a graph output, and then what only it read. ONNX nodes
        have no side effects, so this includes random ones. (ONNX Runtime keeps and runs dead nodes.)

    Before:
        ``a = Relu(x); b = Exp(x); return a``

    After:
        ``a = Relu(x); return a``

    Does not apply when:
        - an output is read inside a subgraph, or is a graph output;
        - it has no output at all, which only a custom operator with a side effect has.

    Safety:
        Exact.
    """

    name = "eliminate-dead-nodes"
    safety = Safety.EXACT

    def run(self, model: ir.Model, context: Context) -> Outcome:
        dead = [node for scope in context.scopes() for node in scope.graph if edit.is_dead(node) and node.outputs]
        erased, weakened = edit.erase_if_dead(dead)
        return Outcome(len(erased), weakened)
