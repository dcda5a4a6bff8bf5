"""Puts the pieces of an attention together."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import onnx_ir as ir

from graphopt.pipeline.base import Context, RulePass, Safety
from graphopt.rewrite.builder import Builder
from graphopt.rewrite.match import Match, Miss
from graphopt_passes._attention import Scores, is_private, read
from graphopt_passes._floats import AT_MOST_SINGLE

__all__ = ["FuseAttention"]


@dataclasses.dataclass(frozen=True)
class FuseAttention(RulePass):
    """Puts the pieces of an attention together.

    What it does:
        ``softmax(q @ k.T * scale + mask) @ v`` becomes ``Attention(q, k, v, mask)``, wherever exporters put the scale:
        on the scores, on ``q``, on ``k``, or its root on both. What gains is training in torch: neither scores nor
        weights are kept.

    Before:
        ``t = Transpose <perm=[0,2,3,1]> (k); s = MatMul(q, t); d = Div(s, 8); a = Add(d, mask); p = Softmax(a);
        y = MatMul(p, v)``

    After:
        ``n = Transpose <perm=[0,2,1,3]> (k); y = Attention <scale=0.125> (q, n, v, mask)``

    Does not apply when:
        - the operator set is older than 23, which brought Attention;
        - ``q``, ``k`` and ``v`` are not known to have four axes, the first two (batch and heads) being the same;
        - ``k`` is not transposed by a Transpose;
        - the Softmax is not over the last axis;
        - the mask does not have the last two axes of the scores in full (Attention takes a shorter last axis for one to
          be filled up with minus infinity), or makes the result larger;
        - the scale is not one positive number;
        - an inner result is read elsewhere, or is a graph output;
        - the type is not known to be float32 or of half precision.

    Safety:
        Numeric: rounding.
    """

    name = "fuse-attention"
    safety = Safety.NUMERIC
    ops = ("MatMul",)
    reach = 8

    def match(self, node: ir.Node, context: Context) -> Match | Miss | None:
        weights = context.producer(node.inputs[0], "Softmax", reader=node)
        if weights is None:
            weights = context.producer(node.inputs[0], "Softmax")
            return None if weights is None else Miss("an inner result is read elsewhere", node)
        found = _find(weights, node.inputs[1], context)
        if isinstance(found, str):
            return Miss(found, node)
        return Match(node, build=lambda builder: [_build(builder, found)])


class _Attention(NamedTuple):
    """An attention, found; ``k`` is to be transposed by ``perm``."""

    q: ir.Value
    k: ir.Value
    perm: tuple[int, ...]
    v: ir.Value
    mask: ir.Value | None
    scale: float


def _find(weights: ir.Node, v: ir.Value | None, context: Context) -> _Attention | str:
    """What the Softmax and ``v`` belong to, or why it is no attention."""
    scores = read(weights, context)
    if isinstance(scores, str) or v is None:
        return scores if isinstance(scores, str) else "the Softmax is not of a product"
    if len(scores.masks) > 1:
        return "more than one mask is added"
    found = _Attention(scores.q, scores.k, scores.perm, v, next(iter(scores.masks), None), scores.scale)
    return _refusal(weights, scores, found, context) or found


def _refusal(weights: ir.Node, scores: Scores, found: _Attention, context: Context) -> str | None:
    shapes = context.shapes
    operands = [shapes.of(value) for value in (found.q, scores.turned, found.v)]
    q, k, v = (tuple(shape) if shape is not None and len(shape) == 4 else None for shape in operands)
    if q is None or k is None or v is None or not q[:2] == k[:2] == v[:2]:
        return "queries, keys and values are not known to have the same batch and heads"
    if shapes.dtype(found.q) not in AT_MOST_SINGLE:
        return "the type is not known to be float32 or of half precision"
    if len(found.perm) != 4 or not found.scale > 0:
        return "the scale is not one positive number"
    if found.mask is not None:
        mask = tuple(shapes.of(found.mask) or ())
        larger = any(size not in (1, own) for size, own in zip(mask[-3::-1], q[1::-1], strict=False))
        if not 2 <= len(mask) <= 4 or mask[-2:] != (q[2], k[3]) or larger:
            return "the mask does not have the last two axes of the scores"
    if context.opset(weights) < 23:
        return "Attention came with opset 23"
    if not is_private(scores.product, weights):
        return "an inner result is read elsewhere"
    return None


def _build(builder: Builder, found: _Attention) -> ir.Value:
    k = found.k
    if found.perm != tuple(range(4)):
        k = builder.op("Transpose", [k], {"perm": found.perm})
    operands = [found.q, k, found.v] if found.mask is None else [found.q, k, found.v, found.mask]
    return builder.op("Attention", operands, {"scale": found.scale})
