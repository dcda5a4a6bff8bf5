"""Removes Identity nodes."""

from __future__ import annotations

import dataclasses

import onnx_ir as ir

from graphopt.pipeline.base import Context, RulePass, Safety
from graphopt.rewrite.match import Match, Miss

__all__ = ["EliminateIdentity"]


@dataclasses.dataclass(frozen=True)
class EliminateIdentity(RulePass):
    """Removes Identity nodes.

    What it does:
        Readers of ``y = Identity(x)`` read ``x``. Where ``y`` is a graph output, ``x`` takes its name.

    Before:
        ``y = Identity(x); z = Relu(y)``

    After:
        ``z = Relu(x)``

    Does not apply when:
        - ``y`` is a graph output and ``x`` is a graph input, an initializer, another output, or a value of an outer
          graph: the interface needs a node there.

    Safety:
        Exact. Works on tensors, sequences and optionals alike.
    """

    name = "eliminate-identity"
    safety = Safety.EXACT
    ops = ("Identity",)

    def match(self, node: ir.Node, context: Context) -> Match | Miss | None:
        return Match(node, forward=(node.inputs[0],))
