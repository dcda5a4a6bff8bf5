"""What providers demand of a node: each demand has a test, and says what is wrong where it is not met."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable

import onnx_ir as ir

from graphopt.mobile.sight import FLOAT_TYPES, QUANTIZED_TYPES, Sight, dequantizer

__all__ = [
    "BIAS",
    "FIXED",
    "FLAT",
    "FLOAT",
    "FLOAT_OR_QUANTIZED",
    "FLOAT_OR_UINT8",
    "PLANES",
    "Demand",
    "Kind",
    "Row",
    "constant",
    "constant_if_given",
    "fixed_axes",
    "is_set",
]


class Kind(enum.StrEnum):
    """What a demand is about, which decides what to do where it is not met."""

    OPERATOR = "operator"
    BODY = "body"
    OPSET = "opset"
    TYPE = "type"
    AXES = "axes"
    SHAPE = "shape"
    CONSTANT = "constant"
    ATTRIBUTE = "attribute"


@dataclasses.dataclass(frozen=True, slots=True)
class Demand:
    """One condition.

    Attributes:
        kind: What it is about.
        says: What is wrong where it does not hold.
        met: Whether it holds.
    """

    kind: Kind
    says: str
    met: Callable[[Sight], bool]


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """An operator that a provider has.

    Attributes:
        demands: What it asks of a node; the first that is not met is the reason given.
        versions: The operator sets that brought the variants it has a kernel for; ``None`` for any.
        note: What is known beyond that, in ONNX Runtime's words, and not checked.
    """

    demands: tuple[Demand, ...] = ()
    versions: frozenset[int] | None = None
    note: str = ""


def constant(index: int, what: str) -> Demand:
    """That an input is an initializer; ``what`` names it."""
    return Demand(
        Kind.CONSTANT, f"its {what} is computed while the model runs", lambda s: s.constant(index) is not None
    )


def constant_if_given(index: int, what: str) -> Demand:
    """The same of an input that may be left out."""
    return Demand(
        Kind.CONSTANT,
        f"its {what} is computed while the model runs",
        lambda s: not s.has(index) or s.constant(index) is not None,
    )


def fixed_axes(*axes: int) -> Demand:
    """That the first input has fixed extents along some axes."""
    return Demand(
        Kind.SHAPE,
        "extents of its input are not fixed",
        lambda s: (dims := s.dims()) is not None and all(dims[axis] is not None for axis in axes),
    )


def is_set(name: str, value: object, default: object, says: str) -> Demand:
    """That an attribute has one value."""
    return Demand(Kind.ATTRIBUTE, says, lambda s: s.attribute(name, default) == value)


def _all_fixed(sight: Sight) -> bool:
    dims = [sight.dims(index) for index in range(len(sight.node.inputs)) if sight.has(index)]
    return all(one is not None and None not in one for one in dims)


FIXED = Demand(Kind.SHAPE, "extents of its inputs are not fixed", _all_fixed)
PLANES = Demand(Kind.AXES, "it is not two-dimensional", lambda s: (dims := s.dims()) is not None and len(dims) == 4)
FLAT = Demand(
    Kind.AXES,
    "an operand has more than two axes",
    lambda s: all((dims := s.dims(index)) is not None and len(dims) <= 2 for index in (0, 1)),
)
FLOAT = Demand(
    Kind.TYPE,
    "it computes neither in float32 nor in float16",
    lambda s: s.dtype() in FLOAT_TYPES and not any(map(dequantizer, s.node.inputs)),
)
FLOAT_OR_QUANTIZED = Demand(
    Kind.TYPE,
    "it is not of one type: float32, float16, int8 or uint8",
    lambda s: (
        s.dtype() in QUANTIZED_TYPES and (not s.has(1) or s.dtype(1) == s.dtype())
        if s.quantized
        else s.dtype() in FLOAT_TYPES
    ),
)
FLOAT_OR_UINT8 = Demand(
    Kind.TYPE,
    "it is neither float32, float16 nor uint8",
    lambda s: s.dtype() is ir.DataType.UINT8 if s.quantized else s.dtype() in FLOAT_TYPES,
)
BIAS = constant_if_given(2, "bias")
