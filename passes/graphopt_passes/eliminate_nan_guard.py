"""Removes the guard against a Softmax of nothing but minus infinity, or moves it to where there is less to guard."""

from __future__ import annotations

import dataclasses
from typing import Final, NamedTuple

import numpy as np
import onnx_ir as ir

from graphopt.pipeline.base import Context, RulePass, Safety
from graphopt.rewrite.builder import Builder
from graphopt.rewrite.match import Match, Miss

__all__ = ["EliminateNanGuard"]

_DEEPEST: Final = 8
_WHOLE: Final = frozenset({ir.DataType.BOOL, ir.DataType.INT32, ir.DataType.INT64})


@dataclasses.dataclass(frozen=True)
class EliminateNanGuard(RulePass):
    """Removes the guard against a Softmax of nothing but minus infinity, or moves it to where there is less to guard.

    What it does:
        torch puts zeros where the Softmax of an attention is not a number, since a row whose every key is masked with
        minus infinity has no other value: two passes over all scores, between which ONNX Runtime fuses nothing. If the
        mask is made of finite numbers (-3.4e38, say), no row of a finite product is like that, and the guard goes. Else
        it moves behind the product with the values, which is not a number in the same rows, and behind the Transpose
        of that, so that the attention is in one piece.

    Before:
        ``s = Add(MatMul(q, k), mask); p = Softmax(s); n = IsNaN(p); g = Where(n, 0, p); y = MatMul(g, v)``

    After:
        ``p = Softmax(s); y = MatMul(p, v)`` with a ``mask`` of ``Where(seen, 0, -3.4e38)``, and else
        ``p = Softmax(s); o = MatMul(p, v); n = IsNaN(o); y = Where(n, 0, o)``

    Does not apply when:
        - to move the guard, the Softmax is not over the last axis, or what is guarded is read by anything but the
          product, or the product by anything but the guard and the Transpose;
        - to remove the guard, the Softmax is not of a product, perhaps scaled and with masks added, or a mask is not
          known to be finite: an input of the model, say;
        - the type is not known to be float32: a product of half precision overflows easily.

    Safety:
        Numeric: of finite queries, keys and values, nothing changes. What is computed from infinite or undefined ones
        may be undefined where it was zero, or zero where it was undefined.
    """

    name = "eliminate-nan-guard"
    safety = Safety.NUMERIC
    ops = ("Where", "MatMul", "Transpose")
    needs = frozenset({"IsNaN"})
    reach = 12

    def match(self, node: ir.Node, context: Context) -> Match | Miss | None:
        guard = _guard(node, context) if node.op_type == "Where" else _guard_before(node, context)
        if guard is None:
            return None
        if context.shapes.dtype(guard.value) is not ir.DataType.FLOAT:
            return Miss("the type is not known to be float32", node)
        if node.op_type != "Where":
            return Match(node, build=lambda builder: [_guarded(builder, node, guard)])
        softmax = context.producer(guard.value, "Softmax")
        if softmax is None:
            return None
        if not _is_score(softmax.inputs[0], context):
            return Miss("what is added to the product is not known to be finite", node)
        return Match(node, forward=(guard.value,))


class _Guard(NamedTuple):
    """``Where(IsNaN(value), zero, value)``."""

    value: ir.Value
    zero: ir.Value


def _guard(node: ir.Node, context: Context) -> _Guard | None:
    check = context.producer(node.inputs[0], "IsNaN")
    zero, value = node.inputs[1:3]
    if check is None or zero is None or value is None or check.inputs[0] is not value:
        return None
    tensor = context.constant(zero)
    if tensor is None or context.scalar(zero) != 0 or len(tensor.shape) > (context.shapes.rank(value) or 0):
        return None
    return _Guard(value, zero)


def _guard_before(node: ir.Node, context: Context) -> _Guard | None:
    """The guard that moves behind ``node``: of a Softmax before a product, of that product before a Transpose."""
    where = context.producer(node.inputs[0], "Where", reader=node)
    guard = _guard(where, context) if where is not None else None
    if guard is None:
        return None
    if node.op_type == "Transpose":
        product = context.producer(guard.value, "MatMul")
        softmax = context.producer(product.inputs[0], "Softmax") if product is not None else None
        return guard if softmax is not None and _is_over_last(softmax, context) else None
    softmax, values = context.producer(guard.value, "Softmax"), node.inputs[1]
    if softmax is None or values is None or (context.shapes.rank(values) or 0) < 2:
        return None
    return guard if _is_over_last(softmax, context) and not _is_score(softmax.inputs[0], context) else None


def _is_over_last(softmax: ir.Node, context: Context) -> bool:
    """Whether a row of the product with the values is of one row of the Softmax."""
    rank = context.shapes.rank(softmax.outputs[0])
    axis = softmax.attributes.get_int("axis", -1 if context.opset(softmax) >= 13 else 1)
    return rank is not None and rank >= 2 and axis in (-1, rank - 1)


def _guarded(builder: Builder, node: ir.Node, guard: _Guard) -> ir.Value:
    value = builder.like(node, [guard.value, *node.inputs[1:]])
    return builder.op("Where", [builder.op("IsNaN", [value]), guard.zero, value])


def _is_score(value: ir.Value | None, context: Context, depth: int = 0) -> bool:
    """Whether ``value`` is a product, perhaps scaled, and finite masks added to it."""
    node = context.producer(value, "MatMul", "Mul", "Div", "Add", "Reshape")
    if node is None or depth > _DEEPEST:
        return False
    if node.op_type == "MatMul":
        return True
    if node.op_type == "Reshape" or (node.op_type == "Div" and context.scalar(node.inputs[1])):
        return _is_score(node.inputs[0], context, depth + 1)
    if node.op_type == "Div":
        return False
    is_finite = _is_number if node.op_type == "Mul" else _is_finite
    return any(
        is_finite(node.inputs[1 - place], context) and _is_score(node.inputs[place], context, depth + 1)
        for place in (0, 1)
    )


def _is_number(value: ir.Value | None, context: Context) -> bool:
    return context.scalar(value) is not None and _is_finite(value, context)


def _is_finite(value: ir.Value | None, context: Context, depth: int = 0) -> bool:
    """Whether no element of ``value`` can be infinite or undefined."""
    contents = context.array(value)
    if contents is not None:
        return contents.dtype.kind == "f" and bool(np.isfinite(contents).all())
    node = context.producer(value, "Where", "Cast", "Unsqueeze", "Expand", "Reshape", "Slice", "Transpose")
    if node is None or depth > _DEEPEST:
        return False
    if node.op_type == "Cast":
        source = node.inputs[0]
        return source is not None and context.shapes.dtype(source) in _WHOLE
    sources = node.inputs[1:] if node.op_type == "Where" else node.inputs[:1]
    return all(_is_finite(one, context, depth + 1) for one in sources)
