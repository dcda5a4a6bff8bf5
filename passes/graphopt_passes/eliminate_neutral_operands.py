"""Removes arithmetic with a constant that changes nothing."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Final

import onnx_ir as ir

from graphopt.pipeline.base import Context, RulePass, Safety
from graphopt.rewrite.match import Match, Miss
from graphopt_passes._neutral import Test, is_filled, other_operand

__all__ = ["EliminateNeutralOperands"]

_BOTH: Final = (0, 1)
_RIGHT: Final = (1,)
_TABLE: Final[Mapping[str, tuple[tuple[int, ...], Test]]] = {
    # x + 0.0 is 0.0 for an x of -0.0, x + -0.0 is x always; x - 0.0 is, too
    "Add": (_BOTH, lambda contents: is_filled(contents, 0, negative=True)),
    "Sub": (_RIGHT, lambda contents: is_filled(contents, 0)),
    "Mul": (_BOTH, lambda contents: is_filled(contents, 1)),
    "Div": (_RIGHT, lambda contents: is_filled(contents, 1)),
    "And": (_BOTH, lambda contents: is_filled(contents, 1)),
    "Or": (_BOTH, lambda contents: is_filled(contents, 0)),
    "Xor": (_BOTH, lambda contents: is_filled(contents, 0)),
    "BitwiseOr": (_BOTH, lambda contents: is_filled(contents, 0)),
    "BitwiseXor": (_BOTH, lambda contents: is_filled(contents, 0)),
    "BitShift": (_RIGHT, lambda contents: is_filled(contents, 0)),
}
"""Where the constant may stand, and what it must hold."""
_VARIADIC: Final = ("Sum", "Mean", "Max", "Min")


@dataclasses.dataclass(frozen=True)
class EliminateNeutralOperands(RulePass):
    """Removes arithmetic and logic with a constant that changes nothing.

    What it does:
        ``x * 1``, ``x / 1``, ``x - 0``, ``x and true``, ``x or false``, ``x xor false`` are ``x``, and so is ``x + 0``
        of integers. The sum, mean, maximum or minimum of a single operand is that operand.

    Before:
        ``y = Mul(x, 1); z = Relu(y)``

    After:
        ``z = Relu(x)``

    Does not apply when:
        - the constant gives the result more axes, or longer ones, than ``x`` has;
        - it is 0.0 and added: ``-0.0 + 0.0`` is ``0.0`` (eliminate-added-zeros takes that);
        - the operator set is older than 7, or the constant has more than 65,536 elements.

    Safety:
        Exact.
    """

    name = "eliminate-neutral-operands"
    safety = Safety.EXACT
    ops = (*_TABLE, *_VARIADIC)

    def match(self, node: ir.Node, context: Context) -> Match | Miss | None:
        if node.op_type in _VARIADIC:
            alone = len(node.inputs) == 1 and node.inputs[0] is not None
            return Match(node, forward=(node.inputs[0],)) if alone else None
        positions, test = _TABLE[node.op_type]
        for position in positions:
            found = other_operand(node, position, test, context)
            if found is not None:
                return Miss(found, node) if isinstance(found, str) else Match(node, forward=(found,))
        return None
