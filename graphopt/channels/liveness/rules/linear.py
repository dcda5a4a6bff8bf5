"""Convolutions and matrix products: what a filter of zeros, or one of which all inputs are zero, gives."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from graphopt.channels.liveness.lanes import Floats, Rule, Step, nothing, with_settings
from graphopt.channels.liveness.uniform import uniform

__all__ = ["TABLE", "grouped_inputs", "is_zero", "pads_nothing"]

Mask = npt.NDArray[np.bool_]

_POINTS = {
    "ConvInteger": {0: 2, 1: 3},
    "MatMulInteger": {0: 2, 1: 3},
    "QLinearConv": {0: 2, 3: 5},
    "QLinearMatMul": {0: 2, 3: 5},
}
"""Where operators on integers are told what stands for zero, by the input that it is about."""


def _point(step: Step, index: int, size: int) -> Floats:
    """What stands for zero in an input, for each of ``size`` lanes that it may go along."""
    at = _POINTS.get(step.node.op_type, {}).get(index)
    return np.zeros(size) if at is None else step.vector(at, size, 0.0)


def is_zero(step: Step, index: int, place: int) -> Mask:
    """Which lanes of an input of a product are always zero."""
    lanes = step.lanes(index, place)
    at = _POINTS.get(step.node.op_type, {}).get(index)
    if at is None or not step.has(at):
        return np.asarray(lanes == 0)
    producer = step.value(index).producer()
    if producer is not None and producer.op_type == "DynamicQuantizeLinear":
        if step.value(at) is producer.outputs[2]:
            return np.asarray(step.upstream(producer).lanes(0, place) == 0)
        return np.zeros(len(lanes), bool)
    return np.asarray(lanes == _point(step, index, len(lanes))) | _equals_points(step, index, place, at)


def _equals_points(step: Step, index: int, place: int, at: int) -> Mask:
    """Which slices of a weight are the zero points of the channels that they cross."""
    tensor, points = step.linker.constant(step.value(index)), step.linker.constant(step.value(at))
    along = 0 if step.node.op_type.endswith(("ConvInteger", "QLinearConv")) else len(step.axes(index)) - 1
    if tensor is None or points is None or points.size == 1 or place % len(tensor.shape) == along:
        return np.zeros(len(step.lanes(index, place)), bool)
    slices = np.moveaxis(tensor.numpy(), place, 0)
    shape = [-1 if axis == along else 1 for axis in range(len(tensor.shape))]
    wanted = np.moveaxis(points.numpy().reshape(shape), place, 0)[0]
    return np.array([np.array_equal(one, np.broadcast_to(wanted, one.shape)) for one in slices], bool)


def pads_nothing(step: Step) -> bool:
    """Whether every window of a convolution or pooling lies within the image."""
    attributes = step.node.attributes
    return not any(step.integers("pads") or ()) and attributes.get_string("auto_pad", "NOTSET") in ("NOTSET", "VALID")


def _conv(step: Step, x: int = 0, weight: int = 1, bias: int = 2, to: int | None = None) -> None:
    """A filter of zeros gives its bias; so does one of which all inputs are zero."""
    group, (given, inner, *_) = step.integer("group", 1), [axis.size for axis in step.axes(weight)]
    if not (isinstance(given, int) and isinstance(inner, int)):
        return
    shift = np.zeros(given) if to is None else step.vector(to, given)
    if step.has(bias):
        own = step.vector(bias, given)
        shift = own if to is None else np.where(own == 0, shift, np.nan)  # of integers only what needs no rounding
    result = np.where(is_zero(step, weight, 0), shift, np.nan)
    sources = step.lanes(x, 1)
    if len(sources) != group * inner:
        step.give_lanes(1, result)
        return
    none = is_zero(step, x, 1).reshape(group, inner).all(axis=1)
    result = np.where(np.repeat(none, given // group), shift, result)
    tensor = step.linker.constant(step.value(weight))
    if inner == 1 and group > 1 and step.node.op_type == "Conv" and tensor is not None and pads_nothing(step):
        known = np.repeat(sources, given // group)
        if not np.isnan(known).all():
            total = np.asarray(tensor.numpy(), np.float64).reshape(given, -1).sum(axis=1)
            result = np.where(np.isnan(result), known * total + shift, result)
    step.give_lanes(1, result)


def _conv_transpose(step: Step) -> None:
    """A filter of zeros gives its bias. (What others give of constant lanes differs at the borders.)"""
    group, (given, inner, *_) = step.integer("group", 1), [axis.size for axis in step.axes(1)]
    if not (isinstance(given, int) and isinstance(inner, int)):
        return
    tensor = step.linker.constant(step.value(1))
    if group == 1 or tensor is None:
        zero = step.lanes(1, 1) == 0 if group == 1 else np.zeros(inner * group, bool)
    elif given == group:
        zero = uniform(tensor.numpy().reshape(given * inner, -1), 0) == 0
    else:
        blocks = tensor.numpy().reshape(group, given // group, *tensor.shape.numpy()[1:])
        zero = np.concatenate([uniform(block, 1) == 0 for block in blocks])
    sources = step.lanes(0, 1)
    if len(sources) == given:
        zero |= np.repeat((sources.reshape(group, -1) == 0).all(axis=1), inner)
    step.give_lanes(1, np.where(zero, step.vector(2, inner * group, 0.0), np.nan))


def grouped_inputs(step: Step, weight: int, transposed: bool) -> Mask:
    """Which channels of the input of a convolution its weight is zero for."""
    group = step.integer("group", 1)
    tensor = step.linker.constant(step.value(weight))
    if group == 1 or transposed or tensor is None:
        zero = is_zero(step, weight, 0 if transposed else 1)
        return zero if group == 1 or transposed else np.zeros(group * len(zero), bool)
    given, inner, *rest = tensor.shape.numpy()
    blocks = tensor.numpy().reshape(group, given // group, inner, *rest)
    return np.concatenate([uniform(block, 1) == _point(step, weight, inner) for block in blocks])


def _matmul(step: Step, a: int = 0, b: int = 1, to: int | None = None) -> None:
    """Rows, columns and batches that are zero give zeros."""
    result = 0.0 if to is None else step.number(to)
    left, right, axes = step.axes(a), step.axes(b), step.gives()
    if len(right) > 1 and right[-1].size != 1:
        step.give_lanes(-1, np.where(is_zero(step, b, -1), result, np.nan))
    if len(left) > 1 and left[-2].size != 1:
        step.give_lanes(len(axes) - (2 if len(right) > 1 else 1), np.where(is_zero(step, a, -2), result, np.nan))
    for index, side in ((a, left), (b, right)):
        for place in range(len(side) - 2):
            if side[place].size != 1:
                zero = is_zero(step, index, place)
                step.give_lanes(place - len(side) + len(axes), np.where(zero, result, np.nan))


def _gemm(step: Step) -> None:
    row, column = step.integer("transA", 0), 1 - step.integer("transB", 0)
    axes = step.gives()
    beta = step.node.attributes.get_float("beta", 1.0)
    for place, zero in ((0, is_zero(step, 0, row)), (1, is_zero(step, 1, column))):
        shift = np.zeros(len(zero))
        if step.has(2):
            own = step.axes(2)
            at = place - 2 + len(own)
            along = at >= 0 and own[at].size == axes[place].size
            shift = step.lanes(2, at) if along else np.full(len(zero), step.number(2))
            shift = beta * shift if len(shift) == len(zero) else nothing(len(zero))
        step.give_lanes(place, np.where(zero, shift, np.nan))


def _einsum(step: Step) -> None:
    left, _, right = step.node.attributes.get_string("equation", "").replace(" ", "").partition("->")
    for index, term in enumerate(left.split(",")):
        for at, letter in enumerate(term):
            if letter in right and step.axes(index)[at].size != 1:
                step.give_lanes(right.index(letter), np.where(step.lanes(index, at) == 0, 0.0, np.nan))


TABLE: dict[str, Rule] = {
    "Conv": _conv,
    "ConvInteger": with_settings(_conv, 0, 1, 9),
    "ConvTranspose": _conv_transpose,
    "Einsum": _einsum,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "MatMulInteger": _matmul,
    "QLinearConv": with_settings(_conv, 0, 3, 8, 7),
    "QLinearMatMul": with_settings(_matmul, 0, 3, 7),
    "com.microsoft::FusedMatMul": _matmul,
}
