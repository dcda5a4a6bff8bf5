"""Lets a Gather of one element read what a Concat or an Unsqueeze reads."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx_ir as ir

from graphopt.pipeline.base import Context, RulePass, Safety
from graphopt.rewrite.builder import Builder
from graphopt.rewrite.match import Match, Miss
from graphopt_passes._shape_ops import axes, input_of

__all__ = ["EliminateGather"]


@dataclasses.dataclass(frozen=True)
class EliminateGather(RulePass):
    """Lets a Gather of one element read what a Concat or an Unsqueeze reads.

    What it does:
        The only element along an axis that an Unsqueeze made is what it read. An element of a Concat, along its axis,
        is an element of the operand that holds it.

    Before:
        ``u = Unsqueeze(x, [0]); v = Unsqueeze(z, [0]); c = Concat<axis=0>(u, v); y = Gather<axis=0>(c, 1)``

    After:
        ``y = z``

    Does not apply when:
        - the index is not a constant scalar;
        - the lengths of the operands up to the element (from the end for a negative index) are not known;
        - something but Gathers of one element reads the Concat, so that it stays;
        - the Unsqueeze made other axes too.

    Safety:
        Exact.
    """

    name = "eliminate-gather"
    safety = Safety.EXACT
    ops = ("Gather",)
    needs = frozenset({"Concat", "Unsqueeze"})
    reach = 2

    def match(self, node: ir.Node, context: Context) -> Match | Miss | None:
        source = context.producer(input_of(node, 0), "Concat", "Unsqueeze")
        indices = input_of(node, 1)
        if source is None or indices is None:
            return None
        index, rank = context.scalar(indices), context.shapes.rank(source.outputs[0])
        if index is None or context.shapes.rank(indices) != 0 or rank is None:
            return Miss("the index is not a constant scalar, or the rank is not known", node)
        axis = node.attributes.get_int("axis", 0) % rank
        if source.op_type == "Unsqueeze":
            made, operand = axes(source, 1, context), input_of(source, 0)
            if index not in (0, -1) or made is None or [one % rank for one in made] != [axis]:
                return Miss("it takes more than what the Unsqueeze reads", node)
            return Match(node, forward=(operand,))
        if source.attributes.get_int("axis", 1) % rank != axis or not _only_elements(source, axis, rank, context):
            return Miss("something else than Gathers of one element reads the Concat", node)
        found = _operand(source, axis, int(index), context)
        if found is None:
            return Miss("the lengths of the operands are not known", node)
        operand, place = found

        def build(builder: Builder) -> list[ir.Value | None]:
            return [builder.op("Gather", [operand, builder.constant(np.array(place, np.int64))], {"axis": axis})]

        return Match(node, build=build)


def _only_elements(concat: ir.Node, axis: int, rank: int, context: Context) -> bool:
    """Whether all that reads a Concat are Gathers of one element of it along its axis."""
    (result,) = concat.outputs
    return not result.is_graph_output() and all(
        reader.op_type == "Gather"
        and not reader.domain
        and reader.graph is concat.graph
        and reader.inputs[0] is result
        and reader.attributes.get_int("axis", 0) % rank == axis
        and context.scalar(reader.inputs[1]) is not None
        and (indices := reader.inputs[1]) is not None
        and context.shapes.rank(indices) == 0
        for reader in result.consumers()
    )


def _operand(concat: ir.Node, axis: int, index: int, context: Context) -> tuple[ir.Value, int] | None:
    """The operand of a Concat that holds an element, and its place there."""
    operands = concat.inputs if index >= 0 else concat.inputs[::-1]
    left = index if index >= 0 else -1 - index  # elements before it, or behind it
    for operand in operands:
        shape = context.shapes.of(operand) if operand is not None else None
        length = shape[axis] if shape is not None and axis < len(shape) else None
        if operand is None or not isinstance(length, int):
            return None
        if left < length:
            return operand, left if index >= 0 else -1 - left
        left -= length
    return None
