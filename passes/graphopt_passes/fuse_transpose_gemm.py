"""Lets a Gemm read what is transposed for it the other way round."""

from __future__ import annotations

import dataclasses

import onnx_ir as ir

from graphopt.pipeline.base import Context, RulePass, Safety
from graphopt.rewrite.builder import Builder
from graphopt.rewrite.match import Match, Miss

__all__ = ["FuseTransposeGemm"]


@dataclasses.dataclass(frozen=True)
class FuseTransposeGemm(RulePass):
    """Lets a Gemm read what is transposed for it the other way round.

    What it does:
        ``transA`` or ``transB`` changes, and the Gemm reads what the Transpose reads. The Transpose stays for its other
        readers, if it has any.

    Before:
        ``t = Transpose(x); y = Gemm(t, W, B)``

    After:
        ``y = Gemm<transA=1>(x, W, B)``

    Does not apply when:
        - the Transpose does not swap two axes;
        - the operand is a graph output, or comes from another graph.

    Safety:
        Numeric: kernels may take another order of additions for a transposed operand.
    """

    name = "fuse-transpose-gemm"
    safety = Safety.NUMERIC
    ops = ("Gemm",)
    needs = frozenset({"Transpose"})

    def match(self, node: ir.Node, context: Context) -> Match | Miss | None:
        inputs = list(node.inputs)
        flags: dict[str, int | None] = {}
        for position, flag in enumerate(("transA", "transB")):
            turn = context.producer(inputs[position], "Transpose")
            if turn is None:
                continue
            if turn.graph is not node.graph or turn.outputs[0].is_graph_output():
                return Miss("what is transposed is a graph output, or comes from another graph", node)
            if list(turn.attributes.get_ints("perm") or (1, 0)) == [1, 0]:
                inputs[position] = turn.inputs[0]
                flags[flag] = None if node.attributes.get_int(flag, 0) else 1
        if not flags:
            return None

        def build(builder: Builder) -> list[ir.Value | None]:
            return [builder.like(node, inputs, flags)]

        return Match(node, build=build)
