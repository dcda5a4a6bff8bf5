"""Puts the pieces of a rotary position embedding together."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
import onnx_ir as ir

from graphopt.analysis.dims import Dim
from graphopt.pipeline.base import Context, RulePass, Safety, Target
from graphopt.rewrite.builder import Builder
from graphopt.rewrite.match import Match, Miss
from graphopt_passes._algebra import is_closed
from graphopt_passes._angles import repeats
from graphopt_passes._kernels import DOMAIN, has_kernel
from graphopt_passes._shape_ops import ints_attribute
from graphopt_passes._slices import read

__all__ = ["FuseRotaryEmbedding"]

_SWAP: Final = (0, 2, 1, 3)
_SINCE: Final = 23
"""Operator set that brought RotaryEmbedding."""
_SHAPE_SINCE: Final = 15
"""Operator set since which Shape gives some axes."""


@dataclasses.dataclass(frozen=True)
class FuseRotaryEmbedding(RulePass):
    """Puts the pieces of a rotary position embedding together.

    What it does:
        ``x * cos + concat(-x2, x1) * sin``, where ``x1`` and ``x2`` are the halves of ``x`` and those of ``cos`` and of
        ``sin`` are the same (Su et al., arXiv:2104.09864), becomes a RotaryEmbedding: that of ``com.microsoft`` or,
        where the pass is asked for and the target is portable, ONNX's own (opset 23), which few runtimes have yet. ONNX
        Runtime does not do so itself, and takes a third (384 tokens) to two thirds (one) of the time for it on the CPU.

    Before:
        ``a = Slice(x, 0, 32, -1); b = Slice(x, 32, 64, -1); n = Neg(b); r = Concat(n, a); c = Mul(x, cos);
        s = Mul(r, sin); y = Add(c, s)`` with an ``x`` of (batch, heads, length, 64)

    After:
        ``y = com.microsoft.RotaryEmbedding (x, [0], cos', sin')`` where ``cos'`` is the first half of ``cos``, or a
        Transpose of the RotaryEmbedding of what is transposed in ``x``

    Does not apply when:
        - the target is portable and the operator set is older than 23, or the type not float32;
        - the target has no kernel for the type;
        - ``cos`` and ``sin`` are not known to repeat their first half: there must be a Concat of it and itself, or a
          constant, further up;
        - they differ between heads, or between the samples of a batch before opset 15 or without a static number of
          heads;
        - an inner result is read elsewhere, or is a graph output.

    Safety:
        Numeric: rounding.
    """

    name = "fuse-rotary-embedding"
    safety = Safety.NUMERIC
    ops = ("Add",)
    needs = frozenset({"Neg"})
    reach = 8

    def match(self, node: ir.Node, context: Context) -> Match | Miss | None:
        found = next((one for one in _candidates(node, context) if one is not None), None)
        if found is None:
            return None
        refusal = _refusal(node, found, context)
        if refusal is not None:
            return Miss(refusal, node)
        return Match(node, build=lambda builder: [_build(builder, found)])


class _Rotation(NamedTuple):
    """``x * cos + concat(-x2, x1) * sin``, and the nodes that compute it."""

    x: ir.Value
    cos: ir.Value
    sin: ir.Value
    nodes: frozenset[ir.Node]


def _candidates(node: ir.Node, context: Context) -> list[_Rotation | None]:
    first, second = (context.producer(value, "Mul") for value in node.inputs)
    if first is None or second is None:
        return []
    return [_rotation(first, second, context), _rotation(second, first, context)]


def _rotation(straight: ir.Node, turned: ir.Node, context: Context) -> _Rotation | None:
    for place in (0, 1):
        concat = context.producer(turned.inputs[place], "Concat")
        sin = turned.inputs[1 - place]
        negative = context.producer(concat.inputs[0], "Neg") if concat is not None else None
        if concat is None or negative is None or sin is None or len(concat.inputs) != 2:
            continue
        low, high = _half(concat.inputs[1], context), _half(negative.inputs[0], context)
        if low is None or high is None or low.source is not high.source or (low.place, high.place) != (0, 1):
            return None
        rank = context.shapes.rank(low.source)
        if not rank or concat.attributes.get_int("axis", 0) not in (-1, rank - 1):
            return None
        nodes = frozenset([straight, turned, concat, negative, low.node, high.node])
        for other in (0, 1):
            cos = straight.inputs[1 - other]
            if straight.inputs[other] is low.source and cos is not None:
                return _Rotation(low.source, cos, sin, nodes)
    return None


class _Half(NamedTuple):
    """One half of ``source`` along the last axis: the first (0) or the second (1)."""

    source: ir.Value
    place: int
    node: ir.Node


def _half(value: ir.Value | None, context: Context) -> _Half | None:
    node = context.producer(value, "Slice", "Split")
    source = node.inputs[0] if node is not None else None
    shape = context.shapes.of(source) if source is not None else None
    if node is None or value is None or source is None or not shape or not isinstance(shape[-1], int):
        return None
    size = shape[-1]
    if size % 2 or size == 0:
        return None
    if node.op_type == "Split":
        part = context.shapes.of(value)
        whole = len(node.outputs) == 2 and node.attributes.get_int("axis", 0) in (-1, len(shape) - 1)
        halves = whole and part is not None and part[-1] == size // 2
        return _Half(source, list(node.outputs).index(value), node) if halves else None
    cut = read(node, context)
    if cut is None or list(cut.bounds) != [len(shape) - 1]:
        return None
    (bounds,) = cut.bounds.values()
    start, stop, step = slice(bounds.start, bounds.end, bounds.step).indices(size)
    places = {(0, size // 2): 0, (size // 2, size): 1}
    return _Half(source, places[start, stop], node) if step == 1 and (start, stop) in places else None


def _refusal(node: ir.Node, found: _Rotation, context: Context) -> str | None:
    standard = context.target is Target.PORTABLE
    if standard and context.opset(node) < _SINCE:
        return "RotaryEmbedding came with opset 23"
    if standard and context.shapes.dtype(found.x) is not ir.DataType.FLOAT:
        return "the type is not known to be float32"
    if not standard and not has_kernel("RotaryEmbedding", found.x, context):
        return "the target has no kernel for it"
    x = context.shapes.of(found.x)
    if x is None or len(x) != 4:
        return "what is turned is not known to have four axes"
    if _layout(found.cos, x, context) is None or context.shapes.of(found.cos) != context.shapes.of(found.sin):
        return "cosines and sines do not have one row for each position"
    if not standard and _is_batched(found.cos, context):
        if context.opset(node) < _SHAPE_SINCE:
            return "samples have positions of their own, which takes opset 15"
        if not isinstance(x[2 if _layout(found.cos, x, context) == 1 else 1], int):
            return "samples have positions of their own, and the number of heads is not static"
    if not all(repeats(one, x[-1], context) for one in (found.cos, found.sin)):
        return "cosines and sines are not known to repeat their first half"
    if not is_closed(found.nodes | {node}, node):
        return "an inner result is read elsewhere"
    return None


def _layout(value: ir.Value, x: tuple[Dim, ...], context: Context) -> int | None:
    """The axis of ``x`` that is the position, 1 or 2, as the shape of its cosines has it."""
    shape = context.shapes.of(value)
    if shape is None or not 2 <= len(shape) <= 4 or shape[-1] != x[-1]:
        return None
    padded: tuple[Dim, ...] = (*[1] * (4 - len(shape)), *shape)
    batch, one, two = padded[:3]
    if batch not in (1, x[0]):
        return None
    if (one, two) == (1, x[2]):
        return 2
    return 1 if (one, two) == (x[1], 1) else None


def _is_batched(value: ir.Value, context: Context) -> bool:
    """Whether each sample of a batch has rows of its own."""
    shape = context.shapes.of(value) or ()
    return len(shape) == 4 and shape[0] != 1


def _build(builder: Builder, found: _Rotation) -> ir.Value:
    context = builder.context
    x = context.shapes.of(found.x) or ()
    half = int(x[-1]) // 2  # type: ignore[arg-type]
    in_front = _layout(found.cos, x, context) == 2
    if context.target is Target.PORTABLE:
        turned = found.x if in_front else _swap(builder, found.x)
        caches = [_batched(builder, one, found.x, half) for one in (found.cos, found.sin)]
        result = builder.op("RotaryEmbedding", [turned, *caches])
        return result if in_front else _swap(builder, result)
    rest = [_ints(builder, 0), *(_rows(builder, one, half) for one in (found.cos, found.sin))]
    transpose = context.producer(found.x, "Transpose") if in_front else None
    apart = transpose.inputs[0] if transpose is not None and ints_attribute(transpose, "perm") == _SWAP else None
    heads = x[1 if in_front else 2]
    batched = _is_batched(found.cos, context)
    if in_front and not batched and (apart is None or not isinstance(heads, int)):
        return builder.op("RotaryEmbedding", [found.x, *rest], domain=DOMAIN)
    if not isinstance(heads, int):
        return _swap(builder, builder.op("RotaryEmbedding", [_swap(builder, found.x), *rest], domain=DOMAIN))
    if apart is None:
        apart = _swap(builder, found.x) if in_front else found.x
    result = _joined(builder, apart, rest, heads, 2 * half, batched=batched)
    return _swap(builder, result) if in_front else result


def _joined(
    builder: Builder, value: ir.Value, rest: Sequence[ir.Value], heads: int, size: int, *, batched: bool
) -> ir.Value:
    """The rotation of (batch, length, heads, size), the heads of a position side by side.

    Where each sample has rows of its own, all samples are one that is as long as all: the rows then follow each other.
    """
    front = (1, -1) if batched else (0, 0)
    joined = builder.op("Reshape", [value, _ints(builder, *front, heads * size)])
    turned = builder.op("RotaryEmbedding", [joined, *rest], domain=DOMAIN)
    target = _ints(builder, 0, 0, heads, size)
    if batched:
        lengths = builder.op("Shape", [value], {"start": 0, "end": 2})
        target = builder.op("Concat", [lengths, _ints(builder, heads, size)], {"axis": 0})
    return builder.op("Reshape", [turned, target], {"allowzero": 1} if batched else None)


def _rows(builder: Builder, value: ir.Value, half: int) -> ir.Value:
    """The first halves, one row for each position."""
    return builder.op("Reshape", [_first(builder, value, half), _ints(builder, -1, half)])


def _first(builder: Builder, value: ir.Value, half: int) -> ir.Value:
    """The first half of each row."""
    array = builder.context.array(value)
    if array is not None:
        return builder.constant(np.ascontiguousarray(array[..., :half]), "half")
    return builder.op("Slice", [value, _ints(builder, 0), _ints(builder, half), _ints(builder, -1)])


def _batched(builder: Builder, value: ir.Value, x: ir.Value, half: int) -> ir.Value:
    """The first halves as (batch, positions, half)."""
    rows = _first(builder, value, half)
    shape, batch = builder.context.shapes.of(value) or (), (builder.context.shapes.of(x) or ())[0]
    own = shape[0] if len(shape) == 4 else 1
    if len(shape) == 4:
        flat = builder.op("Squeeze", [rows, _ints(builder, 1 if shape[1] == 1 else 2)])
    else:
        flat = builder.op("Reshape", [rows, _ints(builder, 1, -1, half)])
    if own == batch:
        return flat
    size = builder.op("Shape", [x], {"start": 0, "end": 1})
    target = builder.op("Concat", [size, _ints(builder, 1, 1)], {"axis": 0})
    return builder.op("Expand", [flat, target])


def _swap(builder: Builder, value: ir.Value) -> ir.Value:
    return builder.op("Transpose", [value], {"perm": _SWAP})


def _ints(builder: Builder, *numbers: int) -> ir.Value:
    return builder.constant(np.array(numbers, np.int64), "ints")
