"""Merges two reshaping nodes in a row into one, or none."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from graphopt.analysis.dims import Dim, lower_bound
from graphopt.pipeline.base import Context, RulePass, Safety
from graphopt.rewrite.builder import Builder
from graphopt.rewrite.match import Match, Miss
from graphopt_passes._shape_ops import axes, input_of, ints_attribute, numbers

__all__ = ["MergeReshapes"]

_RESHAPING = ("Reshape", "Flatten", "Squeeze", "Unsqueeze")


@dataclasses.dataclass(frozen=True)
class MergeReshapes(RulePass):
    """Merges two of Reshape, Flatten, Squeeze and Unsqueeze in a row into one Reshape, or none.

    What it does:
        All four keep the elements in order, so only the last shape counts. If that is provably the first one's input
        shape (``Squeeze`` after ``Unsqueeze`` of the same axes, say), both go. An outer Reshape reads the inner one's
        input by the same target where no ``0`` in it refers to an extent that the inner one changed. Otherwise, a
        constant target is written from the known result shape: static extents, ``0`` for an extent that the input
        has at the same place, or one ``-1``.

    Before:
        ``r = Reshape(x, [0, 12, 64]); y = Reshape(r, [-1, 768])``

    After:
        ``y = Reshape(x, [-1, 768])``

    Does not apply when:
        - the result shape has two extents that a constant target cannot express;
        - a new target would be needed while something else reads the inner result;
        - both are Unsqueeze: attention masks are made so, and runtimes look for exactly that.

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
        before = context.shapes.of(source)
        after = _result_shape(node, context)
        if _undoes(node, inner, context) or (after is not None and before == after):
            return Match(node, build=lambda builder: [source])
        if node.op_type == "Reshape" and _target_fits(node, before, context):
            return Match(node, build=lambda builder: [builder.like(node, [source, *node.inputs[1:]])])
        if node.op_type == inner.op_type == "Unsqueeze":
            return None
        target = _constant_target(before, after)
        if target is None:
            return Miss("no constant target gives the result's shape", node)
        if not context.only_reader(inner.outputs[0], node):
            return Miss("the inner result is read elsewhere", node)
        return Match(node, build=lambda builder: [_reshape(builder, source, target)])


def _reshape(builder: Builder, source: ir.Value, target: Sequence[int]) -> ir.Value:
    if builder.context.opset(builder.root) < 5:
        return builder.op("Reshape", [source], {"shape": target})
    return builder.op("Reshape", [source, builder.constant(np.array(target, np.int64))])


def _result_shape(node: ir.Node, context: Context) -> tuple[Dim, ...] | None:
    """The shape as computed from the operator's rule; a merely declared one proves nothing."""
    known: object = True
    if node.op_type == "Reshape":
        known = _target(node, context)
    elif node.op_type != "Flatten":
        known = axes(node, 1, context)
    source = input_of(node, 0)
    if known is None or source is None or context.shapes.of(source) is None:
        return None
    return context.shapes.of(node.outputs[0])


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


_INT64_MAX = (1 << 63) - 1


def _constant_target(before: tuple[Dim, ...] | None, after: tuple[Dim, ...] | None) -> list[int] | None:
    """A Reshape target from ``before`` to ``after``, or ``None``."""
    if before is None or after is None:
        return None
    open_axes = [axis for axis, dim in enumerate(after) if not isinstance(dim, int) or dim == 0]
    target = [dim if isinstance(dim, int) else -1 for dim in after]
    if max(target, default=0) > _INT64_MAX:
        return None
    if len(open_axes) <= 1:
        return [dim or -1 for dim in target]
    for axis in open_axes:
        if axis >= len(before) or before[axis] != after[axis]:
            return None
        target[axis] = 0
    return target
