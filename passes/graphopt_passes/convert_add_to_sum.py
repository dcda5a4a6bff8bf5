"""Adds up what a LayerNormalization is of in a way that ONNX Runtime's CPU kernels leave alone."""

from __future__ import annotations

import dataclasses

import onnx_ir as ir

from graphopt.pipeline.base import Context, RulePass, Safety, Target
from graphopt.rewrite.match import Match

__all__ = ["ConvertAddToSum"]


@dataclasses.dataclass(frozen=True)
class ConvertAddToSum(RulePass):
    """Adds up what a LayerNormalization is of in a way that ONNX Runtime's CPU kernels leave alone.

    What it does:
        The Add before a LayerNormalization becomes a Sum, which is the same. ONNX Runtime fuses an Add, but not a Sum,
        with the LayerNormalization, and its CPU kernel for both takes 3.5 (16 tokens) to 7 (128 and more) times as
        long as the two it replaces. For the portable target this is done only where ONNX Runtime would not have fused
        the original, since it could not tell its shapes, and would now that they are folded.

    Before:
        ``s = Add(x, y); z = LayerNormalization(s, scale, bias)``

    After:
        ``s = Sum(x, y); z = LayerNormalization(s, scale, bias)``

    Does not apply when:
        - the target is ``ort-cuda``, whose kernel for both is good; or portable, and the model declares the shape of
          the sum, or works out no shapes as it runs;
        - what is added up is not known to be of float32, is a constant, or has not three axes;
        - anything but the LayerNormalization, or what one in pieces begins with, reads the sum: ONNX Runtime then
          leaves it alone anyway;
        - the operator set is older than 8: Sum did not broadcast.

    Safety:
        Exact.
    """

    name = "convert-add-to-sum"
    safety = Safety.EXACT
    ops = ("Add",)
    needs = frozenset({"LayerNormalization", "ReduceMean"})
    reach = 1

    def match(self, node: ir.Node, context: Context) -> Match | None:
        (result,) = node.outputs
        hides = context.target is Target.PORTABLE and context.computes_shapes and result.shape is None
        if not (hides or context.target is Target.ORT_CPU) or context.opset(node) < 8 or not _is_normalized(node):
            return None
        if context.shapes.dtype(result) is not ir.DataType.FLOAT or context.shapes.rank(result) not in (3, None):
            return None
        if any(context.constant(value) is not None for value in node.inputs):
            return None
        return Match(node, build=lambda builder: [builder.op("Sum", node.inputs)])


def _is_normalized(node: ir.Node) -> bool:
    """Whether a layer normalization, or the two nodes that one in pieces begins with, alone read the sum."""
    (result,) = node.outputs
    if result.is_graph_output():
        return False
    readers = sorted((use.node.op_type, use.idx) for use in result.uses())
    return readers in ([("LayerNormalization", 0)], [("ReduceMean", 0), ("Sub", 0)])
