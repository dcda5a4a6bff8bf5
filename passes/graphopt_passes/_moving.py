"""Computes nodes that move, repeat or fill in elements, and calculate nothing, without a session of ONNX Runtime.

A session takes a millisecond or more to open, which is much of what an optimisation of a small model takes. What is
here gives the very bits that ONNX Runtime gives; whatever is out of the ordinary is left to it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from graphopt.analysis.constants import tensor
from graphopt.pipeline.base import Context

__all__ = ["move"]

Array: TypeAlias = npt.NDArray[Any]
_Inputs: TypeAlias = Sequence["Array | None"]


class _Unusual(Exception):
    """A node that is better left to ONNX Runtime."""


def move(
    nodes: Sequence[ir.Node], wanted: Sequence[ir.Value], opset: int, context: Context
) -> list[ir.TensorProtocol] | None:
    """The wanted values, if all of ``nodes`` just move elements.

    Args:
        nodes: In execution order; what they read is constant or computed by one before.
        wanted: Values that ``nodes`` compute.
        opset: The version of ONNX's operators.
        context: Tells what is constant.
    """
    if any(node.op_type not in _MOVES or opset < _MOVES[node.op_type].since for node in nodes):
        return None
    known: dict[ir.Value, Array] = {}
    try:
        for node in nodes:
            inputs = [None if one is None else known.get(one, context.array(one)) for one in node.inputs]
            result = _MOVES[node.op_type].compute(node, inputs)
            if result.dtype.kind not in "biuf":
                return None
            known[node.outputs[0]] = result
    except (_Unusual, ValueError, IndexError, TypeError, OverflowError):  # malformed; ONNX Runtime says how
        return None
    return [tensor(known[value]) for value in wanted]


def _given(inputs: _Inputs, index: int) -> Array:
    value = inputs[index] if index < len(inputs) else None
    if value is None:
        raise _Unusual
    return value


def _numbers(inputs: _Inputs, index: int) -> list[int]:
    return [int(number) for number in _given(inputs, index).reshape(-1)]


def _reshape(node: ir.Node, inputs: _Inputs) -> Array:
    source, target = _given(inputs, 0), _numbers(inputs, 1)
    if not node.attributes.get_int("allowzero", 0):
        target = [source.shape[axis] if size == 0 else size for axis, size in enumerate(target)]
    if not source.size or min(target, default=0) < -1:
        raise _Unusual
    return source.reshape(target)


def _flatten(node: ir.Node, inputs: _Inputs) -> Array:
    source, axis = _given(inputs, 0), node.attributes.get_int("axis", 1)
    if not -source.ndim <= axis <= source.ndim:
        raise _Unusual
    axis += source.ndim if axis < 0 else 0
    return source.reshape(math.prod(source.shape[:axis]), math.prod(source.shape[axis:]))


def _squeeze(_: ir.Node, inputs: _Inputs) -> Array:
    source = _given(inputs, 0)
    return source.squeeze(tuple(_numbers(inputs, 1)) if len(inputs) > 1 and inputs[1] is not None else None)


def _unsqueeze(_: ir.Node, inputs: _Inputs) -> Array:
    return np.expand_dims(_given(inputs, 0), tuple(_numbers(inputs, 1)))


def _transpose(node: ir.Node, inputs: _Inputs) -> Array:
    attribute = node.attributes.get("perm")
    return _given(inputs, 0).transpose(attribute.as_ints() if attribute is not None else None)


def _concat(node: ir.Node, inputs: _Inputs) -> Array:
    operands = [_given(inputs, index) for index in range(len(inputs))]
    if len({one.dtype for one in operands}) != 1:
        raise _Unusual
    return np.concatenate(operands, node.attributes["axis"].as_int())


def _slice(_: ir.Node, inputs: _Inputs) -> Array:
    source, starts, ends = _given(inputs, 0), _numbers(inputs, 1), _numbers(inputs, 2)
    axes = _numbers(inputs, 3) if len(inputs) > 3 and inputs[3] is not None else list(range(len(starts)))
    steps = _numbers(inputs, 4) if len(inputs) > 4 and inputs[4] is not None else [1] * len(starts)
    axes = [axis + source.ndim if axis < 0 else axis for axis in axes]
    if len(set(axes)) != len(axes) or not all(0 <= axis < source.ndim for axis in axes):
        raise _Unusual
    cut: list[Any] = [slice(None)] * source.ndim
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        length = source.shape[axis]
        if step == 0 or (step < 0 and not (-length <= start and end < length)):  # there NumPy sees it otherwise
            raise _Unusual
        cut[axis] = slice(start, end, step)
    result: Array = source[tuple(cut)]
    return result


def _gather(node: ir.Node, inputs: _Inputs) -> Array:
    return np.take(_given(inputs, 0), _given(inputs, 1), node.attributes.get_int("axis", 0))


def _expand(_: ir.Node, inputs: _Inputs) -> Array:
    source, target = _given(inputs, 0), tuple(_numbers(inputs, 1))
    return np.broadcast_to(source, np.broadcast_shapes(source.shape, target))


def _constant_of_shape(node: ir.Node, inputs: _Inputs) -> Array:
    attribute = node.attributes.get("value")
    # not as_tensor(): its check against a runtime protocol takes 40 us
    fill: Array = attribute.value.numpy() if attribute is not None else np.zeros(1, np.float32)
    if fill.size != 1:
        raise _Unusual
    return np.broadcast_to(fill.reshape(()), tuple(_numbers(inputs, 0)))


def _cast(node: ir.Node, inputs: _Inputs) -> Array:
    """From whole numbers to others that hold them all."""
    source, wanted = _given(inputs, 0), ir.DataType(node.attributes["to"].as_int()).numpy()
    if source.dtype.kind not in "biu" or not np.can_cast(source.dtype, wanted, "safe"):
        raise _Unusual
    return source.astype(wanted)


class _Move(NamedTuple):
    """What a node gives, and the operator set since which numbers are the inputs that they are taken from."""

    since: int
    compute: Callable[[ir.Node, _Inputs], Array]


_MOVES: Final[Mapping[str, _Move]] = {
    "Cast": _Move(6, _cast),
    "Concat": _Move(4, _concat),
    "ConstantOfShape": _Move(9, _constant_of_shape),
    "Expand": _Move(8, _expand),
    "Flatten": _Move(1, _flatten),
    "Gather": _Move(1, _gather),
    "Identity": _Move(1, lambda _, inputs: _given(inputs, 0)),
    "Reshape": _Move(5, _reshape),
    "Slice": _Move(10, _slice),
    "Squeeze": _Move(13, _squeeze),
    "Transpose": _Move(1, _transpose),
    "Unsqueeze": _Move(13, _unsqueeze),
}
