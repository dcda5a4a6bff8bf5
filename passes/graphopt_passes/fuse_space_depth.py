"""Puts the pieces of SpaceToDepth and DepthToSpace together."""

from __future__ import annotations

import dataclasses
from typing import Final, NamedTuple

import numpy as np
import onnx_ir as ir

from graphopt.analysis.dims import Dim, floordiv
from graphopt.pipeline.base import Context, RulePass, Safety
from graphopt.rewrite.builder import Builder
from graphopt.rewrite.match import Match, Miss
from graphopt_passes import _slices

__all__ = ["FuseSpaceDepth"]

_TO_SPACE: Final = {(0, 3, 4, 1, 5, 2): "DCR", (0, 1, 4, 2, 5, 3): "CRD"}
_TO_DEPTH: Final = {(0, 3, 5, 1, 2, 4): False, (0, 1, 3, 5, 2, 4): True}
"""Whether the channels are outermost, and not innermost as SpaceToDepth has it."""
_TYPES: Final = (ir.DataType.FLOAT, ir.DataType.DOUBLE)
_OTHER_TYPE: Final = "the type is not known to be float32 or float64"


@dataclasses.dataclass(frozen=True)
class FuseSpaceDepth(RulePass):
    """Puts the pieces of SpaceToDepth and DepthToSpace together.

    What it does:
        A Reshape, Transpose and Reshape that move blocks of pixels to channels, or back, become one operator; so does
        the Concat of every second pixel, by which YOLO's "Focus" does the same. Where the channels come in another
        order than that of SpaceToDepth, and a Conv alone reads them, its weights are put in the operator's order.

    Before:
        ``a = x[:, :, ::2, ::2]; b = x[:, :, 1::2, ::2]; c = x[:, :, ::2, 1::2]; d = x[:, :, 1::2, 1::2];
        t = Concat<axis=1>(a, b, c, d); y = Conv(t, W)``

    After:
        ``t = SpaceToDepth<blocksize=2>(x); y = Conv(t, W')``

    Does not apply when:
        - an inner result is read elsewhere, or is a graph output;
        - the shapes between are not known to be those of the operator, or a Slice stops short of the end;
        - the channels are in another order and anything but a Conv without groups, and with a constant weight, reads
          them;
        - the operator set is older than 11, which brought the orders of DepthToSpace;
        - the type is not known to be float32 or float64: ONNX Runtime's CPU has no such operators for others.

    Safety:
        Numeric, where the weights of a Conv are put in another order; exact elsewhere.
    """

    name = "fuse-space-depth"
    safety = Safety.NUMERIC
    ops = ("Reshape", "Concat", "Conv")
    reach = 5
    needs = frozenset({"Transpose", "Slice"})

    def match(self, node: ir.Node, context: Context) -> Match | Miss | None:
        if node.op_type == "Conv":
            return _match_conv(node, context)
        found = _by_transpose(node, context) if node.op_type == "Reshape" else _by_slices(node, context)
        if not isinstance(found, _Blocks) or found.order is not None:
            return found if isinstance(found, Miss) else None
        if context.shapes.dtype(found.x) not in _TYPES:
            return Miss(_OTHER_TYPE, node)
        return Match(node, build=lambda builder: [found.build(builder)])


class _Blocks(NamedTuple):
    """A move of blocks between space and depth.

    Attributes:
        x: What is moved.
        size: Length of a block.
        mode: The order of a DepthToSpace; ``None`` for a SpaceToDepth.
        order: For each channel that SpaceToDepth would give, the channel that the nodes give; ``None`` if the same.
    """

    x: ir.Value
    size: int
    mode: str | None = None
    order: list[int] | None = None

    def build(self, builder: Builder, origin: ir.Node | None = None) -> ir.Value:
        if self.mode is None:
            return builder.op("SpaceToDepth", [self.x], {"blocksize": self.size}, origin=origin)
        return builder.op("DepthToSpace", [self.x], {"blocksize": self.size, "mode": self.mode})


def _match_conv(node: ir.Node, context: Context) -> Match | Miss | None:
    move = context.producer(node.inputs[0], "Reshape", "Concat")
    if move is None or node.attributes.get_int("group", 1) != 1:
        return None
    found = _by_transpose(move, context) if move.op_type == "Reshape" else _by_slices(move, context)
    if not isinstance(found, _Blocks) or found.order is None:
        return None
    if move.graph is not node.graph or not context.only_reader(move.outputs[0], node):
        return Miss("what has the channels in another order is read elsewhere", node)
    if context.shapes.dtype(found.x) not in _TYPES:
        return Miss(_OTHER_TYPE, node)
    old, order = node.inputs[1], found.order
    weight = context.array(old)
    if old is None or weight is None or weight.shape[1] != len(order):
        return Miss("the weight is not constant", node)

    def build(builder: Builder) -> list[ir.Value | None]:
        moved = found.build(builder, move)
        turned = builder.constant(np.ascontiguousarray(weight[:, order]), old.name)
        return [builder.like(node, [moved, turned, *node.inputs[2:]])]

    return Match(node, build=build)


def _by_transpose(node: ir.Node, context: Context) -> _Blocks | Miss | None:
    """Reshape, Transpose, Reshape."""
    turn = context.producer(node.inputs[0], "Transpose")
    split = context.producer(turn.inputs[0], "Reshape") if turn is not None else None
    if turn is None or split is None or split.inputs[0] is None:
        return None
    perm = tuple(turn.attributes.get_ints("perm", ()))
    if perm not in _TO_SPACE and perm not in _TO_DEPTH:
        return None
    if context.opset(node) < 11:
        return Miss("the orders of DepthToSpace came with opset 11", node)
    x = split.inputs[0]
    before, middle, after = (context.shapes.of(value) for value in (x, split.outputs[0], node.outputs[0]))
    if before is None or middle is None or after is None or (len(before), len(middle), len(after)) != (4, 6, 4):
        return Miss("the shapes between are not known", node)
    if context.producer(node.inputs[0], reader=node) is None or context.producer(turn.inputs[0], reader=turn) is None:
        return Miss("an inner result is read elsewhere", node)
    if perm in _TO_SPACE:
        found = _to_space(x, before, middle, after, _TO_SPACE[perm])
    else:
        found = _to_depth(x, before, middle, after, turned=_TO_DEPTH[perm])
    return found or Miss("the shapes between are not those of blocks", node)


def _to_space(
    x: ir.Value, before: tuple[Dim, ...], middle: tuple[Dim, ...], after: tuple[Dim, ...], mode: str
) -> _Blocks | None:
    size, channels = middle[2], middle[3 if mode == "DCR" else 1]
    blocks = (before[0], size, size, channels) if mode == "DCR" else (before[0], channels, size, size)
    if not isinstance(size, int) or middle != (*blocks, before[2], before[3]) or channels * size * size != before[1]:
        return None
    return _Blocks(x, size, mode) if after == (before[0], channels, before[2] * size, before[3] * size) else None


def _to_depth(
    x: ir.Value, before: tuple[Dim, ...], middle: tuple[Dim, ...], after: tuple[Dim, ...], *, turned: bool
) -> _Blocks | None:
    batch, channels, height, width = before
    size = middle[3]
    if not isinstance(size, int) or size < 1 or not isinstance(channels, int):
        return None
    high, wide = floordiv(height, size), floordiv(width, size)
    if middle != (batch, channels, high, size, wide, size) or after != (batch, channels * size * size, high, wide):
        return None
    order = np.arange(channels * size * size).reshape(channels, size * size).T.reshape(-1).tolist() if turned else None
    return _Blocks(x, size, order=order)


def _by_slices(node: ir.Node, context: Context) -> _Blocks | Miss | None:
    """Concat of Slices, one for each place in a block."""
    cuts = [context.producer(value, "Slice") for value in node.inputs]
    slices = [cut for cut in cuts if cut is not None]
    size = round(len(cuts) ** 0.5)
    if len(slices) < len(cuts) or size < 2 or size * size != len(cuts) or node.attributes.get_int("axis", 1) != 1:
        return None
    x = slices[0].inputs[0]
    shape = context.shapes.of(x) if x is not None else None
    if x is None or shape is None or len(shape) != 4 or any(one.inputs[0] is not x for one in slices):
        return None
    places = [_place(one, size, context) for one in slices]
    wanted = [(row, column) for row in range(size) for column in range(size)]
    if sorted(place for place in places if place is not None) != wanted:
        return None
    if any(context.producer(value, reader=node) is None for value in node.inputs):
        return Miss("an inner result is read elsewhere", node)
    channels = shape[1]
    if places == wanted:
        return _Blocks(x, size)
    if not isinstance(channels, int):
        return Miss("how many channels there are is not known", node)
    order = [places.index(place) * channels + channel for place in wanted for channel in range(channels)]
    return _Blocks(x, size, order=order)


def _place(node: ir.Node, size: int, context: Context) -> tuple[int, int] | None:
    """Row and column that the Slice takes of each block."""
    cut = _slices.read(node, context)
    if cut is None or set(cut.bounds) != {2, 3}:
        return None
    rows, columns = cut.bounds[2], cut.bounds[3]
    if any(one.step != size or one.start < 0 or not one.to_end for one in (rows, columns)):
        return None
    return rows.start, columns.start
