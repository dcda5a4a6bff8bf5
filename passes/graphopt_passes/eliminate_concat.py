"""Removes Concat nodes that put nothing together, or what was apart for no reason."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import onnx_ir as ir

from graphopt.pipeline.base import Context, RulePass, Safety
from graphopt.rewrite.builder import Builder
from graphopt.rewrite.match import Match, Miss
from graphopt_passes import _slices as _cuts
from graphopt_passes._shape_ops import FAR, input_of

__all__ = ["EliminateConcat"]


@dataclasses.dataclass(frozen=True)
class EliminateConcat(RulePass):
    """Removes Concat nodes of one operand, operands of length 0 along the axis, and pieces of what was split.

    What it does:
        Readers of a Concat of a single value read that value. An operand of static length 0 along the axis (an empty
        cache, an empty constant) adds nothing; it is left out if another operand of the same rank remains.
        Successive operands that are all the outputs of a Split along the axis, or Slices that begin where the last
        one ended, give way to the one value that they are the pieces of.

    Before:
        ``c = Concat<axis=1>(x, empty); y = Relu(c)``

    After:
        ``y = Relu(x)``

    Does not apply when:
        - an operand's length might be 0 only for some inputs;
        - a piece is missing or not in its place, or the pieces lie along another axis.

    Safety:
        Exact.
    """

    name = "eliminate-concat"
    safety = Safety.EXACT
    ops = ("Concat",)

    def match(self, node: ir.Node, context: Context) -> Match | Miss | None:
        operands = [value for value in node.inputs if value is not None]
        if not operands or len(operands) != len(node.inputs):
            return None
        if len(operands) == 1:
            return Match(node, forward=(operands[0],))
        axis = node.attributes.get_int("axis", 1)  # opset 1 had a default
        kept = _not_empty(axis, operands, context)
        if len(kept) > 1:
            kept = _whole(axis, kept, context)
        if len(kept) == len(operands):
            return None

        def build(builder: Builder) -> list[ir.Value | None]:
            return [kept[0] if len(kept) == 1 else builder.like(node, kept)]

        return Match(node, build=build)


def _not_empty(axis: int, operands: list[ir.Value], context: Context) -> list[ir.Value]:
    """The operands that have, or might have, elements along the axis; the first if there is none."""
    shapes = [context.shapes.of(value) for value in operands]
    ranks = {len(shape) for shape in shapes if shape is not None}
    if len(ranks) != 1 or not -min(ranks) <= axis < min(ranks):
        return operands
    kept = [value for value, shape in zip(operands, shapes, strict=True) if shape is None or shape[axis] != 0]
    return kept or operands[:1]


def _whole(axis: int, operands: list[ir.Value], context: Context) -> list[ir.Value]:
    """The operands, with each run of all the pieces of a value replaced by that value."""
    result: list[ir.Value] = []
    place = 0
    while place < len(operands):
        producer = context.producer(operands[place], *_PIECES)
        count, source = (
            (0, None) if producer is None else _PIECES[producer.op_type](producer, operands[place:], axis, context)
        )
        result.append(source if count and source is not None else operands[place])
        place += count or 1
    return result


def _split(split: ir.Node, operands: list[ir.Value], axis: int, context: Context) -> tuple[int, ir.Value | None]:
    """How many of the first ``operands`` are all the outputs of ``split``, and what it splits."""
    source, count = input_of(split, 0), len(split.outputs)
    if source is None or tuple(operands[:count]) != tuple(split.outputs):
        return 0, None
    own = split.attributes.get_int("axis", 0)
    rank = context.shapes.rank(source)
    same = own == axis or (rank is not None and own % rank == axis % rank)
    return (count, source) if same else (0, None)


def _slices(first: ir.Node, operands: list[ir.Value], axis: int, context: Context) -> tuple[int, ir.Value | None]:
    """How many of the first ``operands`` are successive slices of all of a value, and which."""
    source, position = input_of(first, 0), 0
    shape = context.shapes.of(source) if source is not None else None
    length = shape[axis] if shape is not None and -len(shape) <= axis < len(shape) else FAR
    for count, operand in enumerate(operands, 1):
        node = context.producer(operand, "Slice")
        cut = None if node is None or input_of(node, 0) is not source else _cuts.read(node, context)
        if cut is None or len(cut.bounds) != 1:
            return 0, None
        ((place, (start, end, step)),) = cut.bounds.items()
        if (place if cut.rank is None else place % cut.rank) != (axis if cut.rank is None else axis % cut.rank):
            return 0, None
        if start != position or step != 1:
            return 0, None
        if end >= FAR or (isinstance(length, int) and end >= length > start):
            return count, source
        if end <= start:
            return 0, None
        position = end
    return 0, None


_PIECES: dict[str, Callable[[ir.Node, list[ir.Value], int, Context], tuple[int, ir.Value | None]]] = {
    "Split": _split,
    "Slice": _slices,
}
