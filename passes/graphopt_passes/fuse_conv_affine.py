"""Folds arithmetic with a constant per channel into the convolution before it."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx_ir as ir

from graphopt.pipeline.base import Context, RulePass, Safety
from graphopt.rewrite.match import Match, Miss
from graphopt_passes._channels import LINEAR_OPS, Layers, affine_of, channel_vector, layers_of

__all__ = ["FuseConvAffine"]


@dataclasses.dataclass(frozen=True)
class FuseConvAffine(RulePass):
    """Folds a Mul, Add, Sub or Div with a constant, or a Neg, into the Conv, ConvTranspose or Gemm before it.

    What it does:
        ``y = c * s + t`` with one number a channel, or one for all, becomes part of weight and bias: ``W' = W * s``,
        ``B' = B * s + t``. Computed in float64, stored in the weight's dtype. ``k - c`` is ``s = -1, t = k``, and
        ``-c`` the same without ``t``. Of several convolutions in a Concat, each takes its share.

    Before:
        ``c = Conv(x, W, B); y = Mul(c, s)``

    After:
        ``y = Conv(x, W', B')``

    Does not apply when:
        - the convolution's result is read by anything else, or is a graph output;
        - weight, bias or operand is not constant, or can be overridden by the caller;
        - the operand varies along another axis than the channels (``[8]`` lies along the width, even if there are 8
          channels), or makes the result larger;
        - it divides by the convolution, or by zero;
        - the folded weights would overflow their type, or lose precision in it.

    Safety:
        Numeric: rounding of the folded weights. Weights shared with other nodes are copied, not changed.
    """

    name = "fuse-conv-affine"
    safety = Safety.NUMERIC
    ops = ("Mul", "Add", "Sub", "Div", "Neg")
    reach = 2
    needs = frozenset(LINEAR_OPS)

    def match(self, node: ir.Node, context: Context) -> Match | Miss | None:
        if node.op_type == "Neg":
            negated = layers_of(node.inputs[0], node, context)
            return None if negated is None else _negate(node, negated, context)
        for position in (0, 1):
            tensor = context.constant(node.inputs[1 - position])
            layers = layers_of(node.inputs[position], node, context) if tensor is not None else None
            if tensor is not None and layers is not None:
                return _fold(node, layers, tensor, position, context)
        return None


def _fold(
    node: ir.Node, layers: Layers | str, tensor: ir.TensorProtocol, position: int, context: Context
) -> Match | Miss | None:
    if context.opset(node) < 7:
        return Miss("before opset 7, arithmetic broadcasts by attributes", node)
    if node.op_type == "Div" and position == 1:
        return None
    if isinstance(layers, str):
        return Miss(layers, node)
    operand = channel_vector(tensor, sum(layers.channels), layers.rank)
    if operand is None:
        return Miss("the constant varies along another axis than the channels", node)
    scale, shift = affine_of(node.op_type, operand, position)
    if not np.all(np.isfinite(scale)) or not np.all(np.isfinite(shift)):
        return Miss("the constant is not finite, or divides by zero", node)
    folded = layers.scaled(scale, shift, context)
    return Miss(folded, node) if isinstance(folded, str) else Match(node, build=folded)


def _negate(node: ir.Node, layers: Layers | str, context: Context) -> Match | Miss:
    if isinstance(layers, str):
        return Miss(layers, node)
    ones = np.ones(sum(layers.channels))
    folded = layers.scaled(-ones, 0 * ones, context)
    return Miss(folded, node) if isinstance(folded, str) else Match(node, build=folded)
