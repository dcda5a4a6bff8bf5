"""Turns a matrix product and the bias added to it into one Gemm."""

from __future__ import annotations

import dataclasses

import onnx_ir as ir

from graphopt.pipeline.base import Context, RulePass, Safety
from graphopt.rewrite.builder import Builder
from graphopt.rewrite.match import Match, Miss
from graphopt_passes._floats import FLOAT_TYPES

__all__ = ["FuseMatMulAdd"]


@dataclasses.dataclass(frozen=True)
class FuseMatMulAdd(RulePass):
    """Turns a 2-D MatMul and the bias added to it into one Gemm.

    What it does:
        A Gemm adds its third input on the way out, which saves a pass over the result.

    Before:
        ``m = MatMul(x, w); y = Add(m, b)``

    After:
        ``y = Gemm(x, w, b)``

    Does not apply when:
        - an operand of the MatMul is not known to have two axes: a Gemm between two Reshapes is slower than a MatMul;
        - the bias is not one number a column or one for all (``(N,)``, ``(1, N)``, ``()``, ``(1,)``, ``(1, 1)``), or
          makes the result larger;
        - the product is read by anything else, or is a graph output;
        - the type is not a floating-point one;
        - an operand is dequantized: runtimes recognise a quantized product by its MatMul.

    Safety:
        Numeric: the order of additions may differ.
    """

    name = "fuse-matmul-add"
    safety = Safety.NUMERIC
    ops = ("Add",)
    needs = frozenset({"MatMul"})

    def match(self, node: ir.Node, context: Context) -> Match | Miss | None:
        misses: list[str] = []
        for position in (0, 1):
            product = context.producer(node.inputs[position], "MatMul")
            if product is None:
                continue
            bias = node.inputs[1 - position]
            refusal = _refusal(node, product, bias, context)
            if refusal is None:
                return _gemm(node, product, bias)
            misses.append(refusal)
        return Miss(misses[0], node) if misses else None


def _refusal(node: ir.Node, product: ir.Node, bias: ir.Value | None, context: Context) -> str | None:
    if context.opset(node) < 7:
        return "before opset 7, arithmetic broadcasts by attributes"
    if product.graph is not node.graph or not context.only_reader(product.outputs[0], node):
        return "the product is read elsewhere"
    shapes = context.shapes
    left, right = (shapes.of(value) if value is not None else None for value in product.inputs)
    if left is None or right is None or len(left) != 2 or len(right) != 2:
        return "the operands are not known to have two axes"
    if 0 in left or 0 in right:
        return "the matrices are empty"
    if shapes.dtype(product.outputs[0]) not in FLOAT_TYPES:
        return "the type is not known to be a floating-point one"
    if any(context.producer(value, "DequantizeLinear") is not None for value in product.inputs):
        return "an operand is dequantized"
    added = shapes.of(bias) if bias is not None else None
    if added is None:
        return "the shape of the bias is not known"
    columns = right[1]
    if len(added) > 2 or any(size != 1 for size in added[:-1]) or (added and added[-1] not in (1, columns)):
        return "the bias is not one number a column"
    return None


def _gemm(node: ir.Node, product: ir.Node, bias: ir.Value | None) -> Match:
    def build(builder: Builder) -> list[ir.Value | None]:
        return [builder.op("Gemm", [*product.inputs, bias], origin=product)]

    return Match(node, build=build)
