"""How operators compute on a tensor whose axes have another order: which constants and attributes change, and how."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from graphopt.pipeline.base import Context
from graphopt_passes._shape_ops import axes, input_of, ints_attribute

__all__ = ["BROADCAST", "RULES", "UNARY", "Move", "Permutation", "compose", "drops_axes", "inverse"]

Permutation: TypeAlias = tuple[int, ...]
"""As a Transpose has it: axis ``i`` of the result is axis ``permutation[i]`` of the input."""

_MAX_ELEMENTS: Final = 1 << 16


@dataclasses.dataclass(frozen=True)
class Move:
    """What a node must become to read its inputs before their Transpose.

    Attributes:
        permutation: What its result must be transposed by to be what it was.
        attributes: Changed attributes.
        constants: Changed constant inputs, by place.
        values: What else is to be read, by place.
    """

    permutation: Permutation
    attributes: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    constants: Mapping[int, npt.NDArray[Any]] = dataclasses.field(default_factory=dict)
    values: Mapping[int, ir.Value] = dataclasses.field(default_factory=dict)


Rule: TypeAlias = Callable[[ir.Node, Permutation, Sequence[int], Context], "Move | None"]
"""Of a node, the permutation, and the places of the inputs that are transposed by it."""


def compose(inner: Permutation, outer: Permutation) -> Permutation:
    """The permutation of a Transpose by ``inner`` and then by ``outer``."""
    return tuple(inner[axis] for axis in outer)


def inverse(permutation: Permutation) -> Permutation:
    """The permutation that undoes it."""
    return tuple(int(axis) for axis in np.argsort(permutation))


def drops_axes(node: ir.Node) -> bool:
    """Whether the result may have fewer axes than the input, so that those left may be in order before a Transpose."""
    reduces = node.op_type.startswith(("Reduce", "Arg"))
    return node.op_type in ("Gather", "Squeeze") or (reduces and not node.attributes.get_int("keepdims", 1))


def _unary(node: ir.Node, permutation: Permutation, moved: Sequence[int], context: Context) -> Move | None:
    """The first input is the tensor; others are numbers."""
    numbers = (value is None or _is_number(value, context) for value in node.inputs[1:])
    return Move(permutation) if tuple(moved) == (0,) and all(numbers) else None


def _is_number(value: ir.Value, context: Context) -> bool:
    return context.shapes.of(value) in ((), (1,))


def _broadcast(node: ir.Node, permutation: Permutation, moved: Sequence[int], context: Context) -> Move | None:
    """All inputs broadcast with each other: constants are transposed back."""
    if context.opset(node) < 8:
        return None
    constants: dict[int, npt.NDArray[Any]] = {}
    for index, value in enumerate(node.inputs):
        if index in moved:
            continue
        shape = context.shapes.of(value) if value is not None else None
        if shape is None or len(shape) > len(permutation):
            return None
        if all(dim == 1 for dim in shape):
            continue
        contents = context.array(value, _MAX_ELEMENTS)
        if contents is None:
            return None
        padded = contents.reshape((1,) * (len(permutation) - contents.ndim) + contents.shape)
        constants[index] = np.ascontiguousarray(padded.transpose(inverse(permutation)))
    return Move(permutation, constants=constants)


def _slope(node: ir.Node, permutation: Permutation, moved: Sequence[int], context: Context) -> Move | None:
    """A PRelu: its slope broadcasts to the tensor, never the other way around."""
    return _broadcast(node, permutation, moved, context) if tuple(moved) == (0,) else None


def _axis(node: ir.Node, permutation: Permutation, moved: Sequence[int], context: Context) -> Move | None:
    """All inputs are tensors, and an attribute is an axis of theirs."""
    if len(moved) != len(node.inputs):
        return None
    axis = node.attributes.get_int("axis", -1)
    if not -len(permutation) <= axis < len(permutation):
        return None
    return Move(permutation, {"axis": permutation[axis]})


def _split(node: ir.Node, permutation: Permutation, moved: Sequence[int], context: Context) -> Move | None:
    """The sizes of the parts stay."""
    axis = node.attributes.get_int("axis", 0)
    if tuple(moved) != (0,) or not -len(permutation) <= axis < len(permutation):
        return None
    return Move(permutation, {"axis": permutation[axis]})


def _softmax(node: ir.Node, permutation: Permutation, moved: Sequence[int], context: Context) -> Move | None:
    return _axis(node, permutation, moved, context) if context.opset(node) >= 13 else None


def _reduce(node: ir.Node, permutation: Permutation, moved: Sequence[int], context: Context) -> Move | None:
    """A reduction over some axes; the result has the others in their order."""
    reduced = axes(node, 1, context)
    if tuple(moved) != (0,) or not reduced or not all(-len(permutation) <= at < len(permutation) for at in reduced):
        return None
    places = sorted(permutation[at] for at in reduced)
    left = permutation if node.attributes.get_int("keepdims", 1) else _without(permutation, places)
    if ints_attribute(node, "axes") is not None:
        return Move(left, {"axes": places})
    return Move(left, constants={1: np.array(places, np.int64)})


def _without(permutation: Permutation, places: Sequence[int]) -> Permutation:
    """The order of the axes that are left when those at ``places``, as counted before the Transpose, go."""
    kept = [place for place in permutation if place not in places]
    return tuple(sorted(kept).index(place) for place in kept)


def _search(node: ir.Node, permutation: Permutation, moved: Sequence[int], context: Context) -> Move | None:
    """An ArgMax or ArgMin."""
    axis = node.attributes.get_int("axis", 0)
    if tuple(moved) != (0,) or not -len(permutation) <= axis < len(permutation):
        return None
    place = permutation[axis]
    left = permutation if node.attributes.get_int("keepdims", 1) else _without(permutation, [place])
    return Move(left, {"axis": place})


def _gather(node: ir.Node, permutation: Permutation, moved: Sequence[int], context: Context) -> Move | None:
    """A Gather by one index, which drops the axis, or by a list."""
    axis = node.attributes.get_int("axis", 0)
    rank = context.shapes.rank(node.inputs[1]) if node.inputs[1] is not None else None
    if tuple(moved) != (0,) or rank not in (0, 1) or not -len(permutation) <= axis < len(permutation):
        return None
    place = permutation[axis]
    return Move(permutation if rank else _without(permutation, [place]), {"axis": place})


def _squeeze(node: ir.Node, permutation: Permutation, moved: Sequence[int], context: Context) -> Move | None:
    dropped = axes(node, 1, context)
    if tuple(moved) != (0,) or not dropped or not all(-len(permutation) <= at < len(permutation) for at in dropped):
        return None
    places = sorted(permutation[at] for at in dropped)
    left = _without(permutation, places)
    if ints_attribute(node, "axes") is not None:
        return Move(left, {"axes": places})
    return Move(left, constants={1: np.array(places, np.int64)})


def _pad(node: ir.Node, permutation: Permutation, moved: Sequence[int], context: Context) -> Move | None:
    rank = len(permutation)
    if tuple(moved) != (0,) or input_of(node, 3) is not None:
        return None
    by_attribute = ints_attribute(node, "pads")
    pads = by_attribute if by_attribute is not None else context.ints(input_of(node, 1))
    if pads is None or len(pads) != 2 * rank:
        return None
    back = inverse(permutation)
    turned = [pads[at] for at in back] + [pads[rank + at] for at in back]
    if by_attribute is not None:
        return Move(permutation, {"pads": turned})
    return Move(permutation, constants={1: np.array(turned, np.int64)})


def _slice(node: ir.Node, permutation: Permutation, moved: Sequence[int], context: Context) -> Move | None:
    if tuple(moved) != (0,):
        return None
    by_attribute = ints_attribute(node, "starts")
    starts = by_attribute if by_attribute is not None else context.ints(input_of(node, 1))
    named = axes(node, 3, context)
    if starts is None or named is None:
        return None
    named = named or tuple(range(len(starts)))
    if not all(-len(permutation) <= at < len(permutation) for at in named):
        return None
    places = [permutation[at] for at in named]
    if by_attribute is not None:
        return Move(permutation, {"axes": places})
    kind = context.array(node.inputs[1])
    if kind is None or len(node.inputs) < 4:
        return None
    return Move(permutation, constants={3: np.array(places, kind.dtype)})  # all bounds are of one type


UNARY: Final = (
    "Abs", "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "BitwiseNot", "Cast", "Ceil", "Celu", "Clip", "Cos",
    "Cosh", "DequantizeLinear", "Elu", "Erf", "Exp", "Floor", "Gelu", "HardSigmoid", "HardSwish", "Identity", "IsInf",
    "IsNaN", "LeakyRelu", "Log", "Mish", "Neg", "Not", "QuantizeLinear", "Reciprocal", "Relu", "Round", "Selu",
    "Shrink", "Sigmoid", "Sign", "Sin", "Sinh", "Softplus", "Softsign", "Sqrt", "Swish", "Tan", "Tanh",
    "ThresholdedRelu",
)  # fmt: skip
"""Operators that compute on each element of their first input by itself."""
BROADCAST: Final = (
    "Add", "And", "Div", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Max", "Mean", "Min", "Mod",
    "Mul", "Or", "Pow", "Sub", "Sum", "Where", "Xor",
)  # fmt: skip
"""Operators that compute on each element of all their inputs, broadcast with each other."""
_REDUCE: Final = (
    "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd",
    "ReduceSum", "ReduceSumSquare",
)  # fmt: skip
RULES: Final[Mapping[str, Rule]] = {
    **dict.fromkeys(UNARY, _unary),
    **dict.fromkeys(BROADCAST, _broadcast),
    **dict.fromkeys(_REDUCE, _reduce),
    "ArgMax": _search,
    "ArgMin": _search,
    "Gather": _gather,
    "PRelu": _slope,
    "Concat": _axis,
    "Softmax": _softmax,
    "LogSoftmax": _softmax,
    "Pad": _pad,
    "Slice": _slice,
    "Split": _split,
    "Squeeze": _squeeze,
}
"""By operator; what is not here reads its inputs as they are."""
