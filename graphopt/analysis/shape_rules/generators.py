"""Shapes of operators that make tensors: constants, shapes, ranges, indices, random numbers; and sequence lengths."""

from __future__ import annotations

import math

import onnx_ir as ir

from graphopt.analysis.dims import Dim, ceildiv, maximum, product
from graphopt.analysis.shape_rules.call import Call, Shape, ShapeRule, TypeRule, Undetermined, normalized
from graphopt.analysis.shape_rules.elementwise import fixed, from_attribute, same

__all__ = ["RULES"]

_FLOAT, _INT64, _BOOL = ir.DataType.FLOAT, ir.DataType.INT64, ir.DataType.BOOL


def _shape_of(call: Call) -> Shape:
    return (len(call.shape(0)[call.integer("start", 0) : call.attr("end")]),)


def _scalar(call: Call) -> Shape:
    return ()


def _constant_of_shape(call: Call) -> Shape:
    wanted = call.data(0)
    if wanted is not None:
        return wanted
    rank = call.shape(0)[0]
    if not isinstance(rank, int):
        raise Undetermined
    return tuple([call.fresh() for _ in range(rank)])


def _constant_of_shape_type(call: Call) -> ir.DataType | None:
    value = call.attr("value")
    return _FLOAT if value is None else ir.DataType(value.dtype)


def _whole_number(call: Call, index: int) -> Dim | None:
    """A bound of a Range, if it is an integer: in floats, a constant or the Cast of an extent (exact up to 2**24)."""
    data = call.data(index)
    value = call.input(index)
    if data is None and value is not None:
        producer = value.producer()
        source = producer.inputs[0] if producer is not None and producer.op_type == "Cast" else None
        if source is not None and len(call.fact(source)[1] or ()) < 2:
            data = call.fact(source)[2]
        number = None if data is not None else call.array(index)
        if number is not None and number.size == 1 and float(number.reshape(())).is_integer():
            return int(number.reshape(()))
    return data[0] if data is not None and len(data) == 1 else None


def _range(call: Call) -> Shape:
    bounds = [_whole_number(call, index) for index in range(3)]
    if all(bound is not None for bound in bounds):
        start, limit, delta = [bound for bound in bounds if bound is not None]
        if isinstance(delta, int) and delta > 0:
            return (maximum(0, ceildiv(limit - start, delta)),)
        if isinstance(delta, int) and delta < 0:
            return (maximum(0, ceildiv(start - limit, -delta)),)
        return (call.fresh(),)
    numbers = [call.array(index) for index in range(3)]
    if any(number is None for number in numbers):
        return (call.fresh(),)
    first, last, by = [float(number.reshape(())) for number in numbers if number is not None]
    steps = (last - first) / by
    if not math.isfinite(steps):
        return (call.fresh(),)
    whole = first.is_integer() and last.is_integer() and by.is_integer()
    if not whole and abs(steps - round(steps)) < 1e-4:
        return (call.fresh(),)  # rounding may go either way
    return (max(0, math.ceil(steps)),)


def _non_zero(call: Call) -> Shape:
    # ONNX Runtime treats a scalar as a one-element vector
    return max(1, len(call.shape(0))), call.fresh()


def _one_hot(call: Call) -> Shape:
    indices, depth = call.shape(0), call.data(1)
    axis = normalized(call.integer("axis", -1), len(indices) + 1)
    extent = call.fresh() if depth is None else depth[0]
    return (*indices[:axis], extent, *indices[axis:])


def _unique(call: Call) -> list[Shape | None]:
    count = call.fresh()
    if call.attr("axis") is None:
        source = call.maybe_shape(0)
        every: Dim = call.fresh() if source is None else product(source)
        return [(count,), (count,), (every,), (count,)]
    shape = call.shape(0)
    axis = normalized(call.integer("axis", 0), len(shape))
    return [(*shape[:axis], count, *shape[axis + 1 :]), (count,), (shape[axis],), (count,)]


def _unique_type(call: Call) -> list[ir.DataType | None]:
    return [call.dtype(0), _INT64, _INT64, _INT64]


def _from_shape_attribute(call: Call) -> Shape:
    shape = call.integers("shape")
    if shape is None:
        raise Undetermined
    return shape


def _multinomial(call: Call) -> Shape:
    return call.shape(0)[0], call.integer("sample_size", 1)


def _signal_window(call: Call) -> Shape:
    size = call.data(0)
    return (call.fresh() if size is None else size[0],)


def _type_of_value_one(call: Call) -> ir.DataType | None:
    return call.dtype(2)


RULES: dict[str, tuple[TypeRule, ShapeRule]] = {
    **{
        name: (from_attribute("output_datatype", fixed(_FLOAT)), _signal_window)
        for name in ("BlackmanWindow", "HammingWindow", "HannWindow")
    },
    **{
        name: (from_attribute("dtype", fixed(_FLOAT)), _from_shape_attribute)
        for name in ("RandomNormal", "RandomUniform")
    },
    "ConstantOfShape": (_constant_of_shape_type, _constant_of_shape),
    "Multinomial": (from_attribute("dtype", fixed(ir.DataType.INT32)), _multinomial),
    "NonZero": (fixed(_INT64), _non_zero),
    "OneHot": (_type_of_value_one, _one_hot),
    "OptionalHasElement": (fixed(_BOOL), _scalar),
    "Range": (same(0), _range),
    "SequenceLength": (fixed(_INT64), _scalar),
    "Shape": (fixed(_INT64), _shape_of),
    "Size": (fixed(_INT64), _scalar),
    "Unique": (_unique_type, _unique),
}
