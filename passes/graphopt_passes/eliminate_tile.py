"""Removes Tile nodes that repeat nothing."""

from __future__ import annotations

import dataclasses

import onnx_ir as ir

from graphopt.pipeline.base import Context, RulePass, Safety
from graphopt.rewrite.match import Match, Miss
from graphopt_passes._shape_ops import input_of, numbers

__all__ = ["EliminateTile"]


@dataclasses.dataclass(frozen=True)
class EliminateTile(RulePass):
    """Removes Tile nodes that repeat nothing.

    What it does:
        Readers of a Tile whose repeats are all 1 read its input.

    Before:
        ``y = Tile(x, [1, 1]); z = Relu(y)``

    After:
        ``z = Relu(x)``

    Does not apply when:
        - a repeat is not the constant 1.

    Safety:
        Exact.
    """

    name = "eliminate-tile"
    safety = Safety.EXACT
    ops = ("Tile",)

    def match(self, node: ir.Node, context: Context) -> Match | Miss | None:
        source = input_of(node, 0)
        repeats = numbers(input_of(node, 1), context)  # one number for one axis in opset 1
        if source is None or repeats is None or any(repeat != 1 for repeat in repeats):
            return None
        return Match(node, forward=(source,))
