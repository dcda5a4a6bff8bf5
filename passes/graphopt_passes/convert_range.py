"""Makes the vectors of one element that a Range reads scalars."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from graphopt.pipeline.base import Context, RulePass, Safety
from graphopt.rewrite.builder import Builder
from graphopt.rewrite.match import Match, Miss

__all__ = ["ConvertRange"]


@dataclasses.dataclass(frozen=True)
class ConvertRange(RulePass):
    """Makes the vectors of one element that a Range reads scalars.

    What it does:
        A Range must read scalars. ONNX Runtime takes vectors of one element too, but only while it does not know
        their shape at load; onnx's own AffineGrid is written that way. Folding makes such shapes known, so the model
        would stop loading.

    Before:
        ``y = Range(start, limit, delta)`` with ``limit: [1]``

    After:
        ``s = Reshape(limit, []); y = Range(start, s, delta)``; a constant is reshaped at once

    Does not apply when:
        - all inputs are scalars, or their rank is not known.

    Safety:
        Exact.
    """

    name = "convert-range"
    safety = Safety.EXACT
    ops = ("Range",)

    def match(self, node: ir.Node, context: Context) -> Match | Miss | None:
        if not any(context.shapes.of(value) == (1,) for value in node.inputs if value is not None):
            return None
        return Match(node, build=lambda builder: [builder.like(node, _scalars(node, builder))])


def _scalars(node: ir.Node, builder: Builder) -> Sequence[ir.Value | None]:
    return [_scalar(value, builder) for value in node.inputs]


def _scalar(value: ir.Value | None, builder: Builder) -> ir.Value | None:
    context = builder.context
    if value is None or context.shapes.of(value) != (1,):
        return value
    held = context.constant(value)
    if held is not None:
        return builder.constant(held.numpy().reshape(()), value.name)
    return builder.op("Reshape", [value, builder.constant(np.zeros(0, np.int64), "scalar")])
