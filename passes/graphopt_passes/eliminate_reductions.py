"""Removes reductions that reduce nothing."""

from __future__ import annotations

import dataclasses
from typing import Final

import onnx_ir as ir

from graphopt.pipeline.base import Context, RulePass, Safety
from graphopt.rewrite.match import Match, Miss
from graphopt_passes._reductions import reduced_axes
from graphopt_passes._shape_ops import input_of

__all__ = ["EliminateReductions"]

_OF_ONE: Final = ("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceProd")
"""What gives a single element as it is."""


@dataclasses.dataclass(frozen=True)
class EliminateReductions(RulePass):
    """Removes sums, products, means, maxima and minima over axes of length 1, or over no axes.

    What it does:
        Of one element, each of them is that element.

    Before:
        ``m = ReduceMean <keepdims=1> (x, [1]); y = Relu(m)`` with ``x: [N, 1, 4]``

    After:
        ``y = Relu(x)``

    Does not apply when:
        - an axis is not known to have the length 1, or the axes are not known before the model runs;
        - it drops the axes (``keepdims=0``).

    Safety:
        Numeric: a sum may make ``0.0`` of ``-0.0``.
    """

    name = "eliminate-reductions"
    safety = Safety.NUMERIC
    ops = _OF_ONE

    def match(self, node: ir.Node, context: Context) -> Match | Miss | None:
        source = input_of(node, 0)
        shape = context.shapes.of(source) if source is not None else None
        reduced = None if shape is None else reduced_axes(node, len(shape), context)
        if shape is None or reduced is None or any(shape[axis] != 1 for axis in reduced):
            return None
        if reduced and not node.attributes.get_int("keepdims", 1):
            return Miss("it drops the axes", node)
        return Match(node, forward=(source,))
