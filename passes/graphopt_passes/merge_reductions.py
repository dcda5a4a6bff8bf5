"""Merges a reduction of a reduction into one."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Final

import onnx_ir as ir

from graphopt.pipeline.base import Context, RulePass, Safety
from graphopt.rewrite.match import Match, Miss
from graphopt_passes._reductions import reduced_axes, with_axes
from graphopt_passes._shape_ops import input_of

__all__ = ["MergeReductions"]

_FLOATS: Final = (ir.DataType.FLOAT, ir.DataType.DOUBLE)
_INTEGERS: Final = (ir.DataType.INT32, ir.DataType.INT64)
_TYPES: Final[Mapping[str, tuple[ir.DataType, ...]]] = {
    "ReduceMean": _FLOATS,
    "ReduceSum": _FLOATS + _INTEGERS,
    "ReduceMax": (*_FLOATS, *_INTEGERS, ir.DataType.FLOAT16),
    "ReduceMin": (*_FLOATS, *_INTEGERS, ir.DataType.FLOAT16),
}


@dataclasses.dataclass(frozen=True)
class MergeReductions(RulePass):
    """Merges a ReduceMean, ReduceSum, ReduceMax or ReduceMin of the same over other axes into one.

    What it does:
        One reduction over the axes of both. (A mean of means is the mean, because all have the same number of
        elements.)

    Before:
        ``m = ReduceMean(x, [3]); y = ReduceMean(m, [2])``

    After:
        ``y = ReduceMean(x, [2, 3])``

    Does not apply when:
        - anything else reads what the first one gives, or it is a graph output;
        - the rank, or an axis, is not known before the model runs;
        - one keeps the axes (``keepdims``) and the other does not;
        - the axes of both do not lie side by side: runtimes are slow then;
        - it is a mean or a sum of half precision, which could overflow, or a mean of integers, which rounds twice.

    Safety:
        Numeric: another order of summation.
    """

    name = "merge-reductions"
    safety = Safety.NUMERIC
    ops = tuple(_TYPES)

    def match(self, node: ir.Node, context: Context) -> Match | Miss | None:
        inner = context.producer(input_of(node, 0), node.op_type)
        source = input_of(inner, 0) if inner is not None else None
        if inner is None or source is None:
            return None
        if inner.graph is not node.graph or not context.only_reader(inner.outputs[0], node):
            return Miss("what the first reduction gives is read elsewhere", node)
        if context.shapes.dtype(source) not in _TYPES[node.op_type]:
            return Miss("of this type, the two may give something else, or the type is not known", node)
        keeps = inner.attributes.get_int("keepdims", 1)
        if keeps != node.attributes.get_int("keepdims", 1):
            return Miss("only one of the two keeps the axes", node)
        merged = _merged(inner, node, context.shapes.rank(source), keeps, context)
        if isinstance(merged, str):
            return Miss(merged, node)
        return Match(node, build=lambda builder: [with_axes(builder, node, source, merged)])


def _merged(inner: ir.Node, node: ir.Node, rank: int | None, keeps: int, context: Context) -> frozenset[int] | str:
    """The axes of both, as the operand of the first one counts them."""
    first = reduced_axes(inner, rank, context) if rank is not None else None
    if rank is None or first is None:
        return "the rank, or an axis, is not known"
    left = list(range(rank)) if keeps else [axis for axis in range(rank) if axis not in first]
    second = reduced_axes(node, len(left), context)
    if second is None:
        return "the rank, or an axis, is not known"
    merged = first | {left[axis] for axis in second}
    if not first or not second or max(merged) - min(merged) >= len(merged):
        return "the axes of both do not lie side by side"
    return merged
