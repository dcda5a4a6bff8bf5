"""Multiplies the queries that share keys and values by them, instead of repeating the keys and values."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import onnx_ir as ir

from graphopt.analysis.dims import Dim
from graphopt.pipeline.base import Context, RulePass, Safety
from graphopt.rewrite.builder import Builder
from graphopt.rewrite.match import Match, Miss
from graphopt_passes._floats import AT_MOST_SINGLE
from graphopt_passes._shape_ops import ints_attribute, result_shape

__all__ = ["EliminateRepeatedHeads"]

_TURN = (0, 1, 3, 2)


@dataclasses.dataclass(frozen=True)
class EliminateRepeatedHeads(RulePass):
    """Multiplies the queries that share keys and values by them, instead of repeating the keys and values.

    What it does:
        In grouped-query attention (Ainslie et al., arXiv:2305.13245) exporters repeat each head of keys and of values
        for the queries that share it, by an Expand or a Tile between two reshapes. The queries of a group can as well
        stand below each other: then one product serves them all, nothing is copied, and the two reshapes around it
        cost nothing. For what comes between the projections ONNX Runtime takes 0.83 (one token) to 1.00 (384) times as
        long on the CPU.

    Before:
        ``u = Unsqueeze(k, [2]); e = Expand(u, [1, 2, 4, 1, 64]); r = Reshape(e, [0, 8, -1, 64]);
        t = Transpose <perm=[0,1,3,2]> (r); s = MatMul(q, t)`` with a ``k`` of (batch, 2, length, 64)

    After:
        ``g = Reshape(q, [0, 2, 4 * length, 0]); t = Transpose <perm=[0,1,3,2]> (k); m = MatMul(g, t);
        s = Reshape(m, [0, 8, length, 0])``, and alike for what is multiplied by the values

    Does not apply when:
        - the numbers of heads are not static, or the shapes not known to be such;
        - the repeated heads are read elsewhere, or are a graph output;
        - the length is not static and the operator set older than 15: its Shape gives all axes or none;
        - the type is not known to be float32 or of half precision.

    Safety:
        Numeric: kernels may take another order of additions for a taller matrix.
    """

    name = "eliminate-repeated-heads"
    safety = Safety.NUMERIC
    ops = ("MatMul", "Mul", "Div")
    needs = frozenset({"Expand", "Tile"})
    reach = 8

    def match(self, node: ir.Node, context: Context) -> Match | Miss | None:
        product = _product(node, context)
        repeated = _repeated(product, context) if product is not None else None
        if product is None or repeated is None:
            return None
        if product is node and _scaling(node, context) is not None:
            return None  # its reader is the root: a runtime takes the scale into the product
        rows = product.inputs[0]
        shape = context.shapes.of(rows) if rows is not None else None
        if rows is None or shape is None or len(shape) != 4 or shape[:2] != (repeated.batch, repeated.heads):
            return Miss("queries, keys and values are not known to have the same batch and heads", node)
        if context.shapes.dtype(rows) not in AT_MOST_SINGLE:
            return Miss("the type is not known to be float32 or of half precision", node)
        if not isinstance(shape[2], int) and context.opset(node) < 15:
            return Miss("the length is not static, and Shape has no start and end before opset 15", node)
        return Match(node, build=lambda builder: [_build(builder, node, product, repeated, shape[2])])


class _Repeated(NamedTuple):
    """Heads, repeated.

    Attributes:
        source: (batch, heads / times, length, size).
        chain: What happens to them once repeated, the last node first: scaling by a number, and a Transpose.
        batch: The extent.
        heads: How many there are once repeated.
        times: How often each is there.
    """

    source: ir.Value
    chain: tuple[ir.Node, ...]
    batch: Dim
    heads: int
    times: int


def _product(node: ir.Node, context: Context) -> ir.Node | None:
    """The MatMul at ``node``, or the one that ``node`` multiplies by a number."""
    if node.op_type == "MatMul":
        return node
    place = _number_place(node, context)
    return context.producer(node.inputs[1 - place], "MatMul", reader=node) if place is not None else None


def _number_place(node: ir.Node, context: Context) -> int | None:
    """Which operand of a Mul or Div is a number."""
    for place in (1, 0) if node.op_type == "Mul" else (1,):
        tensor = context.constant(node.inputs[place])
        if tensor is not None and tensor.size == 1 and len(tensor.shape) <= 4:
            return place
    return None


def _scaling(node: ir.Node, context: Context) -> ir.Node | None:
    """The node that alone reads ``node`` and multiplies its result by a number."""
    (result,) = node.outputs
    users = [use.node for use in result.uses()]
    if len(users) != 1 or result.is_graph_output() or users[0].graph is not node.graph:
        return None
    user = users[0]
    fits = user.op_type in ("Mul", "Div") and not user.domain and _product(user, context) is node
    return user if fits else None


def _repeated(product: ir.Node, context: Context) -> _Repeated | None:
    chain: list[ir.Node] = []
    value = product.inputs[1]
    while (node := context.producer(value, "Mul", "Div", "Transpose", "Reshape")) is not None:
        if value is None or node.graph is not product.graph:
            return None  # what is outside of a loop is to stay there
        # A Shape goes once extents are known another way; to wait for that would miss what is only then seen.
        readers = [use.node for use in value.uses() if use.node.domain or use.node.op_type != "Shape"]
        if len(readers) != 1 or value.is_graph_output():
            return None
        if node.op_type == "Reshape":
            return _heads(node, tuple(chain), context)
        if node.op_type == "Transpose":
            place = 1 if ints_attribute(node, "perm") == _TURN else None
        else:
            place = _number_place(node, context)
        if place is None:
            return None
        chain.append(node)
        value = node.inputs[1 - place]
    return None


def _heads(merge: ir.Node, chain: tuple[ir.Node, ...], context: Context) -> _Repeated | None:
    """``Reshape(Expand(Unsqueeze(x)))`` that repeats each head ``times`` in a row."""
    copy = context.producer(merge.inputs[0], "Expand", "Tile", reader=merge)
    apart = context.producer(copy.inputs[0], "Unsqueeze", "Reshape") if copy is not None else None
    source = apart.inputs[0] if apart is not None else None
    if copy is None or apart is None or source is None:
        return None
    before, single = context.shapes.of(source), result_shape(apart, context)
    copied, after = context.shapes.of(copy.outputs[0]), result_shape(merge, context)
    if before is None or single is None or copied is None or after is None or len(before) != 4 or len(copied) != 5:
        return None
    batch, heads, length, size = before
    times = copied[2]
    if not (isinstance(heads, int) and isinstance(times, int) and heads > 0 and times > 0):
        return None
    shapes = (single, copied, after)
    wanted = (
        (batch, heads, 1, length, size),
        (batch, heads, times, length, size),
        (batch, heads * times, length, size),
    )
    return _Repeated(source, chain, batch, heads * times, times) if shapes == wanted else None


def _build(builder: Builder, node: ir.Node, product: ir.Node, repeated: _Repeated, length: Dim) -> ir.Value:
    rows = product.inputs[0]
    assert rows is not None
    columns = repeated.source
    for step in reversed(repeated.chain):
        columns = _again(builder, step, columns)
    extent = None if isinstance(length, int) else builder.op("Shape", [rows], {"start": 2, "end": 3})
    grouped = _reshaped(builder, rows, repeated.heads // repeated.times, repeated.times, length, extent)
    result = builder.op("MatMul", [grouped, columns], origin=product)
    if node is not product:
        result = _again(builder, node, result)
    return _reshaped(builder, result, repeated.heads, 1, length, extent)


def _again(builder: Builder, node: ir.Node, value: ir.Value) -> ir.Value:
    """The Transpose, or the Mul or Div by a number, of another value."""
    place = 1 if node.op_type == "Transpose" else _number_place(node, builder.context)
    assert place is not None
    operands = list(node.inputs)
    operands[1 - place] = value
    return builder.like(node, operands)


def _reshaped(
    builder: Builder, value: ir.Value, heads: int, times: int, length: Dim, extent: ir.Value | None
) -> ir.Value:
    """``value`` as (batch, heads, times * length, last): batch and last axis stay."""
    if extent is None:
        assert isinstance(length, int)
        return builder.op("Reshape", [value, _ints(builder, [0, heads, times * length, 0])])
    if times != 1:
        extent = builder.op("Mul", [extent, _ints(builder, [times])])
    target = builder.op("Concat", [_ints(builder, [0, heads]), extent, _ints(builder, [0])], {"axis": 0})
    return builder.op("Reshape", [value, target])


def _ints(builder: Builder, numbers: Sequence[int]) -> ir.Value:
    return builder.constant(np.array(numbers, np.int64), "ints")
