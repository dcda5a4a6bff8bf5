"""Picks a single element along an axis at once."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx_ir as ir

from graphopt.pipeline.base import Context, RulePass, Safety
from graphopt.rewrite.builder import Builder
from graphopt.rewrite.match import Match, Miss
from graphopt_passes import _slices
from graphopt_passes._shape_ops import axes, input_of

__all__ = ["FuseSliceSqueeze"]


@dataclasses.dataclass(frozen=True)
class FuseSliceSqueeze(RulePass):
    """Turns a Slice of one element along an axis, and the Squeeze of that axis, into a Gather.

    What it does:
        A Gather by a scalar takes one element and drops the axis.

    Before:
        ``s = Slice(x, [2], [3], [1]); y = Squeeze(s, [1])``

    After:
        ``y = Gather <axis=1> (x, 2)``

    Does not apply when:
        - the Slice takes more than one element, or along more than one axis, or the Squeeze drops other axes;
        - it is the last axis, along which a Gather copies element by element (and takes twice as long), or the rank
          is not known;
        - a bound is not known before the model runs, or counts from the end before opset 11;
        - anything else reads the slice, or it is a graph output.

    Safety:
        Exact. Where the axis is too short for the element, neither form runs.
    """

    name = "fuse-slice-squeeze"
    safety = Safety.EXACT
    ops = ("Squeeze",)
    needs = frozenset({"Slice"})

    def match(self, node: ir.Node, context: Context) -> Match | Miss | None:
        inner = context.producer(input_of(node, 0), "Slice")
        if inner is None:
            return None
        if inner.graph is not node.graph or not context.only_reader(inner.outputs[0], node):
            return Miss("the slice is read elsewhere", node)
        cut, dropped = _slices.read(inner, context), axes(node, 1, context)
        if cut is None or dropped is None:
            return Miss("the bounds, or the axes, are not known", node)
        if cut.rank is None:
            return Miss("the rank is not known", node)
        if len(cut.bounds) != 1 or [at % cut.rank for at in dropped] != list(cut.bounds):
            return Miss("the two are not along the same single axis", node)
        ((axis, bounds),) = cut.bounds.items()
        if axis == cut.rank - 1 > 0:
            return Miss("along the last axis, a Gather copies element by element", node)
        start, end, step = bounds
        one = end == start + 1 and (start >= 0 or end < 0)
        last = start == -1 and bounds.to_end
        if step != 1 or not (one or last):
            return Miss("the Slice takes more than one element", node)
        if start < 0 and context.opset(node) < 11:
            return Miss("before opset 11, Gather does not count from the end", node)

        def build(builder: Builder) -> list[ir.Value | None]:
            index = builder.constant(np.array(start, np.int64))
            return [builder.op("Gather", [inner.inputs[0], index], {"axis": axis})]

        return Match(node, build=build)
