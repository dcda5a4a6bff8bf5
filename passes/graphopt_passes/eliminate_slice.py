"""Removes Slice nodes that take everything, or just what was put in."""

from __future__ import annotations

import dataclasses

import onnx_ir as ir

from graphopt.analysis.dims import Dim, lower_bound
from graphopt.pipeline.base import Context, RulePass, Safety
from graphopt.rewrite.match import Match, Miss
from graphopt_passes._shape_ops import FAR, axes, input_of, ints_attribute, numbers

__all__ = ["EliminateSlice"]


@dataclasses.dataclass(frozen=True)
class EliminateSlice(RulePass):
    """Removes Slice nodes that take everything, or just one operand of a Concat.

    What it does:
        Readers of a Slice by step 1, from the first element to the last along every axis it names, read its input.
        A start counts as the first element if it is 0 or at least a whole axis before the end; an end counts as the
        last if it provably reaches the axis's length, which may be symbolic. Readers of a Slice of a Concat, along
        the same axis and from the beginning of an operand to its end, read that operand.

    Before:
        ``y = Slice(x, [0], [9223372036854775807], [1]); z = Relu(y)``

    After:
        ``z = Relu(x)``

    Does not apply when:
        - a bound holds only for some inputs (``0:4`` of an axis of length ``N``);
        - the step is not 1.

    Safety:
        Exact.
    """

    name = "eliminate-slice"
    safety = Safety.EXACT
    ops = ("Slice",)

    def match(self, node: ir.Node, context: Context) -> Match | Miss | None:
        source = input_of(node, 0)
        if source is None:
            return None
        by_attribute = ints_attribute(node, "starts")
        starts = by_attribute if by_attribute is not None else numbers(input_of(node, 1), context)
        if starts is None or not _by_one(node, context):
            return None
        ends = ints_attribute(node, "ends") if by_attribute is not None else numbers(input_of(node, 2), context)
        if ends is None or len(ends) != len(starts):
            return None
        if all(start == 0 for start in starts) and all(_far(end) for end in ends):
            return Match(node, forward=(source,))
        named = axes(node, 3, context)
        shape = context.shapes.of(source)
        if named is None or shape is None:
            return None
        places = named or range(len(starts))
        if len(places) != len(starts) or not all(-len(shape) <= place < len(shape) for place in places):
            return None
        bounds = zip((shape[place] for place in places), starts, ends, strict=True)
        if all(_whole(*one) for one in bounds):
            return Match(node, forward=(source,))
        operand = _operand(source, places[0] % len(shape), starts[0], ends[0], context) if len(places) == 1 else None
        return Match(node, forward=(operand,)) if operand is not None else None


def _operand(source: ir.Value, axis: int, start: Dim, end: Dim, context: Context) -> ir.Value | None:
    """The operand of a Concat that ``start:end`` takes, all of it and nothing else."""
    concat = context.producer(source, "Concat")
    shape = context.shapes.of(source)
    if concat is None or shape is None or concat.attributes.get_int("axis", 1) % len(shape) != axis:
        return None
    if not (_at_least(start, 0) or _at_least(-1, start)):
        return None
    # Equal to a sum of lengths, a bound is within the axis, also if it counts from the end.
    first = start if _at_least(start, 0) else start + shape[axis]
    position: Dim = 0
    for operand in concat.inputs:
        own = None if operand is None else context.shapes.of(operand)
        if own is None or len(own) != len(shape):
            return None
        after = position + own[axis]
        to_end = after == shape[axis] and (_far(end) or _at_least(end, after))
        if first == position and (end == after or to_end or (_at_least(-1, end) and end + shape[axis] == after)):
            return operand
        position = after
    return None


def _by_one(node: ir.Node, context: Context) -> bool:
    given = input_of(node, 4)
    if given is None:
        return True
    steps = context.ints(given)
    return steps is not None and all(step == 1 for step in steps)


def _far(end: Dim) -> bool:
    return _at_least(end, FAR)


def _whole(extent: Dim, start: Dim, end: Dim) -> bool:
    """Whether ``start:end`` takes all of an axis."""
    from_first = start == 0 or _at_least(-FAR, start) or _at_least(-extent, start)
    return from_first and (_far(end) or _at_least(end, extent))


def _at_least(a: Dim, b: Dim) -> bool:
    low = lower_bound(a - b)
    return low is not None and low >= 0
