"""Leaves out the operands of recurrent layers that are zero anyway."""

from __future__ import annotations

import dataclasses
from typing import Final

import numpy as np
import onnx_ir as ir

from graphopt.pipeline.base import Context, RulePass, Safety
from graphopt.rewrite.builder import Builder
from graphopt.rewrite.match import Match

__all__ = ["EliminateZeroStates"]

_OPTIONAL: Final = (3, 5, 6, 7)  # bias, initial hidden state, initial cell state, peepholes
_MOVES: Final = frozenset(
    {"Expand", "Identity", "Reshape", "Slice", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze"}
)
_DEPTH: Final = 8
_MAX_ELEMENTS: Final = 1 << 16


@dataclasses.dataclass(frozen=True)
class EliminateZeroStates(RulePass):
    """Leaves out the operands of recurrent layers that are zero anyway.

    What it does:
        An LSTM, GRU or RNN starts from zeros where no initial state is given, and takes a missing bias or missing
        peepholes for zeros. Exporters of torch spell the zeros out, and compute how many there must be from the shape
        of the input; that goes away with them.

    Before:
        ``s = Shape<start=1, end=2>(x); t = Concat(1, s, 8); h = ConstantOfShape(t); y = GRU(x, w, r, b, , h)``

    After:
        ``y = GRU(x, w, r, b)``

    Does not apply when:
        - an element is not zero, is a negative zero, or is not known;
        - the zeros can be overridden by the caller.

    Safety:
        Exact.
    """

    name = "eliminate-zero-states"
    safety = Safety.EXACT
    ops = ("LSTM", "GRU", "RNN")
    reach = _DEPTH

    def match(self, node: ir.Node, context: Context) -> Match | None:
        zero = [at for at in _OPTIONAL if at < len(node.inputs) and _is_zero(node.inputs[at], context, _DEPTH)]
        if not zero:
            return None
        inputs = [None if at in zero else value for at, value in enumerate(node.inputs)]
        while inputs[-1] is None:
            inputs.pop()

        def build(builder: Builder) -> list[ir.Value | None]:
            new = builder.like(node, inputs).producer()
            assert new is not None
            return list(new.outputs)

        return Match(node, build=build)


def _is_zero(value: ir.Value | None, context: Context, depth: int) -> bool:
    """Whether all elements are known to be (positive) zeros."""
    if value is None or depth == 0:
        return False
    tensor = context.constant(value)
    if tensor is not None:
        return tensor.size <= _MAX_ELEMENTS and _are_zeros(tensor)
    node = context.producer(value)
    if node is None:
        return False
    if node.op_type == "ConstantOfShape":
        fill = node.attributes.get("value")
        return fill is None or _are_zeros(fill.as_tensor())
    if node.op_type == "Concat":
        return all(_is_zero(part, context, depth // 2) for part in node.inputs)
    return node.op_type in _MOVES and _is_zero(node.inputs[0], context, depth - 1)


def _are_zeros(tensor: ir.TensorProtocol) -> bool:
    array = np.asarray(tensor.numpy(), np.float64)
    return not np.any(array) and not np.any(np.signbit(array))
