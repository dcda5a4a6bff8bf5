"""What the passes on reductions share."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnx_ir as ir

from graphopt.pipeline.base import Context
from graphopt.rewrite.builder import Builder
from graphopt_passes._shape_ops import axes, ints_attribute

__all__ = ["reduced_axes", "with_axes"]


def reduced_axes(node: ir.Node, rank: int, context: Context) -> frozenset[int] | None:
    """The axes that a reduction of a tensor reduces, counted from 0; ``None`` if they are not known."""
    named = axes(node, 1, context)
    if named is None or any(not -rank <= axis < rank for axis in named):
        return None
    if not named:
        return frozenset() if node.attributes.get_int("noop_with_empty_axes", 0) else frozenset(range(rank))
    return frozenset(axis % rank for axis in named)


def with_axes(builder: Builder, node: ir.Node, source: ir.Value | None, reduced: Iterable[int]) -> ir.Value:
    """A copy of a reduction that has axes of its own, over other ones, where the node has them."""
    if ints_attribute(node, "axes") is not None:
        return builder.like(node, [source], {"axes": sorted(reduced)})
    return builder.like(node, [source, builder.constant(np.array(sorted(reduced), np.int64))])
