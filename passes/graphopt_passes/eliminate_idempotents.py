"""Removes what changes nothing the second time."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Final

import onnx_ir as ir

from graphopt.pipeline.base import Context, RulePass, Safety
from graphopt.rewrite.match import Match

__all__ = ["EliminateIdempotents"]

_WHOLE: Final = ("Ceil", "Floor", "Round", "Sign")
_TABLE: Final[Mapping[str, tuple[str, ...]]] = {
    "Ceil": _WHOLE,
    "Floor": _WHOLE,
    "Round": _WHOLE,
    "Sign": ("Sign",),
    "Abs": ("Abs", "Shape", "Size"),
    "Relu": ("Relu",),
}
"""Of which results an operator gives just these results."""


@dataclasses.dataclass(frozen=True)
class EliminateIdempotents(RulePass):
    """Removes Ceil, Floor, Round, Sign, Abs and Relu of what they would not change.

    What it does:
        Each of them done twice is the same as once, and Ceil, Floor and Round keep what is whole already: the results
        of each other, and those of Sign. Abs keeps what counts: a Shape, a Size.

    Before:
        ``a = Floor(x); b = Round(a); y = Neg(b)``

    After:
        ``a = Floor(x); y = Neg(a)``

    Does not apply when:
        - something else comes between the two.

    Safety:
        Exact, for infinities, negative zeros and NaN too.
    """

    name = "eliminate-idempotents"
    safety = Safety.EXACT
    ops = tuple(_TABLE)

    def match(self, node: ir.Node, context: Context) -> Match | None:
        before = context.producer(node.inputs[0], *_TABLE[node.op_type])
        return Match(node, forward=(node.inputs[0],)) if before is not None else None
