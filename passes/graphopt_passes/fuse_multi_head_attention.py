"""Puts the pieces of an attention together into ONNX Runtime's MultiHeadAttention."""

from __future__ import annotations

import dataclasses
import functools
from typing import NamedTuple

import numpy as np
import onnx_ir as ir

from graphopt.analysis.dims import Dim
from graphopt.pipeline.base import Context, RulePass, Safety
from graphopt.rewrite.builder import Builder
from graphopt.rewrite.match import Match, Miss
from graphopt_passes._attention import Scores, is_private, read
from graphopt_passes._kernels import DOMAIN, has_kernel
from graphopt_passes._shape_ops import axes, ints_attribute

__all__ = ["FuseMultiHeadAttention"]

_SWAP, _SAME, _PARTS = (0, 2, 1, 3), (0, 1, 2, 3), (2, 0, 3, 1, 4)


@dataclasses.dataclass(frozen=True)
class FuseMultiHeadAttention(RulePass):
    """Puts the pieces of an attention together into ONNX Runtime's MultiHeadAttention.

    What it does:
        ``softmax(q @ k.T * scale + masks) @ v`` of heads that Transposes bring to the front, and the Transpose that
        brings them back, become one ``com.microsoft`` MultiHeadAttention, which splits and joins the heads itself and
        makes fewer passes over the scores. On the CPU it takes 0.84 (one token) to 0.98 (many) times as long, 0.82 to
        0.95 without a mask; ONNX Runtime does not fuse this at load. Keys and values may be a cache, with the heads in
        front already.

    Before:
        ``a = Transpose<perm=[0,2,1,3]> (q); t = Transpose<perm=[0,2,3,1]> (k); b = Transpose<perm=[0,2,1,3]> (v);
        s = MatMul(a, t); d = Mul(s, 0.125); m = Add(d, mask); p = Softmax(m); o = MatMul(p, b);
        y = Transpose<perm=[0,2,1,3]> (o)``

    After:
        ``h = com.microsoft.MultiHeadAttention <num_heads=8, scale=0.125> (q', k', v',,, mask);
        y = Reshape(h, [0, 0, 8, 64])`` where ``q'`` is ``Reshape(q, [0, 0, 512])``, and so on

    Does not apply when:
        - the target is portable, or has no kernel for the type (the CPU: float32 only);
        - queries, keys and values are not known to have the same batch and heads, the number and the sizes of heads are
          not static, or the queries do not come from such a Transpose;
        - the keys or values have the heads in front and heads of another size than the queries;
        - a mask makes the result larger, or is a number;
        - the operator set is older than 15 and a mask must be expanded;
        - the scale is not one positive number, or the Softmax not over the last axis;
        - an inner result is read elsewhere, or is a graph output.

    Safety:
        Numeric: rounding.
    """

    name = "fuse-multi-head-attention"
    safety = Safety.NUMERIC
    ops = ("Transpose",)
    needs = frozenset({"Softmax"})
    reach = 9

    def match(self, node: ir.Node, context: Context) -> Match | Miss | None:
        if ints_attribute(node, "perm") != _SWAP:
            return None
        mixed = context.producer(node.inputs[0], "MatMul")
        softmax = context.producer(mixed.inputs[0], "Softmax") if mixed is not None else None
        if mixed is None or softmax is None:
            return None
        scores = read(softmax, context)
        if isinstance(scores, str):
            return Miss(scores, node)
        if not has_kernel("MultiHeadAttention", scores.q, context):
            return Miss("the target has no kernel for it", node)
        if not is_private(scores.product, node):
            return Miss("an inner result is read elsewhere", node)
        found = _find(node, scores, mixed.inputs[1], context)
        return Miss(found, node) if isinstance(found, str) else Match(node, build=found.build)


class _Side(NamedTuple):
    """Queries, keys or values.

    Attributes:
        value: (batch, length, heads, size) or, of a cache, (batch, heads, length, size), or what has them all side by
            side: (batch, length, parts, heads, size).
        part: Which part it is, if there are any.
    """

    value: ir.Value
    part: int | None = None


class _Heads(NamedTuple):
    """An attention, found.

    Attributes:
        q: Queries.
        k: Keys.
        v: Values.
        masks: What is added to the scores.
        scale: What they are multiplied by before.
        shape: Batch, heads, queries, keys.
        sizes: Of a head of queries and of values.
        cached: Whether keys and values have the heads in front.
    """

    q: _Side
    k: _Side
    v: _Side
    masks: tuple[ir.Value, ...]
    scale: float
    shape: tuple[Dim, ...]
    sizes: tuple[int, int]
    cached: bool

    def build(self, builder: Builder) -> list[ir.Value]:
        heads = int(self.shape[1])  # type: ignore[arg-type]
        q = _joined(builder, self.q, heads * self.sizes[0])
        k, v = self.k.value, self.v.value
        if not self.cached:
            k, v = (_joined(builder, one, heads * size) for one, size in zip((self.k, self.v), self.sizes, strict=True))
        operands: list[ir.Value | None] = [q, k, v]
        if self.masks:
            operands += [None, None, _mask(builder, self)]
        attributes = {"num_heads": heads, "scale": self.scale}
        mixed = builder.op("MultiHeadAttention", operands, attributes, domain=DOMAIN)
        return [_reshaped(builder, mixed, (0, 0, heads, self.sizes[1]))]


def _find(node: ir.Node, scores: Scores, v: ir.Value | None, context: Context) -> _Heads | str:
    shapes = [context.shapes.of(one) if one is not None else None for one in (scores.q, scores.turned, v)]
    q, k, w = (shape if shape is not None and len(shape) == 4 else None for shape in shapes)
    if v is None or q is None or k is None or w is None or not q[:2] == k[:2] == w[:2]:
        return "queries, keys and values are not known to have the same batch and heads"
    if not (isinstance(q[1], int) and isinstance(q[3], int) and isinstance(w[3], int) and q[1] and q[3] and w[3]):
        return "the number and the sizes of the heads are not static"
    if not scores.scale > 0:
        return "the scale is not one positive number"
    queries, values = _side(scores.q, context), _side(v, context)
    if queries is None:
        return "the queries' heads are not brought to the front by a Transpose"
    keys = _Side(scores.k) if scores.perm == _SWAP else _side(scores.k, context) if scores.perm == _SAME else None
    cached = keys is None or values is None
    if cached and (scores.perm != _SAME or q[3] != w[3]):
        return "keys and values have their heads in different places, or of different sizes"
    shape = (*q[:3], k[3])
    refusal = _refusal_of_masks(node, scores.masks, shape, context)
    if refusal is not None:
        return refusal
    if keys is None or values is None:
        keys, values = _Side(scores.k), _Side(v)
    return _Heads(queries, keys, values, scores.masks, scores.scale, shape, (q[3], w[3]), cached)


def _side(value: ir.Value | None, context: Context) -> _Side | None:
    """What a Transpose made ``value`` of by bringing the heads to the front."""
    node = context.producer(value, "Transpose", "Gather", "Squeeze")
    if node is None or node.inputs[0] is None:
        return None
    if node.op_type == "Transpose":
        return _Side(node.inputs[0]) if ints_attribute(node, "perm") == _SWAP else None
    found = _taken(node, context)
    transpose = context.producer(found[0], "Transpose") if found is not None else None
    whole = transpose.inputs[0] if transpose is not None else None
    shape = context.shapes.of(whole) if whole is not None else None
    if found is None or transpose is None or whole is None or shape is None or not isinstance(shape[2], int):
        return None
    fits = ints_attribute(transpose, "perm") == _PARTS and context.opset(node) >= 10 and found[1] < shape[2]
    return _Side(whole, found[1]) if fits else None


def _taken(node: ir.Node, context: Context) -> tuple[ir.Value, int] | None:
    """What a Gather, or a Squeeze of a part of a Split, takes one element along the first axis of, and which."""
    if node.op_type == "Gather":
        index, number = context.constant(node.inputs[1]), context.scalar(node.inputs[1])
        axis = node.attributes.get_int("axis", 0)
        if node.inputs[0] is None or index is None or len(index.shape) or axis:
            return None
        return (node.inputs[0], int(number)) if number is not None and number >= 0 else None
    split = context.producer(node.inputs[0], "Split")
    part = node.inputs[0]
    if split is None or part is None or split.inputs[0] is None or axes(node, 1, context) != (0,):
        return None
    axis = split.attributes.get_int("axis", 0)
    if axis or any((context.shapes.of(one) or (0,))[0] != 1 for one in split.outputs):
        return None
    return split.inputs[0], [*split.outputs].index(part)


def _refusal_of_masks(
    node: ir.Node, masks: tuple[ir.Value, ...], scores: tuple[Dim, ...], context: Context
) -> str | None:
    for mask in masks:
        shape = context.shapes.of(mask)
        if shape is None or not 1 <= len(shape) <= 4:
            return "a mask is not known to have one to four axes"
        if any(size not in (1, own) for size, own in zip(shape[::-1], scores[::-1], strict=False)):
            return "a mask makes the result larger"
    if masks and _missing(masks, scores, context) and context.opset(node) < 15:
        return "a mask must be expanded, which takes opset 15"
    return None


def _missing(masks: tuple[ir.Value, ...], scores: tuple[Dim, ...], context: Context) -> bool:
    """Whether the masks' sum does not have the last two axes of the scores in full, as the operator wants it."""
    shapes = [(1, 1, *(context.shapes.of(mask) or ())) for mask in masks]
    return any(all(shape[axis] != scores[axis] for shape in shapes) for axis in (-2, -1))


def _mask(builder: Builder, found: _Heads) -> ir.Value:
    """The masks' sum, of four axes, the last two of them those of the scores."""
    context = builder.context
    total = functools.reduce(lambda one, other: builder.op("Add", [one, other]), found.masks)
    rank = max(len(context.shapes.of(mask) or ()) for mask in found.masks)
    if _missing(found.masks, found.shape, context):
        rows = _extent(builder, found.q.value, 1, found.shape[2])
        columns = _extent(builder, found.k.value, 2 if found.cached else 1, found.shape[3])
        ones = builder.constant(np.ones(2, np.int64), "ones")
        return builder.op("Expand", [total, builder.op("Concat", [ones, rows, columns], {"axis": 0})])
    if rank == 4:
        return total
    return _unsqueezed(builder, total, 4 - rank)


def _extent(builder: Builder, value: ir.Value, axis: int, size: Dim) -> ir.Value:
    if isinstance(size, int):
        return builder.constant(np.array([size], np.int64), "extent")
    return builder.op("Shape", [value], {"start": axis, "end": axis + 1})


def _unsqueezed(builder: Builder, value: ir.Value, count: int) -> ir.Value:
    axes = list(range(count))
    if builder.context.opset(builder.root) < 13:
        return builder.op("Unsqueeze", [value], {"axes": axes})
    return builder.op("Unsqueeze", [value, builder.constant(np.array(axes, np.int64), "axes")])


def _joined(builder: Builder, side: _Side, size: int) -> ir.Value:
    """One side as (batch, length, size)."""
    if side.part is None:
        return _reshaped(builder, side.value, (0, 0, size))
    shape = builder.context.shapes.of(side.value) or ()
    whole = _reshaped(builder, side.value, (0, 0, int(shape[2]) * size))  # type: ignore[arg-type]
    bounds = [[side.part * size], [(side.part + 1) * size], [2]]
    return builder.op("Slice", [whole, *(builder.constant(np.array(one, np.int64), "bound") for one in bounds)])


def _reshaped(builder: Builder, value: ir.Value, target: tuple[int, ...]) -> ir.Value:
    return builder.op("Reshape", [value, builder.constant(np.array(target, np.int64), "shape")])
