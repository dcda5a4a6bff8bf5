"""Removes additions of zeros."""

from __future__ import annotations

import dataclasses

import onnx_ir as ir

from graphopt.pipeline.base import Context, RulePass, Safety
from graphopt.rewrite.match import Match, Miss
from graphopt_passes._neutral import other_operand

__all__ = ["EliminateAddedZeros"]


@dataclasses.dataclass(frozen=True)
class EliminateAddedZeros(RulePass):
    """Removes Add and Sub nodes whose other operand is a constant of zeros.

    What it does:
        ``x + 0`` is ``x``, such as what is left of a bias of zeros.

    Before:
        ``m = MatMul(x, w); y = Add(m, zeros); z = Relu(y)``

    After:
        ``m = MatMul(x, w); z = Relu(m)``

    Does not apply when:
        - the constant gives the result more axes, or longer ones, than ``x`` has;
        - the operator set is older than 7, or the constant has more than 65,536 elements.

    Safety:
        Numeric: ``-0.0 + 0.0`` is ``0.0``, and stays ``-0.0`` now.
    """

    name = "eliminate-added-zeros"
    safety = Safety.NUMERIC
    ops = ("Add", "Sub")

    def match(self, node: ir.Node, context: Context) -> Match | Miss | None:
        for position in (1, 0) if node.op_type == "Add" else (1,):
            found = other_operand(node, position, lambda contents: not contents.any(), context)
            if found is not None:
                return Miss(found, node) if isinstance(found, str) else Match(node, forward=(found,))
        return None
