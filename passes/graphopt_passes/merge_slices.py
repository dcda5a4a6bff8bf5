"""Merges a Slice of a Slice into one."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import onnx_ir as ir

from graphopt.pipeline.base import Context, RulePass, Safety
from graphopt.rewrite.match import Match, Miss
from graphopt_passes import _slices
from graphopt_passes._shape_ops import FAR, input_of
from graphopt_passes._slices import Bounds

__all__ = ["MergeSlices"]

_MOST_READERS = 8
_OTHER = "what the first Slice gives is read elsewhere"


@dataclasses.dataclass(frozen=True)
class MergeSlices(RulePass):
    """Merges a Slice of a Slice into one.

    What it does:
        Slices along different axes become one Slice along all of them. Two along the same axis become one whose
        start is the sum of both starts, and whose end is the nearer one.

    Before:
        ``s = Slice(x, [0], [8], [1]); y = Slice(s, [2], [6], [1])``

    After:
        ``y = Slice(x, [2], [6], [1])``

    Does not apply when:
        - anything but such Slices reads what the first one gives, or it is a graph output;
        - a bound is not known before the model runs;
        - along the same axis, the first one has a step, a start counts from the end, or only one of the two ends does
          (unless the other goes on to the end).

    Safety:
        Exact.
    """

    name = "merge-slices"
    safety = Safety.EXACT
    ops = ("Slice",)

    def match(self, node: ir.Node, context: Context) -> Match | Miss | None:
        inner = context.producer(input_of(node, 0), "Slice")
        source = None if inner is None else input_of(inner, 0)
        if inner is None or source is None:
            return None
        readers = inner.outputs[0].consumers()
        if inner.outputs[0].is_graph_output() or len(readers) > _MOST_READERS:
            return Miss(_OTHER, node)
        for reader in readers:
            merged = _merged(inner, reader, context) if reader.op_type == "Slice" and not reader.domain else _OTHER
            if isinstance(merged, str) or reader.graph is not inner.graph:
                return Miss(merged if isinstance(merged, str) else _OTHER, node)
        bounds = _merged(inner, node, context)
        if isinstance(bounds, str):
            return Miss(bounds, node)
        return Match(node, build=lambda builder: [_slices.build(builder, node, source, bounds)])


def _merged(inner: ir.Node, node: ir.Node, context: Context) -> Mapping[int, Bounds] | str:
    """What both take together; or why that is not known."""
    first, second = _slices.read(inner, context), _slices.read(node, context)
    if first is None or second is None or input_of(node, 0) is not inner.outputs[0]:
        return "the bounds are not known"
    if first.rank is None and len({axis < 0 for axis in (*first.bounds, *second.bounds)}) > 1:
        return "the axes are counted from different sides"
    bounds = dict(first.bounds)
    for axis, outer in second.bounds.items():
        merged = _merge(bounds[axis], outer) if axis in bounds else outer
        if merged is None:
            return "bounds along the same axis count from its end, or in steps"
        bounds[axis] = merged
    return bounds


def _merge(inner: Bounds, outer: Bounds) -> Bounds | None:
    """Both along the same axis. What is cut off is the same, however short the axis is."""
    if inner.step != 1 or outer.step < 1 or inner.start < 0 or outer.start < 0:
        return None
    start = inner.start + outer.start
    if outer.to_end:
        return Bounds(start, inner.end, outer.step)
    if -FAR < outer.end < 0 and (inner.to_end or -FAR < inner.end < 0):
        return Bounds(start, outer.end + (0 if inner.to_end else inner.end), outer.step)
    if outer.end < 0 or inner.end < 0:
        return None
    return Bounds(start, min(inner.end, inner.start + outer.end), outer.step)
