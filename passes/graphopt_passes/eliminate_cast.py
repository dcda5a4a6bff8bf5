"""Removes casts that change nothing."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx_ir as ir

from graphopt.pipeline.base import Context, RulePass, Safety
from graphopt.rewrite.builder import Builder
from graphopt.rewrite.match import Match, Miss
from graphopt_passes._shape_ops import input_of

__all__ = ["EliminateCast"]

_BOOL = ir.DataType.BOOL
_SIGNED = {
    kind: bits
    for bits, kind in ((8, ir.DataType.INT8), (16, ir.DataType.INT16), (32, ir.DataType.INT32), (64, ir.DataType.INT64))
}
_UNSIGNED = {
    kind: bits
    for bits, kind in (
        (8, ir.DataType.UINT8), (16, ir.DataType.UINT16), (32, ir.DataType.UINT32), (64, ir.DataType.UINT64),
    )
}  # fmt: skip
_FLOATS = {
    ir.DataType.FLOAT16: (5, 10),
    ir.DataType.BFLOAT16: (8, 7),
    ir.DataType.FLOAT: (8, 23),
    ir.DataType.DOUBLE: (11, 52),
}
"""Bits of exponent and of mantissa."""
_FILLED = {*_SIGNED, *_UNSIGNED, *_FLOATS, _BOOL} - {ir.DataType.BFLOAT16}
"""What ONNX Runtime has a ConstantOfShape of."""


@dataclasses.dataclass(frozen=True)
class EliminateCast(RulePass):
    """Removes casts to the type that the value has already, and detours over a larger type.

    What it does:
        Readers of a Cast or CastLike whose input has the target type read that input. A cast of a cast reads what the
        first one reads, if that one's type holds all numbers of its input's: float to double and back, say, is
        nothing. Of a ConstantOfShape, the number is cast.

    Before:
        ``d = Cast <to=DOUBLE> (x); y = Cast <to=FLOAT> (d); z = Relu(y)`` with a float ``x``

    After:
        ``z = Relu(x)``

    Does not apply when:
        - the input's type is not known, as of a function's inputs;
        - the first cast of two rounds: float to float16 and back;
        - the number of a ConstantOfShape is not the same in the last type, or something else reads its result;
        - numbers could be too large for the last type, and it depends on the runtime what they become: float to uint8
          by way of double.

    Safety:
        Exact.
    """

    name = "eliminate-cast"
    safety = Safety.EXACT
    ops = ("Cast", "CastLike")

    def match(self, node: ir.Node, context: Context) -> Match | Miss | None:
        source = input_of(node, 0)
        if source is None:
            return None
        wanted = _target(node, context)
        if wanted is None:
            return None
        own = _dtype(source, node, context)
        if own is None:
            return Miss("the type of the Cast's input is not known", node)
        if own == wanted:
            return Match(node, forward=(source,))
        fill = _fill(node, source, ir.DataType(wanted), context)
        if fill is not None:
            shape = source.producer()
            assert shape is not None
            return Match(node, build=lambda builder: [builder.like(shape, shape.inputs, {"value": fill})])
        inner = context.producer(source, "Cast", "CastLike")
        origin = None if inner is None else input_of(inner, 0)
        first = None if inner is None else _dtype(origin, inner, context)
        if inner is None or first is None or not _is_detour(first, own, ir.DataType(wanted)):
            return None
        return Match(node, build=lambda builder: [_cast(builder, node, origin, wanted, same=first == wanted)])


def _fill(node: ir.Node, source: ir.Value, wanted: ir.DataType, context: Context) -> ir.TensorProtocol | None:
    """The number that a ConstantOfShape repeats, in the type to cast to, if it is the same there."""
    shape = context.producer(source, "ConstantOfShape", reader=node)
    if shape is None or wanted not in _FILLED:
        return None
    given = shape.attributes.get("value")
    number = np.zeros(1, np.float32) if given is None else np.asarray(given.as_tensor().numpy())
    with np.errstate(all="ignore"):
        cast = number.astype(wanted.numpy())
        same = np.all(np.isfinite(number)) and np.array_equal(cast.astype(number.dtype), number)
    return ir.tensor(cast) if same else None


def _cast(builder: Builder, node: ir.Node, origin: ir.Value | None, wanted: int, *, same: bool) -> ir.Value | None:
    return origin if same else builder.like(node, [origin, *node.inputs[1:]])


def _is_detour(first: ir.DataType, middle: ir.DataType, last: ir.DataType) -> bool:
    """Whether a cast to ``middle`` on the way changes nothing, for any number of type ``first``."""
    if not _holds(middle, first):
        return False
    if last == _BOOL or _holds(last, first):
        return True
    if first in _FLOATS:
        return last in _FLOATS
    if last in _FLOATS:
        return True  # one rounding either way
    # integers wrap around alike, floats that are too large for an integer do not
    return middle not in _FLOATS and (last in _SIGNED or last in _UNSIGNED)


def _holds(larger: ir.DataType, smaller: ir.DataType) -> bool:
    """Whether ``larger`` has all numbers of ``smaller``."""
    if larger == smaller:
        return True
    if smaller == _BOOL:
        return larger in _SIGNED or larger in _UNSIGNED or larger in _FLOATS
    if smaller in _FLOATS:
        return larger in _FLOATS and all(a >= b for a, b in zip(_FLOATS[larger], _FLOATS[smaller], strict=True))
    bits = _SIGNED.get(smaller, 0) - 1 if smaller in _SIGNED else _UNSIGNED.get(smaller, 0)
    if bits == 0:
        return False
    if larger in _FLOATS:
        exponent, mantissa = _FLOATS[larger]
        return bits <= mantissa + 1 and bits < 1 << (exponent - 1)
    if larger in _SIGNED:
        return bits <= _SIGNED[larger] - 1
    return smaller in _UNSIGNED and bits <= _UNSIGNED.get(larger, 0)


def _target(node: ir.Node, context: Context) -> int | None:
    """The type that a Cast or CastLike gives."""
    return _to(node) if node.op_type == "Cast" else _dtype(input_of(node, 1), node, context)


def _to(node: ir.Node) -> int | None:
    """The type to cast to; before opset 6 it was given by name."""
    to = node.attributes.get("to")
    if to is None:
        return None
    if to.type == ir.AttributeType.STRING:
        return ir.DataType.__members__.get(to.as_string().upper())
    return to.as_int() if to.type == ir.AttributeType.INT else None


def _dtype(value: ir.Value | None, node: ir.Node, context: Context) -> ir.DataType | None:
    """The element type. What a function declares of its values is not trusted: each call may bring other types."""
    if value is None:
        return None
    declared = value.dtype if context.scope(node).function is None else None
    found = declared if declared is not None else context.shapes.dtype(value)
    return None if found == ir.DataType.UNDEFINED else found
