"""Lets a reduction keep, or drop, the axes that it reduces."""

from __future__ import annotations

import dataclasses

import onnx_ir as ir

from graphopt.analysis.dims import Dim
from graphopt.pipeline.base import Context, RulePass, Safety
from graphopt.rewrite.builder import Builder
from graphopt.rewrite.match import Match, Miss
from graphopt_passes._shape_ops import axes, input_of, result_shape

__all__ = ["FuseReduceReshape"]

_REDUCTIONS = (
    "ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2", "ReduceLogSum",
    "ReduceLogSumExp", "ReduceSumSquare",
)  # fmt: skip
_SEARCHES = ("ArgMax", "ArgMin")


@dataclasses.dataclass(frozen=True)
class FuseReduceReshape(RulePass):
    """Puts a Squeeze, Unsqueeze, Flatten or Reshape of what a reduction gives into its ``keepdims``.

    What it does:
        A reduction keeps the axes that it reduced, as ones, or drops them. What does just that to its result
        afterwards is not needed. ArgMax and ArgMin count as reductions.

    Before:
        ``m = ReduceMean <keepdims=1> (x, [2, 3]); y = Reshape(m, [0, -1])`` with ``x: [N, 8, H, W]``

    After:
        ``y = ReduceMean <keepdims=0> (x, [2, 3])``

    Does not apply when:
        - the reduced axes are not known before the model runs;
        - the result has another shape than the reduction gives without, or with, these axes;
        - anything else reads what the reduction gives, or it is a graph output.

    Safety:
        Exact.
    """

    name = "fuse-reduce-reshape"
    safety = Safety.EXACT
    ops = ("Squeeze", "Unsqueeze", "Flatten", "Reshape")
    needs = frozenset({*_REDUCTIONS, *_SEARCHES})

    def match(self, node: ir.Node, context: Context) -> Match | Miss | None:
        reduction = context.producer(input_of(node, 0), *_REDUCTIONS, *_SEARCHES)
        if reduction is None:
            return None
        if reduction.graph is not node.graph or not context.only_reader(reduction.outputs[0], node):
            return Miss("what the reduction gives is read elsewhere", node)
        keepdims = reduction.attributes.get_int("keepdims", 1)
        if not _toggles(node, reduction, keepdims, context):
            return Miss("the result has another shape than the reduction gives", node)

        def build(builder: Builder) -> list[ir.Value | None]:
            return [builder.like(reduction, reduction.inputs, {"keepdims": 1 - keepdims})]

        return Match(node, build=build)


def _toggles(node: ir.Node, reduction: ir.Node, keepdims: int, context: Context) -> bool:
    """Whether ``node`` turns what the reduction gives into what it would give with the other ``keepdims``."""
    reduced = _reduced(reduction, context)
    if reduced is None:
        return False
    source = input_of(reduction, 0)
    shape = context.shapes.of(source) if source is not None else None
    if shape is not None:
        wanted = _without(shape, reduced) if keepdims else _with_ones(shape, reduced)
        return wanted is not None and result_shape(node, context) == wanted
    squeezes = node.op_type == ("Squeeze" if keepdims else "Unsqueeze")
    named = axes(node, 1, context)
    # of an unknown rank: the same axes, counted from the same side
    return squeezes and bool(reduced) and named is not None and sorted(named) == sorted(reduced) and _one_sided(named)


def _reduced(reduction: ir.Node, context: Context) -> tuple[int, ...] | None:
    """The reduced axes, ``()`` for all of them."""
    if reduction.op_type in _SEARCHES:
        return (reduction.attributes.get_int("axis", 0),)
    reduced = axes(reduction, 1, context)
    if reduced == () and reduction.attributes.get_int("noop_with_empty_axes", 0) == 1:
        return None
    return reduced


def _one_sided(named: tuple[int, ...]) -> bool:
    return len({axis < 0 for axis in named}) == 1


def _places(shape: tuple[Dim, ...], reduced: tuple[int, ...]) -> set[int] | None:
    if not all(-len(shape) <= axis < len(shape) for axis in reduced):
        return None
    return {axis % len(shape) for axis in reduced} or set(range(len(shape)))


def _without(shape: tuple[Dim, ...], reduced: tuple[int, ...]) -> tuple[Dim, ...] | None:
    places = _places(shape, reduced)
    return None if places is None else tuple(dim for axis, dim in enumerate(shape) if axis not in places)


def _with_ones(shape: tuple[Dim, ...], reduced: tuple[int, ...]) -> tuple[Dim, ...] | None:
    places = _places(shape, reduced)
    return None if places is None else tuple(1 if axis in places else dim for axis, dim in enumerate(shape))
