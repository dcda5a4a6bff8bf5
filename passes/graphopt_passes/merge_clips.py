"""Merges bounds in a row into one."""

from __future__ import annotations

import dataclasses
import math
from typing import Final, NamedTuple

import numpy as np
import onnx_ir as ir

from graphopt.pipeline.base import Context, RulePass, Safety
from graphopt.rewrite.builder import Builder
from graphopt.rewrite.match import Match, Miss
from graphopt_passes._shape_ops import input_of

__all__ = ["MergeClips"]

_BOUNDING: Final = ("Relu", "Clip", "Max", "Min")
_FLOATS: Final = frozenset({ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.FLOAT16})
_TYPES: Final = {
    "Relu": _FLOATS,
    "Clip": _FLOATS
    | {ir.DataType.INT8, ir.DataType.UINT8, ir.DataType.INT32, ir.DataType.UINT32}
    | {ir.DataType.INT64, ir.DataType.UINT64},
}
"""The types that runtimes have these operators of; before operator set 12, a Clip is of float32 alone."""


class _Bounds(NamedTuple):
    """``min(max(source, low), high)``, as a Clip has it."""

    source: ir.Value
    low: float
    high: float

    def limit(self, number: float) -> float:
        return min(max(number, self.low), self.high)


@dataclasses.dataclass(frozen=True)
class MergeClips(RulePass):
    """Merges two of Relu, Clip, and Max and Min with a number, in a row into one.

    What it does:
        Each is a lower bound, an upper bound or both, and two of them are so, too. What has both becomes a Clip, what
        has a lower bound of 0 a Relu, which runtimes fuse into the convolution before it; so does a single
        ``Max(x, 0)``.

    Before:
        ``m = Relu(x); y = Min(m, 6)``

    After:
        ``y = Clip(x, 0, 6)``

    Does not apply when:
        - anything else reads what the first one gives, or it is a graph output;
        - a bound is not a constant with one element, or may give the result more axes;
        - the result would be a Clip or Relu of a type that these do not have in the model's operator set;
        - the operator set is older than 8.

    Safety:
        Numeric: of ``-0.0`` and ``0.0``, Max may give either. Runtimes may take a bound that a Clip lacks for the
        largest finite number.
    """

    name = "merge-clips"
    safety = Safety.NUMERIC
    ops = _BOUNDING

    def match(self, node: ir.Node, context: Context) -> Match | Miss | None:
        if context.opset(node) < 8:
            return None
        outer = _bounds(node, context)
        if outer is None:
            return None
        inner = context.producer(outer.source, *_BOUNDING)
        bounds = None if inner is None else _bounds(inner, context)
        if inner is None or bounds is None:
            rectifies = node.op_type == "Max" and (outer.low, outer.high) == (0, math.inf)
            if rectifies and context.shapes.dtype(outer.source) in _TYPES["Relu"]:
                return Match(node, build=lambda builder: [builder.op("Relu", [outer.source])])
            return None
        if inner.graph is not node.graph or not context.only_reader(inner.outputs[0], node):
            return Miss("what the first bound gives is read elsewhere", node)
        merged = _Bounds(bounds.source, outer.limit(bounds.low), outer.limit(bounds.high))
        op_type = _operator(merged, {node.op_type, inner.op_type})
        dtype = context.shapes.dtype(merged.source)
        if dtype is None or not _exists(op_type, dtype, context.opset(node)):
            return Miss(f"there is no {op_type} of this type, or the type is not known", node)
        return Match(node, build=lambda builder: [_build(builder, merged, op_type, dtype)])


def _exists(op_type: str, dtype: ir.DataType, opset: int) -> bool:
    if op_type == "Clip" and opset < 12:
        return dtype == ir.DataType.FLOAT
    return op_type not in _TYPES or dtype in _TYPES[op_type]


def _operator(bounds: _Bounds, merged: set[str]) -> str:
    """What the bounds become; a Clip that lacks one only where there was a Clip already."""
    if "Clip" not in merged:
        if bounds.high == math.inf:
            return "Relu" if bounds.low == 0 else "Max"
        if bounds.low == -math.inf:
            return "Min"
    return "Clip"


def _bounds(node: ir.Node, context: Context) -> _Bounds | None:
    """What a node bounds, and by which numbers; ``None`` if they are not known."""
    source = input_of(node, 0)
    if source is None:
        return None
    if node.op_type == "Relu":
        return _Bounds(source, 0, math.inf)
    if node.op_type == "Clip":
        low, high = (_clip_bound(node, index, context) for index in (1, 2))
        return None if low is None or high is None else _Bounds(source, low, high)
    if len(node.inputs) != 2:
        return None
    for value, number in ((source, node.inputs[1]), (node.inputs[1], source)):
        bound = _number(number, context)
        tensor = context.constant(number)
        if bound is None or tensor is None or value is None or context.constant(value) is not None:
            continue
        if len(tensor.shape) and (context.shapes.rank(value) or 0) < len(tensor.shape):
            continue
        return _Bounds(value, bound, math.inf) if node.op_type == "Max" else _Bounds(value, -math.inf, bound)
    return None


def _clip_bound(node: ir.Node, index: int, context: Context) -> float | None:
    """The lower (1) or upper (2) bound of a Clip, an infinity if it is left out, ``None`` if it is not known."""
    default = math.inf if index == 2 else -math.inf
    if context.opset(node) < 11:
        return node.attributes.get_float("max" if index == 2 else "min", default)
    value = input_of(node, index)
    return default if value is None else _number(value, context)


def _number(value: ir.Value | None, context: Context) -> float | None:
    number = context.scalar(value)
    return None if number is None or math.isnan(number) else number


def _build(builder: Builder, bounds: _Bounds, op_type: str, dtype: ir.DataType) -> ir.Value:
    source = bounds.source
    if op_type == "Relu":
        return builder.op("Relu", [source])
    limits = {name: bound for name, bound in (("min", bounds.low), ("max", bounds.high)) if not math.isinf(bound)}
    if op_type == "Clip" and builder.context.opset(builder.root) < 11:
        return builder.op("Clip", [source], {name: float(limit) for name, limit in limits.items()})
    constants: list[ir.Value | None] = [builder.constant(np.array(limit, dtype.numpy())) for limit in limits.values()]
    if op_type == "Clip" and "min" not in limits:
        constants.insert(0, None)
    return builder.op(op_type, [source, *constants])
