"""Removes Transpose nodes that keep the order of the axes."""

from __future__ import annotations

import dataclasses

import onnx_ir as ir

from graphopt.pipeline.base import Context, RulePass, Safety
from graphopt.rewrite.match import Match, Miss
from graphopt_passes._shape_ops import input_of, ints_attribute

__all__ = ["EliminateTranspose"]


@dataclasses.dataclass(frozen=True)
class EliminateTranspose(RulePass):
    """Removes Transpose nodes that keep the order of the axes.

    What it does:
        Readers of a Transpose by the identity permutation read its input. Without ``perm`` the axes are reversed,
        which changes nothing for scalars and vectors.

    Before:
        ``y = Transpose<perm=[0, 1, 2]>(x); z = Relu(y)``

    After:
        ``z = Relu(x)``

    Does not apply when:
        - an axis moves, even one of length 1;
        - ``perm`` is left out and the rank is above 1 or unknown.

    Safety:
        Exact.
    """

    name = "eliminate-transpose"
    safety = Safety.EXACT
    ops = ("Transpose",)

    def match(self, node: ir.Node, context: Context) -> Match | Miss | None:
        source = input_of(node, 0)
        if source is None:
            return None
        perm = ints_attribute(node, "perm")
        if not perm:  # an empty one can only be meant for a scalar
            rank = context.shapes.rank(source)
            return Match(node, forward=(source,)) if rank is not None and rank <= 1 else None
        return Match(node, forward=(source,)) if perm == tuple(range(len(perm))) else None
