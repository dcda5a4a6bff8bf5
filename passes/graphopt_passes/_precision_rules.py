"""Which operators keep float32 when a model gets narrower floats, and which constants may be clamped there."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Final, Literal

import onnx_ir as ir

__all__ = [
    "BOUNDS",
    "DECIDED_ELSEWHERE",
    "FILLS",
    "INDIFFERENT",
    "KEPT",
    "MOVING",
    "SMALLEST_DATA",
    "WHOLE",
    "Need",
    "Request",
]

Need = Literal["range", "digits", "float32"]


@dataclasses.dataclass(frozen=True)
class Request:
    """What to convert.

    Attributes:
        name: Of the pass that asks.
        old: The types that go.
        new: The one that comes.
        lacks: What the new type lacks: nodes that need it keep theirs.
        keep: Shell patterns of node names and operators; what fits one keeps its type.
        keep_io: Whether inputs and outputs of the model keep their types.
        reach: By name, how large values get; a node that reads or gives one near the end of the range keeps its type.
    """

    name: str
    old: frozenset[ir.DataType]
    new: ir.DataType
    lacks: frozenset[Need]
    keep: tuple[str, ...] = ()
    keep_io: bool = True
    reach: Mapping[str, float] = dataclasses.field(default_factory=dict)


_RANGE: Final = "range"
_DIGITS: Final = "digits"
_ALWAYS: Final = "float32"

KEPT: Final[Mapping[str, tuple[Need, str]]] = {
    # what grows beyond 65504 although operands and results of the layer around it do not
    "Exp": (_RANGE, "e^11 is too large already"),
    "Pow": (_RANGE, "the square of 256 is too large already"),
    "ReduceL2": (_RANGE, "it adds squares"),
    "ReduceLogSumExp": (_RANGE, "it adds exponentials"),
    "ReduceProd": (_RANGE, "products grow fast"),
    "ReduceSumSquare": (_RANGE, "it adds squares"),
    "LpNormalization": (_RANGE, "it adds squares"),
    "LpPool": (_RANGE, "it adds powers"),
    "GlobalLpPool": (_RANGE, "it adds powers"),
    "Softplus": (_RANGE, "runtimes compute it as log(1 + e^x)"),
    "DFT": (_RANGE, "it adds up whole signals"),
    "STFT": (_RANGE, "it adds up whole signals"),
    "Det": (_RANGE, "products grow fast"),
    # what counts, or measures places, where not even each whole number beyond 2048 exists
    "CumSum": (_DIGITS, "a running sum stops growing where its steps are smaller than a digit"),
    "CumProd": (_DIGITS, "errors multiply"),
    "Range": (_DIGITS, "steps are lost"),
    "Sin": (_DIGITS, "phases are large numbers"),
    "Cos": (_DIGITS, "phases are large numbers"),
    "Tan": (_DIGITS, "phases are large numbers"),
    "Mod": (_DIGITS, "the remainder of a rounded number is another one"),
    "OneHot": (_DIGITS, "it takes numbers for indices"),
    "RoiAlign": (_DIGITS, "coordinates are places in an image"),
    "GridSample": (_DIGITS, "coordinates are places in an image"),
    "AffineGrid": (_DIGITS, "coordinates are places in an image"),
    "NonMaxSuppression": (_DIGITS, "coordinates are places in an image"),
    "MelWeightMatrix": (_DIGITS, "frequencies are large numbers"),
    "Unique": (_DIGITS, "numbers that differ would become equal"),
    # what says its type in an attribute, draws numbers that depend on it, or holds tensors of a type
    "Bernoulli": (_ALWAYS, "other numbers would be drawn"),
    "Multinomial": (_ALWAYS, "other numbers would be drawn"),
    "RandomNormal": (_ALWAYS, "other numbers would be drawn"),
    "RandomNormalLike": (_ALWAYS, "other numbers would be drawn"),
    "RandomUniform": (_ALWAYS, "other numbers would be drawn"),
    "RandomUniformLike": (_ALWAYS, "other numbers would be drawn"),
    "BitCast": (_ALWAYS, "bits are not numbers"),
    "CastLike": (_ALWAYS, "its result has the type of an operand"),
    "EyeLike": (_ALWAYS, "its result has the type of its attribute"),
    "BlackmanWindow": (_ALWAYS, "its result has the type of its attribute"),
    "HammingWindow": (_ALWAYS, "its result has the type of its attribute"),
    "HannWindow": (_ALWAYS, "its result has the type of its attribute"),
    "ConcatFromSequence": (_ALWAYS, "sequences keep their type"),
    "Optional": (_ALWAYS, "optional values keep their type"),
    "OptionalGetElement": (_ALWAYS, "optional values keep their type"),
    "OptionalHasElement": (_ALWAYS, "optional values keep their type"),
    "SequenceAt": (_ALWAYS, "sequences keep their type"),
    "SequenceConstruct": (_ALWAYS, "sequences keep their type"),
    "SequenceEmpty": (_ALWAYS, "sequences keep their type"),
    "SequenceErase": (_ALWAYS, "sequences keep their type"),
    "SequenceInsert": (_ALWAYS, "sequences keep their type"),
    "SequenceMap": (_ALWAYS, "sequences keep their type"),
    "SplitToSequence": (_ALWAYS, "sequences keep their type"),
    "MeanVarianceNormalization": (_ALWAYS, "its definition has constants of float32"),
    # kernels for integers are written for scales in float32
    "DequantizeLinear": (_ALWAYS, "kernels for integers want scales in float32"),
    "DynamicQuantizeLinear": (_ALWAYS, "kernels for integers want scales in float32"),
    "QuantizeLinear": (_ALWAYS, "kernels for integers want scales in float32"),
    "QLinearConv": (_ALWAYS, "kernels for integers want scales in float32"),
    "QLinearMatMul": (_ALWAYS, "kernels for integers want scales in float32"),
}
"""Why an operator keeps float32: it needs the *range* (that bfloat16 has) or the *digits* of it, or float32 itself."""

FILLS: Final = frozenset({"Add", "ConstantOfShape", "Mul", "Pad", "ScatterElements", "ScatterND", "Sub", "Where"})
"""Where numbers beyond the range are what masks write: any large number does; half the largest leaves room to add."""

BOUNDS: Final = frozenset({"Clip", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Max", "Min"})
"""Where numbers beyond the range are bounds, which the largest number is as well."""

MOVING: Final = frozenset({
    "Concat", "DepthToSpace", "Expand", "Flatten", "Gather", "GatherElements", "GatherND", "Identity", "Reshape",
    "Slice", "SpaceToDepth", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze",
})  # fmt: skip
"""What computes nothing, and has the type of what is around it."""

WHOLE: Final = frozenset({"Ceil", "Floor", "Round"})
"""What makes whole numbers, which are sizes and places where they follow from integers alone."""

INDIFFERENT: Final = frozenset({("Cast", 0), ("CastLike", 0), ("Shape", 0), ("Size", 0)})
"""Operands that may have any type, whatever becomes of the rest."""

DECIDED_ELSEWHERE: Final = frozenset({("LayerNormalization", 1), ("LayerNormalization", 2)})
"""Results whose type an attribute decides."""

SMALLEST_DATA: Final = 16
"""From so many elements on a constant is data, of which the smallest may vanish; fewer are numbers that matter."""
