"""Makes one Transpose of a Transpose between two Reshapes that merge axes and part them again."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx_ir as ir

from graphopt.analysis.dims import Dim, product
from graphopt.pipeline.base import Context, RulePass, Safety
from graphopt.rewrite.builder import Builder
from graphopt.rewrite.match import Match, Miss
from graphopt_passes._shape_ops import ints_attribute, result_shape

__all__ = ["FuseReshapeTranspose"]


@dataclasses.dataclass(frozen=True)
class FuseReshapeTranspose(RulePass):
    """Makes one Transpose of a Transpose between two Reshapes that merge axes and part them again.

    What it does:
        A Reshape that makes one axis of several, a Transpose that brings it to the front, and a Reshape that parts it
        again are a Transpose of the axes as they were or, if the first Reshape parts an axis, too, as it would leave
        them without merging. So torch's newer exporter turns the keys of an attention, and both turn what goes into a
        ``MultiheadAttention``; as one Transpose it goes into the one before it, or into the product after it.

    Before:
        ``a = Reshape(x, [12, 5, 64]); b = Transpose <perm=[0,2,1]> (a); y = Reshape(b, [2, 6, 64, 5])`` with an ``x``
        of ``[2, 6, 5, 64]``

    After:
        ``y = Transpose <perm=[0,1,3,2]> (x)``, or with a Reshape before it, and a Transpose of more axes

    Does not apply when:
        - the shapes are not known to be such, symbolic extents being compared as they are computed;
        - a Reshape is needed before it, and a symbolic extent does not stay in its place;
        - the inner results are read elsewhere.

    Safety:
        Exact.
    """

    name = "fuse-reshape-transpose"
    safety = Safety.EXACT
    ops = ("Reshape",)
    needs = frozenset({"Transpose"})
    reach = 3

    def match(self, node: ir.Node, context: Context) -> Match | Miss | None:
        transpose = context.producer(node.inputs[0], "Transpose")
        inner = context.producer(transpose.inputs[0], "Reshape") if transpose is not None else None
        source = inner.inputs[0] if inner is not None else None
        if transpose is None or inner is None or source is None:
            return None
        found = _parted(transpose, inner, node, context)
        before = context.shapes.of(source)
        if found is None or before is None:
            return None
        apart, perm = found
        target = None if apart == before else _target(before, apart)
        if apart != before and target is None:
            return None
        if not (context.only_reader(transpose.outputs[0], node) and context.only_reader(inner.outputs[0], transpose)):
            return Miss("an inner result is read elsewhere", node)
        return Match(node, build=lambda builder: [_build(builder, source, target, perm)])


def _parted(
    transpose: ir.Node, inner: ir.Node, outer: ir.Node, context: Context
) -> tuple[tuple[Dim, ...], tuple[int, ...]] | None:
    """The shape that ``inner`` would give if it did not merge what ``outer`` parts, and how its axes move."""
    perm = ints_attribute(transpose, "perm")
    merged, after = result_shape(inner, context), result_shape(outer, context)
    if not perm or merged is None or after is None or len(perm) != len(merged):
        return None
    count = len(after) - len(merged) + 1
    moved = tuple(merged[axis] for axis in perm)
    if count < 2 or product(after[:count]) != moved[0] or after[count:] != moved[1:]:
        return None
    first = perm[0]
    apart = (*merged[:first], *after[:count], *merged[first + 1 :])
    rest = (axis if axis < first else axis + count - 1 for axis in perm[1:])
    return apart, (*range(first, first + count), *rest)


def _target(before: tuple[Dim, ...], after: tuple[Dim, ...]) -> list[int] | None:
    """A constant target of a Reshape from ``before`` to ``after``; ``None`` if there is none that suits any extents."""
    target = []
    for axis, size in enumerate(after):
        stays = axis < len(before) and before[axis] == size
        if not stays and not (isinstance(size, int) and size > 0):
            return None
        target.append(size if isinstance(size, int) and size > 0 else 0)
    return target


def _build(builder: Builder, source: ir.Value, target: list[int] | None, perm: tuple[int, ...]) -> ir.Value:
    if target is not None:
        source = builder.op("Reshape", [source, builder.constant(np.array(target, np.int64), "shape")])
    return builder.op("Transpose", [source], {"perm": perm})
