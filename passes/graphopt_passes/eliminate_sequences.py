"""Takes tensors out of sequences whose elements are known."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Final, NamedTuple, TypeAlias

import numpy as np
import onnx_ir as ir

from graphopt.pipeline.base import Context, RulePass, Safety
from graphopt.rewrite.builder import Builder
from graphopt.rewrite.match import Match, Miss
from graphopt_passes import _slices
from graphopt_passes._shape_ops import input_of
from graphopt_passes._slices import Bounds

__all__ = ["EliminateSequences"]

_MOST: Final = 256
"""Elements of a sequence that is looked into."""
_AXES_AND_SIZES_ARE_INPUTS: Final = 13
"""Operator set since which Split and Unsqueeze take them as inputs."""
_UNKNOWN: Final = "the elements of the sequence are not known"


@dataclasses.dataclass(frozen=True)
class EliminateSequences(RulePass):
    """Takes tensors out of sequences whose elements are known, without the sequence.

    What it does:
        What SequenceConstruct, SequenceEmpty, SequenceInsert, SequenceErase and SplitToSequence put together is
        followed, and ``SequenceAt`` becomes the element; an element of a SplitToSequence a Slice (a Gather if it has
        lost the axis), or an output of one Split where several are taken and all lengths are known.
        ``ConcatFromSequence`` becomes a Concat, of Unsqueezes if it makes an axis, and SequenceLength a constant.
        Few runtimes have sequences, and ONNX Runtime copies what it puts into one.

    Before:
        ``s = SequenceConstruct(x, z); a = SequenceAt(s, 1); y = ConcatFromSequence<axis=1>(s)``

    After:
        ``a = z; y = Concat<axis=1>(x, z)``

    Does not apply when:
        - the sequence is an input, or comes from a branch or a loop;
        - a position, or how a SplitToSequence splits, is not a constant, or the position is not there;
        - the position counts from the end, and how long the axis is not known;
        - all of a SplitToSequence is put together again, or there is nothing in the sequence.

    Safety:
        Exact.
    """

    name = "eliminate-sequences"
    safety = Safety.EXACT
    ops = ("SplitToSequence", "SequenceAt", "ConcatFromSequence", "SequenceLength")
    reach = 8

    def match(self, node: ir.Node, context: Context) -> Match | Miss | None:
        if node.op_type == "SplitToSequence":
            pieces = _pieces(node, context)
            return _split(node, pieces) if pieces is not None and _is_one_split(pieces, context) else None
        elements = _elements(input_of(node, 0), context)
        if elements is None:
            return Miss(_UNKNOWN, node)
        if node.op_type == "SequenceAt":
            return _at(node, elements, context)
        count = len(elements) if not isinstance(elements, _Pieces) else elements.length
        if node.op_type == "SequenceLength":
            return Miss(_UNKNOWN, node) if count is None else _length(node, count)
        if isinstance(elements, _Pieces) or not elements:
            return Miss("nothing, or all pieces of a tensor, is put together", node)
        return _concat(node, elements)


class _Pieces(NamedTuple):
    """What SplitToSequence gives.

    Attributes:
        node: The node.
        axis: Along which it splits, from the front.
        bounds: Where each piece begins and ends, if the length of the axis is known.
        step: The length of all pieces, but perhaps the last; 0 if they are of different lengths.
        keeps: Whether the pieces keep the axis.
    """

    node: ir.Node
    axis: int
    bounds: Sequence[tuple[int, int]] | None
    step: int
    keeps: bool

    @property
    def length(self) -> int | None:
        """How many there are."""
        return None if self.bounds is None else len(self.bounds)


_Elements: TypeAlias = "Sequence[ir.Value] | _Pieces"


def _elements(value: ir.Value | None, context: Context) -> _Elements | None:
    """What is in a sequence."""
    node = context.producer(value)
    changes: list[ir.Node] = []
    while node is not None and node.op_type in ("SequenceInsert", "SequenceErase") and len(changes) < _MOST:
        changes.append(node)
        node = context.producer(input_of(node, 0))
    if node is None:
        return None
    if node.op_type == "SplitToSequence":
        return None if changes else _pieces(node, context)
    if node.op_type not in ("SequenceConstruct", "SequenceEmpty") or len(node.inputs) > _MOST:
        return None
    elements = [one for one in node.inputs if one is not None]
    for change in reversed(changes):
        if not _apply(change, elements, context):
            return None
    return elements


def _apply(change: ir.Node, elements: list[ir.Value], context: Context) -> bool:
    """Inserts or erases; ``False`` if it is not known where, or what."""
    inserts = change.op_type == "SequenceInsert"
    given = input_of(change, 2 if inserts else 1)
    last = len(elements) if inserts else len(elements) - 1
    place = last if given is None else context.scalar(given)
    if place is None or not -len(elements) <= place <= last:
        return False
    place = int(place) + (len(elements) if place < 0 else 0)
    new = input_of(change, 1)
    if not inserts:
        del elements[place]
    elif new is not None:
        elements.insert(place, new)
    return True


def _pieces(node: ir.Node, context: Context) -> _Pieces | None:
    source, given = input_of(node, 0), input_of(node, 1)
    shape = context.shapes.of(source) if source is not None else None
    axis = node.attributes.get_int("axis", 0)
    if shape is None or not -len(shape) <= axis < len(shape):
        return None
    axis %= len(shape)
    length = shape[axis]
    sizes = (1,) if given is None else context.ints(given)
    if not sizes:
        return None
    keeps = given is not None or bool(node.attributes.get_int("keepdims", 1))
    if given is not None and context.shapes.rank(given) == 1:
        ends = np.cumsum(sizes).tolist()
        return _Pieces(node, axis, [(end - size, end) for size, end in zip(sizes, ends, strict=True)], 0, keeps)
    step = sizes[0]
    if step < 1:
        return None
    bounds = None
    if isinstance(length, int) and length <= _MOST * step:
        bounds = [(start, min(start + step, length)) for start in range(0, length, step)]
    return _Pieces(node, axis, bounds, step, keeps)


def _at(node: ir.Node, elements: _Elements, context: Context) -> Match | Miss:
    place = context.scalar(input_of(node, 1))
    count = elements.length if isinstance(elements, _Pieces) else len(elements)
    if place is None or (count is None and place < 0):
        return Miss("the position is not known", node)
    index = int(place) + (count if count is not None and place < 0 else 0)
    if index < 0 or (count is not None and index >= count):
        return Miss("the position is not in the sequence", node)
    if not isinstance(elements, _Pieces):
        return Match(node, build=lambda _: [elements[index]])
    return Match(node, build=lambda builder: [_piece(builder, elements, index)])


def _is_one_split(pieces: _Pieces, context: Context) -> bool:
    """Whether several different pieces are taken, by nodes beside the SplitToSequence, and no other way."""
    readers = pieces.node.outputs[0].consumers()
    takes = all(reader.op_type == "SequenceAt" and reader.graph is pieces.node.graph for reader in readers)
    taken = {context.scalar(input_of(reader, 1)) for reader in readers}
    return takes and pieces.keeps and pieces.bounds is not None and len(taken) > 1 and None not in taken


def _split(node: ir.Node, pieces: _Pieces) -> Match:
    """A sequence of what a Split gives, which each SequenceAt then reads by itself."""
    sizes = [end - start for start, end in pieces.bounds or ()]
    source = input_of(node, 0)

    def build(builder: Builder) -> list[ir.Value | None]:
        if builder.context.opset(node) < _AXES_AND_SIZES_ARE_INPUTS:
            builder.op("Split", [source], {"axis": pieces.axis, "split": sizes}, outputs=len(sizes))
        else:
            inputs = [source, builder.constant(np.array(sizes, np.int64))]
            builder.op("Split", inputs, {"axis": pieces.axis}, outputs=len(sizes))
        return [builder.op("SequenceConstruct", builder.nodes[-1].outputs)]

    return Match(node, build=build)


def _piece(builder: Builder, pieces: _Pieces, index: int) -> ir.Value:
    source = input_of(pieces.node, 0)
    assert source is not None
    if not pieces.keeps:
        return builder.op("Gather", [source, builder.constant(np.array(index, np.int64))], {"axis": pieces.axis})
    step = pieces.step
    start, end = pieces.bounds[index] if pieces.bounds is not None else (index * step, (index + 1) * step)
    return _slices.build(builder, builder.root, source, {pieces.axis: Bounds(start, end)})


def _length(node: ir.Node, count: int) -> Match:
    return Match(node, build=lambda builder: [builder.constant(np.array(count, np.int64))])


def _concat(node: ir.Node, elements: Sequence[ir.Value]) -> Match | Miss:
    axis = node.attributes.get_int("axis", 0)
    if not node.attributes.get_int("new_axis", 0):
        return Match(node, build=lambda builder: [builder.op("Concat", elements, {"axis": axis})])

    def build(builder: Builder) -> list[ir.Value | None]:
        if builder.context.opset(node) < _AXES_AND_SIZES_ARE_INPUTS:
            longer = [builder.op("Unsqueeze", [one], {"axes": [axis]}) for one in elements]
        else:
            axes = builder.constant(np.array([axis], np.int64))
            longer = [builder.op("Unsqueeze", [one, axes]) for one in elements]
        return [builder.op("Concat", longer, {"axis": axis})]

    return Match(node, build=build)
