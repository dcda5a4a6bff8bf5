"""Removes Pad nodes that add nothing."""

from __future__ import annotations

import dataclasses

import onnx_ir as ir

from graphopt.pipeline.base import Context, RulePass, Safety
from graphopt.rewrite.match import Match, Miss
from graphopt_passes._shape_ops import input_of, ints_attribute, numbers

__all__ = ["EliminatePad"]


@dataclasses.dataclass(frozen=True)
class EliminatePad(RulePass):
    """Removes Pad nodes that add nothing.

    What it does:
        Readers of a Pad whose amounts are all 0 read its input, whatever the mode, the fill value and the axes.

    Before:
        ``y = Pad(x, [0, 0, 0, 0]); z = Relu(y)``

    After:
        ``z = Relu(x)``

    Does not apply when:
        - an amount is positive, negative (which crops) or unknown.

    Safety:
        Exact.
    """

    name = "eliminate-pad"
    safety = Safety.EXACT
    ops = ("Pad",)

    def match(self, node: ir.Node, context: Context) -> Match | Miss | None:
        source, given = input_of(node, 0), input_of(node, 1)
        if source is None:
            return None
        if given is not None:
            amounts = numbers(given, context)
        else:
            # "paddings" in opset 1, "pads" from 2 to 10
            amounts = ints_attribute(node, "pads" if "pads" in node.attributes else "paddings")
        if amounts is None:
            return Miss("the amounts of padding are not constant", node)
        return None if any(amount != 0 for amount in amounts) else Match(node, forward=(source,))
