"""Folds a BatchNormalization into the convolution before it."""

from __future__ import annotations

import dataclasses

import onnx_ir as ir

from graphopt.pipeline.base import Context, RulePass, Safety
from graphopt.rewrite.match import Match, Miss
from graphopt_passes._channels import LINEAR_OPS, batchnorm_affine, layers_of

__all__ = ["FuseConvBatchNorm"]


@dataclasses.dataclass(frozen=True)
class FuseConvBatchNorm(RulePass):
    """Folds an inference BatchNormalization into the Conv, ConvTranspose or Gemm before it.

    What it does:
        With ``s = scale / sqrt(var + epsilon)``, per output channel ``W' = W * s`` and
        ``B' = (B - mean) * s + bias``. Computed in float64, stored in the weight's dtype. A Gemm's ``beta`` goes into
        its bias. Of several convolutions in a Concat, each takes its share.

    Before:
        ``c = Conv(x, W, B); y = BatchNormalization(c, scale, bias, mean, var)``

    After:
        ``y = Conv(x, W', B')``

    Does not apply when:
        - the convolution's result is read by anything else, or is a graph output;
        - a weight or a statistic is not constant, or can be overridden by the caller;
        - the BatchNormalization trains, or has more than one used output;
        - the bias of a Gemm varies over the batch;
        - the folded weights would overflow their type, or lose precision in it.

    Safety:
        Numeric: rounding of the folded weights. Weights shared with other nodes are copied, not changed.
    """

    name = "fuse-conv-batchnorm"
    safety = Safety.NUMERIC
    ops = ("BatchNormalization",)
    reach = 2
    needs = frozenset(LINEAR_OPS)

    def match(self, node: ir.Node, context: Context) -> Match | Miss | None:
        layers = layers_of(node.inputs[0], node, context)
        if layers is None:
            return None
        if isinstance(layers, str):
            return Miss(layers, node)
        affine = batchnorm_affine(node, context)
        if isinstance(affine, str):
            return Miss(affine, node)
        scaled = layers.scaled(*affine, context)
        if isinstance(scaled, str):
            return Miss(scaled, node)
        return Match(node, build=scaled)
