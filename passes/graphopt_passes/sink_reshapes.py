"""Lets elementwise operators and products read what a Reshape reads, where another Reshape follows."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Final, NamedTuple, TypeAlias

import onnx_ir as ir

from graphopt.analysis.dims import Dim
from graphopt.pipeline.base import Context, RulePass, Safety
from graphopt.rewrite.builder import Builder
from graphopt.rewrite.match import Match, Miss
from graphopt_passes._layouts import BROADCAST, UNARY
from graphopt_passes._shape_ops import constant_target, input_of, reshape, result_shape

__all__ = ["SinkReshapes"]

_RESHAPING: Final = ("Reshape", "Flatten", "Squeeze", "Unsqueeze")
_LONGEST: Final = 4
"""Nodes between the two."""


@dataclasses.dataclass(frozen=True)
class SinkReshapes(RulePass):
    """Lets elementwise operators and products between two reshaping nodes read what the first one reads.

    What it does:
        An elementwise operator does the same whatever the shape. So the first of Reshape, Flatten, Squeeze and
        Unsqueeze goes, and the last one too where it only restores the shape; otherwise a Reshape to a constant target
        stands for it. A MatMul computes the last two axes, or, by a matrix, the last axis: a Reshape that merges the
        others before it goes with the one that parts them again.

    Before:
        ``a = Reshape(x, [-1, 4]); b = MatMul(a, w); c = Relu(b); y = Reshape(c, [-1, 3, 8])`` with ``x: [N, 3, 4]``

    After:
        ``b = MatMul(x, w); y = Relu(b)``

    Does not apply when:
        - an inner result is read elsewhere, or is a graph output;
        - another operand than the one that was reshaped has axes that are longer than 1, or more of them;
        - there is a product, and the last node does not restore just the axes that it does not compute;
        - a bias is added to a product: of two axes the two are a Gemm, which with its two Reshapes takes as long as
          MatMul and Add, or up to a sixth less;
        - the shapes are not known, or no constant target gives the result's.

    Safety:
        Numeric: kernels may take another order of additions for a product of more axes.
    """

    name = "sink-reshapes"
    safety = Safety.NUMERIC
    ops = _RESHAPING
    reach = _LONGEST + 2

    def match(self, node: ir.Node, context: Context) -> Match | Miss | None:
        chain: list[_Link] = []
        value, reader = input_of(node, 0), node
        while (link := _link(value, reader, context)) is not None and len(chain) < _LONGEST:
            chain.append(link)
            value, reader = link.node.inputs[link.place], link.node
        first = context.producer(value, *_RESHAPING, reader=reader)
        source = input_of(first, 0) if first is not None else None
        if first is None or source is None or not chain:
            return None
        if any(link.node.op_type == "Add" and above.node.op_type == "MatMul" for link, above in pairwise(chain)):
            return Miss("a product of two axes and its bias are one Gemm, which is faster", node)
        before, between = context.shapes.of(source), context.shapes.of(first.outputs[0])
        moved = None if before is None or between is None else _moved(chain[::-1], _Shapes(before, between), context)
        if moved is None:
            return Miss("the shape matters to what lies between", node)
        shape, inputs = moved
        after = result_shape(node, context)
        target = None if shape == after else constant_target(shape, after)
        if shape != after and (target is None or any(link.node.op_type == "MatMul" for link in chain)):
            return Miss("the result is not known to have just the shape that there was", node)

        def build(builder: Builder) -> list[ir.Value | None]:
            result = source
            for link, operands in zip(chain[::-1], inputs, strict=True):
                operands[link.place] = result
                result = builder.like(link.node, operands)
            return [result if target is None else reshape(builder, result, target)]

        return Match(node, build=build)


class _Link(NamedTuple):
    """A node between the two, and which of its inputs comes from the first one."""

    node: ir.Node
    place: int


class _Shapes(NamedTuple):
    """What a result has without the first reshaping node, and with it."""

    before: tuple[Dim, ...]
    between: tuple[Dim, ...]


_Operands: TypeAlias = list["ir.Value | None"]
_Step: TypeAlias = Callable[[_Link, _Shapes, Context], "tuple[_Shapes, _Operands] | None"]
"""The shapes of the result, and what the node reads besides; ``None`` if the shape matters to it."""


def _link(value: ir.Value | None, reader: ir.Node, context: Context) -> _Link | None:
    """What gives ``value`` to ``reader`` alone, if the shape might not matter to it."""
    node = context.producer(value, *_STEPS, reader=reader)
    if node is None or len(node.outputs) != 1:
        return None
    variable = [place for place, one in enumerate(node.inputs) if one is not None and context.constant(one) is None]
    if node.op_type == "MatMul":
        return _Link(node, 0) if 0 in variable else None
    return _Link(node, variable[0]) if len(variable) == 1 else None


def _moved(
    chain: Sequence[_Link], shapes: _Shapes, context: Context
) -> tuple[tuple[Dim, ...], Sequence[_Operands]] | None:
    """The shape of the last result without the first reshaping node, and what each node then reads."""
    inputs: list[_Operands] = []
    for link in chain:
        found = _STEPS[link.node.op_type](link, shapes, context)
        if found is None:
            return None
        shapes, operands = found
        inputs.append(operands)
    return shapes.before, inputs


def _elementwise(link: _Link, shapes: _Shapes, context: Context) -> tuple[_Shapes, _Operands] | None:
    """Others must be numbers, or vary along a last axis that stays the last."""
    before, between = shapes
    for place, value in enumerate(link.node.inputs):
        dims = context.shapes.of(value) if value is not None and place != link.place else ()
        if dims is None or len(dims) > min(len(before), len(between)):
            return None
        if any(dim != 1 for dim in dims) and (
            any(dim != 1 for dim in dims[:-1]) or not dims[-1] == before[-1] == between[-1]
        ):
            return None
    return (shapes, list(link.node.inputs)) if context.opset(link.node) >= 8 else None


def _matmul(link: _Link, shapes: _Shapes, context: Context) -> tuple[_Shapes, _Operands] | None:
    """A product with a matrix, or with what came to have the same axes of length 1 in front."""
    before, between = shapes
    node, right = link.node, link.node.inputs[1]
    dims = context.shapes.of(right) if right is not None else None
    if dims is None or len(dims) < 2 or min(len(before), len(between)) < 2:
        return None
    if len(dims) > 2:
        first = context.producer(right, *_RESHAPING, reader=node)
        right = input_of(first, 0) if first is not None else None
        matrix = context.shapes.of(right) if right is not None else None
        if matrix is None or len(matrix) != 2 or len(before) != 2:
            return None
        if between != (*[1] * (len(between) - 2), *before) or dims != (*[1] * (len(dims) - 2), *matrix):
            return None
        front = max(len(between), len(dims)) - 2
        return _Shapes((before[0], matrix[1]), (*[1] * front, before[0], matrix[1])), [node.inputs[0], right]
    if before[-1] != between[-1]:
        return None
    return _Shapes((*before[:-1], dims[1]), (*between[:-1], dims[1])), list(node.inputs)


_STEPS: Final[Mapping[str, _Step]] = {
    **dict.fromkeys({*UNARY, *BROADCAST} - {"DequantizeLinear", "QuantizeLinear"}, _elementwise),
    "MatMul": _matmul,
}
