"""Removes Expand nodes that keep the shape, or whose reader broadcasts anyway."""

from __future__ import annotations

import dataclasses
import functools

import onnx_ir as ir

from graphopt.analysis.dims import Dim, broadcast
from graphopt.pipeline.base import Context, RulePass, Safety
from graphopt.rewrite.builder import Builder
from graphopt.rewrite.match import Match, Miss
from graphopt_passes._shape_ops import input_of, is_shape_of, numbers

__all__ = ["EliminateExpand"]


_BROADCASTING = (
    "Add", "Sub", "Mul", "Div", "Pow", "Mod", "Max", "Min", "Sum", "Mean", "And", "Or", "Xor", "Equal", "Less",
    "LessOrEqual", "Greater", "GreaterOrEqual", "Where", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "BitShift",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class EliminateExpand(RulePass):
    """Removes Expand nodes that keep the shape, or whose reader broadcasts anyway.

    What it does:
        Readers of an Expand whose target, aligned from the right, is 1 or the input's own extent on each axis read
        its input. Extents may be symbolic. An operator that broadcasts (arithmetic, comparisons, logic, Where, another
        Expand) reads what was expanded, if its other operands make its result as large.

    Before:
        ``y = Expand(x, [1, 4]); z = Relu(y)`` with an ``x`` of ``[N, 4]``

    After:
        ``z = Relu(x)``

    Does not apply when:
        - the target has more axes than the input, or an extent that might differ, and the reader does not broadcast,
          or would give a smaller result.

    Safety:
        Exact.
    """

    name = "eliminate-expand"
    safety = Safety.EXACT
    ops = ("Expand", *_BROADCASTING)
    needs = frozenset({"Expand"})

    def match(self, node: ir.Node, context: Context) -> Match | Miss | None:
        source = input_of(node, 0)
        if node.op_type != "Expand" or source is None:
            return _bypass(node, list(node.inputs), [], context)
        given = input_of(node, 1)
        if is_shape_of(given, source, context):
            return Match(node, forward=(source,))
        target = numbers(given, context)
        if target is None:
            return Miss("the target of the Expand is not known", node)
        shape = context.shapes.of(source)
        if shape is not None and len(target) <= len(shape):
            aligned = zip(target, shape[len(shape) - len(target) :], strict=True)
            if all(dim == 1 or dim == own for dim, own in aligned):
                return Match(node, forward=(source,))
        return _bypass(node, [source], [target], context)


def _bypass(
    node: ir.Node, operands: list[ir.Value | None], others: list[tuple[Dim, ...]], context: Context
) -> Match | None:
    """Lets a node that broadcasts read what was expanded; ``others`` are shapes that it broadcasts to besides."""
    for value in operands:
        expand = context.producer(value, "Expand")
        source = None if expand is None else input_of(expand, 0)
        if source is None:
            continue
        before = [None if one is None else context.shapes.of(one) for one in operands]
        after = [
            context.shapes.of(source) if one is value else shape for one, shape in zip(operands, before, strict=True)
        ]
        result = _broadcast([*after, *others])
        if result is None or result != _broadcast([*before, *others]):
            continue
        inputs = [source if one is value else one for one in node.inputs]
        return Match(node, build=functools.partial(_rebuild, node, inputs))
    return None


def _rebuild(node: ir.Node, inputs: list[ir.Value | None], builder: Builder) -> list[ir.Value | None]:
    return [builder.like(node, inputs)]


def _broadcast(shapes: list[tuple[Dim, ...] | None]) -> tuple[Dim, ...] | None:
    """The shape of all together; ``None`` if one is not known."""
    known = [shape for shape in shapes if shape is not None]
    if len(known) < len(shapes):
        return None
    rank = max(map(len, known))
    padded = [(1,) * (rank - len(shape)) + shape for shape in known]
    return tuple(functools.reduce(broadcast, column) for column in zip(*padded, strict=True))
