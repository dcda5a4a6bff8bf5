"""Operators that work element by element: their axes are those of their inputs, broadcast."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from graphopt.channels.axes import Axis
from graphopt.channels.op import Op
from graphopt.channels.rules.rule import Rule, Table

__all__ = ["TABLE", "broadcast"]


def broadcast(op: Op, indices: Sequence[int]) -> list[tuple[Axis, list[tuple[int, int]]]]:
    """Unites what broadcasting makes one.

    Returns:
        For each axis of the result the axis, and which inputs have it (input, axis of it); an input that is repeated
        along it is not among them.
    """
    inputs = [(index, op.axes(index)) for index in indices]
    rank = max(len(axes) for _, axes in inputs)
    result: list[tuple[Axis, list[tuple[int, int]]]] = []
    for place in range(rank):
        having: list[tuple[int, int]] = []
        present: list[Axis] = []
        for index, axes in inputs:
            own = place - rank + len(axes)
            if own >= 0 and axes[own].size != 1:
                having.append((index, own))
                present.append(axes[own])
        if not present:
            result.append((op.new(1), []))
            continue
        static = next((axis for axis in present if isinstance(axis.size, int)), present[0])
        for axis in present:
            if axis.size == static.size:
                op.unite(static, axis)
            else:
                op.freeze(static, "it meets an axis of unknown size")
                op.freeze(axis, "it meets an axis of unknown size")
        result.append((static, having))
    return result


def _all_zero(op: Op, having: list[tuple[int, int]], indices: Sequence[int]) -> bool:
    return len(having) == len(indices) and all(op.is_zero(*one) for one in having)


def _any_zero(op: Op, having: list[tuple[int, int]], indices: Sequence[int]) -> bool:
    return any(op.is_zero(*one) for one in having)


def _first_zero(op: Op, having: list[tuple[int, int]], indices: Sequence[int]) -> bool:
    return any(index == indices[0] and op.is_zero(index, axis) for index, axis in having)


def _never(op: Op, having: list[tuple[int, int]], indices: Sequence[int]) -> bool:
    return False


_Zero = Callable[[Op, list[tuple[int, int]], Sequence[int]], bool]


def _elementwise(zero: _Zero, first: int = 0) -> Callable[[Op], None]:
    def link(op: Op) -> None:
        given = [index for index in range(len(op.node.inputs)) if op.has(index)]
        every = broadcast(op, given)
        relevant = [index for index in given if index >= first]
        axes = [axis for axis, _ in every]
        op.give(axes, [zero(op, [one for one in having if one[0] >= first], relevant) for _, having in every])

    return link


def _divide(op: Op) -> None:
    op.keep(1)
    every = broadcast(op, (0, 1))
    for axis, having in every:
        if any(index == 1 and not op.is_constant(1) and op.is_zero(1, own) for index, own in having):
            op.freeze(axis, "it is divided by lanes that are zero when masked")
    op.give([axis for axis, _ in every], [_first_zero(op, having, (0, 1)) for _, having in every])


def _power(op: Op) -> None:
    op.keep(1)
    every = broadcast(op, (0, 1))
    exponent = op.scalar(1)
    positive = exponent is not None and exponent > 0
    for axis, having in every:
        if (exponent is None or exponent < 0) and _first_zero(op, having, (0, 1)):
            op.freeze(axis, "a power of masked lanes may not be finite")
    op.give([axis for axis, _ in every], [positive and _first_zero(op, having, (0, 1)) for _, having in every])


def _preserving(op: Op) -> None:
    """f(0) = 0."""
    op.give(op.axes(0), op.zeros(0))


def _cast_like(op: Op) -> None:
    """Of its second input only the element type matters."""
    op.axes(1)
    _preserving(op)


def _elsewhere(op: Op) -> None:
    """f(0) is some other number."""
    op.give(op.axes(0))


def _infinite(op: Op) -> None:
    """f(0) is no finite number."""
    for axis, zero in zip(op.axes(0), op.zeros(0), strict=True):
        if zero and not op.is_constant(0):
            op.freeze(axis, f"{op.node.op_type} of a masked lane is not finite")
    op.keep(0)
    op.give(op.axes(0))


def _clip(op: Op) -> None:
    low, high = (
        op.scalar(index) if op.has(index) else op.node.attributes.get_float(name, default)
        for index, name, default in ((1, "min", 0.0), (2, "max", 0.0))
    )
    keeps_zero = low is not None and high is not None and low <= 0 <= high
    op.give(op.axes(0), [zero and keeps_zero for zero in op.zeros(0)])


def _prelu(op: Op) -> None:
    every = broadcast(op, (0, 1))
    op.give([axis for axis, _ in every], [_first_zero(op, having, (0, 1)) for _, having in every])


def _dropout(op: Op) -> None:
    op.give(op.axes(0), op.zeros(0))
    op.give(op.axes(0), False, output=1)


def _cumulative(op: Op) -> None:
    axis = op.scalar(1)
    for index, one in enumerate(op.axes(0)):
        if axis is None or index == int(axis) % len(op.axes(0)):
            op.freeze(one, "it is summed along")
    op.give(op.axes(0), op.zeros(0))


def _bias_gelu(op: Op) -> None:
    every = broadcast(op, [index for index in (0, 1) if op.has(index)])
    given = [index for index in (0, 1) if op.has(index)]
    op.give([axis for axis, _ in every], [_all_zero(op, having, given) for _, having in every])


_PRESERVING = (
    "Abs", "Asin", "Asinh", "Atan", "Atanh", "Cast", "Ceil", "Celu", "Elu", "Erf", "Floor", "Gelu", "HardSwish",
    "Identity", "LeakyRelu", "Mish", "Neg", "Relu", "Round", "Selu", "Shrink", "Sign", "Sin", "Sinh", "Softsign",
    "Sqrt", "Swish", "Tan", "Tanh", "ThresholdedRelu", "com.microsoft::Gelu", "com.microsoft::QuickGelu",
)  # fmt: skip
_ELSEWHERE = (
    "Acos", "Cos", "Cosh", "Exp", "HardSigmoid", "IsInf", "IsNaN", "Not", "BitwiseNot", "Sigmoid", "Softplus",
)  # fmt: skip
_COMPARISONS = ("And", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Or", "Xor")
_SUMS = ("Add", "Max", "Mean", "Min", "Sub", "Sum")

TABLE: Table = {
    **dict.fromkeys(_PRESERVING, Rule(_preserving)),
    **dict.fromkeys(_ELSEWHERE, Rule(_elsewhere)),
    **dict.fromkeys(_COMPARISONS, Rule(_elementwise(_never))),
    **dict.fromkeys(_SUMS, Rule(_elementwise(_all_zero))),
    **dict.fromkeys(("Acosh", "Log", "Reciprocal"), Rule(_infinite)),
    **dict.fromkeys(("com.microsoft::BiasGelu", "com.microsoft::FastGelu"), Rule(_bias_gelu)),
    "Mul": Rule(_elementwise(_any_zero)),
    "Div": Rule(_divide),
    "Mod": Rule(_divide),
    "Pow": Rule(_power),
    "PRelu": Rule(_prelu),
    "CastLike": Rule(_cast_like),
    "Clip": Rule(_clip),
    "CumSum": Rule(_cumulative),
    "Dropout": Rule(_dropout),
    "Where": Rule(_elementwise(_all_zero, first=1)),
}
