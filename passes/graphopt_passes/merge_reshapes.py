"""Merges two reshaping nodes in a row into one, or none."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx_ir as ir

from graphopt.analysis.dims import Dim, lower_bound
from graphopt.pipeline.base import Context, RulePass, Safety
from graphopt.rewrite.builder import Builder
from graphopt.rewrite.match import Match, Miss
from graphopt_passes._shape_ops import (
    axes,
    constant_target,
    input_of,
    ints_attribute,
    numbers,
    reshape,
    result_shape,
)

__all__ = ["MergeReshapes"]

_RESHAPING = ("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose")
_MOVING = "Transpose"


@dataclasses.dataclass(frozen=True)
class MergeReshapes(RulePass):
    """Merges two of Reshape, Flatten, Squeeze and Unsqueeze in a row into one, or none.

    What it does:
        All four keep the elements in order, and so does a Transpose that moves nothing but axes of length 1; only the
        last shape counts. If that is provably the first one's input shape (``Squeeze`` after ``Unsqueeze`` of the same
        axes, say), both go. An outer Reshape reads the inner one's input by the same target where no ``0`` in it refers
        to an extent that the inner one changed. Otherwise, a constant target is written from the known result shape:
        static extents, ``0`` for an extent that the input has at the same place, or one ``-1``. Two Unsqueeze, or two
        Squeeze, become one with the axes of both.

    Before:
        ``r = Reshape(x, [0, 12, 64]); y = Reshape(r, [-1, 768])``

    After:
        ``y = Reshape(x, [-1, 768])``

    Does not apply when:
        - the result shape has two extents that a constant target cannot express;
        - a new target, or new axes, would be needed while something else reads the inner result;
        - both are Unsqueeze, and a Sub follows: attention masks are made so, and runtimes look for exactly that.

    Safety:
        Exact, for empty tensors too: a new target never has ``-1`` beside an extent that may be 0.
    """

    name = "merge-reshapes"
    safety = Safety.EXACT
    ops = _RESHAPING

    def match(self, node: ir.Node, context: Context) -> Match | Miss | None:
        inner = context.producer(input_of(node, 0), *_RESHAPING)
        source = None if inner is None else input_of(inner, 0)
        if inner is None or source is None:
            return None
        if (
            not (_keeps_order(node, context) and _keeps_order(inner, context))
            or node.op_type == inner.op_type == _MOVING
        ):
            return None
        before = context.shapes.of(source)
        after = result_shape(node, context)
        if _undoes(node, inner, context) or (after is not None and before == after):
            return Match(node, build=lambda builder: [source])
        if node.op_type == "Reshape" and _target_fits(node, before, context):
            return Match(node, build=lambda builder: [builder.like(node, [source, *node.inputs[1:]])])
        if node.op_type == inner.op_type and node.op_type in ("Squeeze", "Unsqueeze"):
            return _same_twice(node, inner, source, context)
        target = constant_target(before, after)
        if target is None:
            return Miss("no constant target gives the result's shape", node)
        if not context.only_reader(inner.outputs[0], node):
            return Miss("the inner result is read elsewhere", node)
        return Match(node, build=lambda builder: [reshape(builder, source, target)])


def _keeps_order(node: ir.Node, context: Context) -> bool:
    """Whether the elements stay in order; a Transpose must not move an axis past another that is longer than 1."""
    if node.op_type != _MOVING:
        return True
    source, permutation = input_of(node, 0), ints_attribute(node, "perm")
    shape = context.shapes.of(source) if source is not None else None
    if shape is None or permutation is None or len(shape) != len(permutation):
        return False
    long = [axis for axis in permutation if shape[axis] != 1]
    return long == sorted(long)


def _same_twice(node: ir.Node, inner: ir.Node, source: ir.Value, context: Context) -> Match | Miss:
    """One Unsqueeze, or Squeeze, in place of two."""
    if not context.only_reader(inner.outputs[0], node) or inner.graph is not node.graph:
        return Miss("the inner result is read elsewhere", node)
    between = inner.outputs[0]
    if node.op_type == "Unsqueeze" and _makes_mask(node):
        return Miss("it makes a mask, and runtimes fuse attention by its two Unsqueeze", node)
    if node.op_type == "Unsqueeze":
        larger, smaller = _places(node, node.outputs[0], context), _places(inner, between, context)
    else:
        larger, smaller = _places(inner, source, context), _places(node, between, context)
    if not larger or not smaller:
        return Miss("the axes are not known", node)
    others = [at for at in range(len(larger) + max(smaller) + 1) if at not in larger]
    merged = sorted({*larger, *(others[at] for at in smaller)})

    def build(builder: Builder) -> list[ir.Value | None]:
        if ints_attribute(node, "axes") is not None:
            return [builder.like(node, [source], {"axes": merged})]
        return [builder.like(node, [source, builder.constant(np.array(merged, np.int64))])]

    return Match(node, build=build)


def _makes_mask(node: ir.Node) -> bool:
    readers = node.outputs[0].consumers()
    casts = [reader for reader in readers if reader.op_type == "Cast"]
    return any(
        reader.op_type == "Sub" for reader in [*readers, *(last for cast in casts for last in cast.successors())]
    )


def _places(node: ir.Node, counted: ir.Value, context: Context) -> tuple[int, ...] | None:
    """The axes of a Squeeze or Unsqueeze, counted from the front of ``counted``, which has them."""
    named = axes(node, 1, context)
    if named is None or min(named, default=0) >= 0:
        return named
    rank = context.shapes.rank(counted)
    return None if rank is None else tuple(at % rank for at in named)


def _target(node: ir.Node, context: Context) -> tuple[Dim, ...] | None:
    given = input_of(node, 1)
    return ints_attribute(node, "shape") if given is None else numbers(given, context)


def _undoes(node: ir.Node, inner: ir.Node, context: Context) -> bool:
    """Whether the two are Squeeze and Unsqueeze of the same axes, whatever the rank."""
    if {node.op_type, inner.op_type} != {"Squeeze", "Unsqueeze"}:
        return False
    outer_axes, inner_axes = axes(node, 1, context), axes(inner, 1, context)
    if not outer_axes or not inner_axes:
        return False
    # both count from the same side of a tensor of the same rank: the longer one
    one_sided = len({axis < 0 for axis in (*outer_axes, *inner_axes)}) == 1
    return one_sided and set(outer_axes) == set(inner_axes)


def _target_fits(node: ir.Node, before: tuple[Dim, ...] | None, context: Context) -> bool:
    """Whether the target of a Reshape means the same for a tensor of shape ``before`` as for the node's input."""
    if node.attributes.get_int("allowzero", 0):
        return True
    target, source = _target(node, context), input_of(node, 0)
    between = None if source is None else context.shapes.of(source)
    if target is None:
        return False
    copied = [axis for axis, dim in enumerate(target) if dim == 0 or not (dim == -1 or (lower_bound(dim) or 0) > 0)]
    if not copied:
        return True
    if before is None or between is None or copied[-1] >= min(len(before), len(between)):
        return False
    return all(before[axis] == between[axis] for axis in copied)
