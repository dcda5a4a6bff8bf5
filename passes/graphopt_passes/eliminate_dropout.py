"""Removes Dropout nodes that do not train."""

from __future__ import annotations

import dataclasses

import onnx_ir as ir

from graphopt.pipeline.base import Context, RulePass, Safety
from graphopt.rewrite.match import Match, Miss
from graphopt_passes._shape_ops import input_of

__all__ = ["EliminateDropout"]


@dataclasses.dataclass(frozen=True)
class EliminateDropout(RulePass):
    """Removes Dropout nodes that do not train.

    What it does:
        Outside training, Dropout returns its input; so does one whose ratio is the constant 0.

    Before:
        ``y = Dropout(x, ratio); z = Relu(y)``

    After:
        ``z = Relu(x)``

    Does not apply when:
        - the mask is read or is a graph output;
        - ``training_mode`` is anything but left out or the constant false (opset 12 and later);
        - ``is_test`` is not set (before opset 7).

    Safety:
        Exact.
    """

    name = "eliminate-dropout"
    safety = Safety.EXACT
    ops = ("Dropout",)

    def match(self, node: ir.Node, context: Context) -> Match | Miss | None:
        source = input_of(node, 0)
        if source is None:
            return None
        if any(output.is_graph_output() or output.uses() for output in node.outputs[1:]):
            return Miss("the Dropout's mask is read", node)
        if _may_drop(node, context):
            return Miss("the Dropout may train", node)
        return Match(node, forward=(source, *[None] * (len(node.outputs) - 1)))


def _may_drop(node: ir.Node, context: Context) -> bool:
    opset = context.opset(node)
    if opset < 7:
        return not node.attributes.get_int("is_test", 0)
    training = input_of(node, 2)
    if opset < 12 or training is None:
        return False
    ratio = input_of(node, 1)
    return context.scalar(training) is not False and (ratio is None or context.scalar(ratio) != 0)
