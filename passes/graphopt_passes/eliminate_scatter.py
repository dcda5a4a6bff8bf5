"""Removes a ScatterND that overwrites everything."""

from __future__ import annotations

import dataclasses
from typing import Final

import numpy as np
import onnx_ir as ir

from graphopt.pipeline.base import Context, RulePass, Safety
from graphopt.rewrite.match import Match, Miss
from graphopt_passes._shape_ops import input_of

__all__ = ["EliminateScatter"]

_MAX_ELEMENTS: Final = 1 << 16


@dataclasses.dataclass(frozen=True)
class EliminateScatter(RulePass):
    """Removes a ScatterND that overwrites all of a tensor.

    What it does:
        Where the indices are those of all places along the first axes, in order, nothing is left of the tensor, and
        the result is what is written into it. Torch writes ``x[:, :] = z`` so.

    Before:
        ``a = ScatterND(x, [[0], [1]], z); y = Relu(a)`` with ``x, z: [2, 4]``

    After:
        ``y = Relu(z)``

    Does not apply when:
        - the indices are not constant, or are other ones, be it the same in another order;
        - it adds to what was there, or multiplies or compares with it;
        - the lengths of the axes that are written along are not known.

    Safety:
        Exact.
    """

    name = "eliminate-scatter"
    safety = Safety.EXACT
    ops = ("ScatterND",)

    def match(self, node: ir.Node, context: Context) -> Match | Miss | None:
        data, updates = input_of(node, 0), input_of(node, 2)
        indices = context.array(input_of(node, 1), _MAX_ELEMENTS)
        if data is None or updates is None or indices is None or indices.ndim < 1:
            return Miss("the indices are not a small constant", node)
        if node.attributes.get_string("reduction", "none") != "none":
            return Miss("it takes what was there into account", node)
        shape, depth = context.shapes.of(data), indices.shape[-1]
        if shape is None or not 0 < depth <= len(shape):
            return Miss("the shape of the tensor is not known", node)
        if indices.shape[:-1] != shape[:depth]:
            return Miss("the indices are not those of all places", node)
        everywhere = np.moveaxis(np.indices(indices.shape[:-1]), 0, -1)
        if not np.array_equal(indices, everywhere):
            return Miss("the indices are not those of all places", node)
        return Match(node, forward=(updates,))
