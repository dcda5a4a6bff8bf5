"""Shapes and element types of operators that work element by element, with or without broadcasting."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from graphopt.analysis.dims import Dim, broadcast
from graphopt.analysis.shape_rules.call import Call, Shape, ShapeRule, TypeRule, Undetermined

__all__ = ["RULES", "broadcast_shapes", "fixed", "from_attribute", "same", "same_shape"]

_BOOL, _FLOAT = ir.DataType.BOOL, ir.DataType.FLOAT


def same(index: int) -> TypeRule:
    """The element type of an input."""

    def rule(call: Call) -> ir.DataType | None:
        return call.dtype(index)

    return rule


def fixed(dtype: ir.DataType) -> TypeRule:
    """Always this element type."""

    def rule(call: Call) -> ir.DataType | None:
        return dtype

    return rule


def from_attribute(name: str, otherwise: TypeRule) -> TypeRule:
    """The element type an attribute names."""

    def rule(call: Call) -> ir.DataType | list[ir.DataType | None] | None:
        value = call.attr(name)
        if value is None:
            return otherwise(call)
        return ir.DataType[value] if isinstance(value, str) else ir.DataType(value)  # opset 1 to 5: a name

    return rule


def same_shape(call: Call) -> Shape:
    """The shape of the first input."""
    return call.shape(0)


def broadcast_shapes(a: Shape, b: Shape) -> Shape:
    """NumPy broadcasting of two shapes that are compatible."""
    if a is b or not b or a == b:
        return a
    lead = len(a) - len(b)
    if lead < 0:
        a, b, lead = b, a, -lead
    dims: list[Dim] = list(a[:lead])
    for x, y in zip(a[lead:], b, strict=True):
        dims.append(x if x is y or y == 1 else broadcast(x, y))
    return tuple(dims)


def broadcast_all(shapes: Sequence[Shape]) -> Shape:
    """NumPy broadcasting of any number of shapes that are compatible."""
    result = shapes[0]
    for shape in shapes[1:]:
        result = broadcast_shapes(result, shape)
    return result


def _binary(call: Call) -> Shape:
    a = call.shape(0)
    # before opset 7 broadcasting was asked for by attributes, and only the second operand was stretched
    attributes = call.node.attributes.data
    if attributes and ("broadcast" in attributes or "axis" in attributes):
        return a
    return broadcast_shapes(a, call.shape(1))


def _variadic(call: Call) -> Shape:
    return broadcast_all([call.shape(index) for index in range(len(call.node.inputs))])


def _where(call: Call) -> Shape:
    return broadcast_all([call.shape(0), call.shape(1), call.shape(2)])


def _where_type(call: Call) -> ir.DataType | None:
    return call.dtype(1) or call.dtype(2)


def _dropout(call: Call) -> list[Shape | None]:
    shape = call.shape(0)
    return [shape, shape]


def _dropout_type(call: Call) -> list[ir.DataType | None]:
    dtype = call.dtype(0)
    return [dtype, dtype if call.opset < 10 else _BOOL]


def _bit_cast(call: Call) -> Shape:
    source, target = call.dtype(0), call.attr("to")
    if source is None or target is None or source.bitwidth != ir.DataType(target).bitwidth:
        raise Undetermined
    return call.shape(0)


_UNARY = (
    "Abs Acos Acosh Asin Asinh Atan Atanh BitwiseNot Ceil Celu Clip Cos Cosh CumProd CumSum Elu Erf Exp Floor Gelu "
    "HardSigmoid HardSwish Hardmax Identity LRN LeakyRelu Log LogSoftmax LpNormalization MeanVarianceNormalization "
    "Mish Neg Not PRelu Reciprocal Relu Round Selu Shrink Sigmoid Sign Sin Sinh Softmax Softplus Softsign Sqrt Swish "
    "Tan Tanh ThresholdedRelu Trilu ReverseSequence Scatter ScatterElements ScatterND TensorScatter RotaryEmbedding "
    "InstanceNormalization GroupNormalization RMSNormalization"
)
_ARITHMETIC = "Add Sub Mul Div Mod Pow BitShift BitwiseAnd BitwiseOr BitwiseXor"
_LOGICAL = "And Or Xor Equal Greater GreaterOrEqual Less LessOrEqual"

RULES: dict[str, tuple[TypeRule, ShapeRule]] = {
    **{name: (same(0), same_shape) for name in _UNARY.split()},
    **{name: (same(0), _binary) for name in _ARITHMETIC.split()},
    **{name: (fixed(_BOOL), _binary) for name in _LOGICAL.split()},
    **{name: (same(0), _variadic) for name in ("Min", "Max", "Sum", "Mean")},
    **{name: (fixed(_BOOL), same_shape) for name in ("IsInf", "IsNaN")},
    **{
        name: (from_attribute("dtype", same(0)), same_shape)
        for name in ("Bernoulli", "EyeLike", "RandomNormalLike", "RandomUniformLike")
    },
    "BitCast": (from_attribute("to", same(0)), _bit_cast),
    "Cast": (from_attribute("to", fixed(_FLOAT)), same_shape),
    "CastLike": (same(1), same_shape),
    "Dropout": (_dropout_type, _dropout),
    "Where": (_where_type, _where),
}
