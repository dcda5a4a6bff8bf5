"""Leaves out biases that are zero."""

from __future__ import annotations

import dataclasses
from typing import Final

import onnx_ir as ir

from graphopt.pipeline.base import Context, RulePass, Safety
from graphopt.rewrite.match import Match, Miss
from graphopt_passes._shape_ops import input_of

__all__ = ["EliminateZeroBiases"]

_BIAS: Final = 2
_OPTIONAL_SINCE: Final = {"Conv": 1, "ConvTranspose": 1, "Gemm": 11}
"""The operator set from which on the bias may be left out."""
_MAX_ELEMENTS: Final = 1 << 16


@dataclasses.dataclass(frozen=True)
class EliminateZeroBiases(RulePass):
    """Leaves out the bias of a Conv, ConvTranspose or Gemm if it is zero.

    What it does:
        Converters write zeros for a bias that a layer lacks; without them there is nothing to store, read or add.

    Before:
        ``y = Conv(x, w, [0, 0, 0])``

    After:
        ``y = Conv(x, w)``

    Does not apply when:
        - an element is not zero, is not known, or can be overridden by the caller;
        - it is a Gemm before opset 11, which must have a bias;
        - the bias has more than 65,536 elements.

    Safety:
        Numeric: ``-0.0 + 0.0`` is ``0.0``, and stays ``-0.0`` now.
    """

    name = "eliminate-zero-biases"
    safety = Safety.NUMERIC
    ops = tuple(_OPTIONAL_SINCE)

    def match(self, node: ir.Node, context: Context) -> Match | Miss | None:
        contents = context.array(input_of(node, _BIAS), _MAX_ELEMENTS)
        if contents is None or contents.any():
            return None
        if context.opset(node) < _OPTIONAL_SINCE[node.op_type]:
            return Miss("before opset 11, a Gemm must have a bias", node)
        return Match(node, build=lambda builder: [builder.like(node, node.inputs[:_BIAS])])
