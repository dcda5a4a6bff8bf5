"""The table of operators: what lanes they give, as far as that is known from the lanes they take.

Unknown lanes are NaN, which spreads through arithmetic by itself. A rule may leave out what it does not care for; it
must never claim a lane to be constant that may vary, also at the borders of an image.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir

from graphopt.channels.lanes import Floats, Rule, Step, nothing
from graphopt.channels.linker import Unlinkable
from graphopt.channels.uniform import uniform

__all__ = ["RULES", "grouped_inputs", "is_zero", "pads_nothing"]

# -- convolutions and products ---------------------------------------------------------------------------------------

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


def is_zero(step: Step, index: int, place: int) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    """Which lanes of an input of a product are always zero."""
    lanes = step.lanes(index, place)
    zero: np.ndarray[tuple[int, ...], np.dtype[np.bool_]] = lanes == _point(step, index, len(lanes))
    return zero


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
    zero = is_zero(step, weight, 0)
    sources = step.lanes(x, 1).reshape(group, inner)
    none = (sources == step.number(_POINTS[step.node.op_type][x]) if to is not None else sources == 0).all(axis=1)
    result = np.where(zero | np.repeat(none, given // group), shift, np.nan)
    tensor = step.linker.constant(step.value(weight))
    if inner == 1 and group > 1 and to is None and tensor is not None and pads_nothing(step):
        known = np.repeat(sources[:, 0], given // group)
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
    none = (step.lanes(0, 1).reshape(group, given // group) == 0).all(axis=1)
    step.give_lanes(1, np.where(zero | np.repeat(none, inner), step.vector(2, inner * group, 0.0), np.nan))


def grouped_inputs(step: Step, weight: int, transposed: bool) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
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
                step.give_lanes(
                    place - len(side) + len(axes), np.where(is_zero(step, index, place), result, np.nan)
                )


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
            shift = beta * (step.lanes(2, at) if along else np.full(len(zero), step.number(2)))
        step.give_lanes(place, np.where(zero, shift, np.nan))


def _einsum(step: Step) -> None:
    left, _, right = step.node.attributes.get_string("equation", "").replace(" ", "").partition("->")
    for index, term in enumerate(left.split(",")):
        for at, letter in enumerate(term):
            if letter in right and step.axes(index)[at].size != 1:
                step.give_lanes(right.index(letter), np.where(step.lanes(index, at) == 0, 0.0, np.nan))


def _recurrent(step: Step, gates: int, update: int) -> None:
    """A state that starts at zero and is updated by zeros stays zero."""
    outputs = [output for output in step.node.outputs if output.name]
    if not (outputs and step.linker.zero.get(outputs[0], (False,))[-1]):
        return
    tensors = [step.linker.constant(step.value(index)) for index in (1, 2)]
    directions, hidden = step.axes(2)[0].size, step.axes(2)[2].size
    if any(one is None for one in tensors) or not (isinstance(directions, int) and isinstance(hidden, int)):
        return
    zero = np.ones((directions, hidden), bool)
    for tensor in tensors:
        assert tensor is not None
        rows = tensor.numpy().reshape(directions, gates, hidden, -1)[:, update]
        zero &= uniform(rows.reshape(directions * hidden, -1), 0).reshape(zero.shape) == 0
    if step.has(3):
        bias = step.linker.constant(step.value(3))
        if bias is None:
            return
        zero &= (bias.numpy().reshape(directions, 2, gates, hidden)[:, :, update] == 0).all(axis=1)
    for state in (5, 6):
        if step.has(state):
            zero &= step.lanes(state, 2) == 0 if not step.is_uniformly(state, 0) else True
    lanes = np.where(zero.all(axis=0), 0.0, np.nan)
    for output in range(len(step.node.outputs)):
        if step.node.outputs[output].name:
            step.give_lanes(-1, lanes, output)


def _attention(step: Step) -> None:
    """Averages of zeros are zero."""
    values, given = step.axes(2), step.gives()
    for place in (1, 3) if len(values) == 4 else (2,):
        zero = step.lanes(2, place) == 0
        if values[place].size == given[place].size:
            step.give_lanes(place, np.where(zero, 0.0, np.nan))


def _multi_head_attention(step: Step) -> None:
    zero = step.lanes(2, 2) == 0
    if step.has(3):
        zero &= step.lanes(3, 0)[-len(zero) :] == 0
    step.give_lanes(2, np.where(zero, 0.0, np.nan))


def _packed_attention(step: Step) -> None:
    zero = step.lanes(1, 1) == 0
    if step.has(2):
        zero &= step.lanes(2, 0) == 0
    step.give_lanes(2, np.where(zero[len(zero) // 3 * 2 :], 0.0, np.nan))


# -- normalizations, reductions, pooling -----------------------------------------------------------------------------


def _batchnorm(step: Step) -> None:
    x = step.lanes(0, 1)
    scale, bias, mean, var = (step.vector(index, len(x)) for index in (1, 2, 3, 4))
    with np.errstate(all="ignore"):
        moved = scale * (x - mean) / np.sqrt(var + step.node.attributes.get_float("epsilon", 1e-5)) + bias
    step.give_lanes(1, np.where(scale == 0, bias, moved))


def _instance_norm(step: Step) -> None:
    """What is constant is its own mean; only zero is so without rounding."""
    x = step.lanes(0, 1)
    scale, bias = step.vector(1, len(x)), step.vector(2, len(x))
    step.give_lanes(1, np.where((scale == 0) | (x == 0), bias, np.nan))


def _group_norm(step: Step) -> None:
    size = len(step.lanes(0, 1))
    step.give_lanes(1, np.where(step.vector(1, size) == 0, step.vector(2, size), np.nan))


def _layer_norm(step: Step) -> None:
    """Lanes beside the normalized axes: zeros stay zero, plus the bias where that is one number."""
    rank = len(step.axes(0))
    first = step.axis(0, -1, rank)
    shift = step.number(2) if step.has(2) else 0.0
    for place in range(first):
        if step.axes(0)[place].size != 1:
            step.give_lanes(place, np.where(step.lanes(0, place) == 0, shift, np.nan))


def _rms_norm(step: Step) -> None:
    step.carry(_zero_only)
    if len(step.axes(1)) == 1:
        scale = step.lanes(1, 0)
        step.give_lanes(-1, np.where(scale == 0, 0.0, np.nan))


def _zero_only(lanes: Floats) -> Floats:
    return np.where(lanes == 0, 0.0, np.nan)


def _same(lanes: Floats) -> Floats:
    return lanes


def _carry(function: Callable[[Floats], Floats]) -> Rule:
    return lambda step: step.carry(function)


def _average_pool(step: Step) -> None:
    counts_pads = step.integer("count_include_pad", 0) and not pads_nothing(step)
    step.carry(_zero_only if counts_pads else _same)


def _resize(step: Step) -> None:
    """Weights of neighbours add up to one, save where the border is filled up."""
    mode = step.node.attributes.get_string("coordinate_transformation_mode", "half_pixel")
    step.carry(_zero_only if mode == "tf_crop_and_resize" else _same)


# -- elementwise -----------------------------------------------------------------------------------------------------


def _unary(step: Step) -> None:
    step.carry(step.applied)


def _cast(step: Step) -> None:
    to = step.integer("to", 0)
    step.carry(_same if ir.DataType(to).is_floating_point() else _zero_only)


def _each(step: Step, function: Callable[..., Floats]) -> None:
    """Applies a function of all inputs to the lanes of each axis; what does not have the axis is one number or NaN."""
    given = [index for index in range(len(step.node.inputs)) if step.has(index)]
    if not any(step.any_known(index) for index in given):
        return
    axes = step.gives()
    for place, axis in enumerate(axes):
        having = {}
        for index in given:
            own = step.axes(index)
            at = place - len(axes) + len(own)
            if at >= 0 and own[at].size != 1:
                having[index] = step.lanes(index, at)
        if axis.size == 1 or not having or len({len(one) for one in having.values()}) > 1:
            continue
        if all(np.isnan(one).all() for one in having.values()):
            continue
        size = len(next(iter(having.values())))
        operands = [having.get(index, np.full(size, step.number(index))) for index in given]
        with np.errstate(all="ignore"):
            step.give_lanes(place, function(*operands))


def _elementwise(function: Callable[..., Floats]) -> Rule:
    return lambda step: _each(step, function)


def _sum(*operands: Floats) -> Floats:
    return functools.reduce(np.add, operands)


def _mean(*operands: Floats) -> Floats:
    return _sum(*operands) / len(operands)


def _largest(*operands: Floats) -> Floats:
    return functools.reduce(np.maximum, operands)


def _smallest(*operands: Floats) -> Floats:
    return functools.reduce(np.minimum, operands)


def _product(a: Floats, b: Floats) -> Floats:
    return np.where((a == 0) | (b == 0), 0.0, a * b)


def _quotient(a: Floats, b: Floats) -> Floats:
    return np.where(a == 0, 0.0, a / b)


def _power(a: Floats, b: Floats) -> Floats:
    return np.where(np.isnan(a) | np.isnan(b), np.nan, a**b)


def _sloped(x: Floats, slope: Floats) -> Floats:
    return np.where(x >= 0, x, x * slope)


def _either(condition: Floats, a: Floats, b: Floats) -> Floats:
    same = np.where(a == b, a, np.nan)
    return np.where(np.isnan(condition), same, np.where(condition != 0, a, b))


def _clip(step: Step) -> None:
    attributes = step.node.attributes
    low = step.number(1) if step.has(1) else attributes.get_float("min", -math.inf)
    high = step.number(2) if step.has(2) else attributes.get_float("max", math.inf)
    step.carry(lambda lanes: np.minimum(np.maximum(lanes, low), high))


def _bias_gelu(step: Step) -> None:
    """Only what stays zero: the formulas differ in rounding."""
    _each(step, lambda *operands: _zero_only(_sum(*operands)))


# -- movement --------------------------------------------------------------------------------------------------------


def _concat(step: Step) -> None:
    axes = step.gives()
    axis = step.axis(0, 0, len(axes))
    inputs = range(len(step.node.inputs))
    if not any(step.any_known(index) for index in inputs):
        return
    for place, one in enumerate(axes):
        if one.size == 1:
            continue
        parts = [step.lanes(index, place) for index in inputs]
        if place == axis:
            step.give_lanes(place, np.concatenate(parts))
        elif len({len(part) for part in parts}) == 1:
            same = functools.reduce(lambda a, b: np.where(a == b, a, np.nan), parts)
            step.give_lanes(place, same)


def _split(step: Step) -> None:
    for output in range(len(step.node.outputs)):
        step.carry(_same, output=output)
        _moved(step, output)


def _moved(step: Step, output: int = 0, fill: float = math.nan) -> None:
    """Lanes along an axis that is cut, picked from or padded are where the links say."""
    source, target = step.axes(0), step.gives(output)
    for link in step.links:
        to = [place for place, axis in enumerate(target) if axis is link.a]
        of = [place for place, axis in enumerate(source) if axis is link.b]
        if len(to) == len(of) == 1 and isinstance(link.a.size, int):
            lanes = np.full(link.a.size, fill)
            lanes[link.a_indices] = step.lanes(0, of[0])[link.b_indices]
            step.give_lanes(to[0], lanes, output)


def _slice(step: Step) -> None:
    step.carry(_same)
    _moved(step)


def _gather(step: Step) -> None:
    step.carry(_same)
    contents = step.indices(1) if step.is_constant(1) else None
    axis = step.axis(0, 0, len(step.axes(0)))
    size = step.axes(0)[axis].size
    if contents is not None and contents.ndim == 1 and isinstance(size, int):
        step.give_lanes(axis, step.lanes(0, axis)[contents.astype(np.int64) % max(size, 1)])


def _pad(step: Step) -> None:
    """Padding other axes leaves a lane constant if it is what they are padded with."""
    mode = step.node.attributes.get_string("mode", "constant")
    fill = step.node.attributes.get_float("value", 0.0) if step.opset < 11 else step.number(2) if step.has(2) else 0.0
    source, target = step.axes(0), step.gives()
    padded = [place for place, axis in enumerate(target) if axis is not source[place]]

    def within(lanes: Floats) -> Floats:
        return lanes if mode != "constant" or not padded else np.where(lanes == fill, lanes, np.nan)

    step.carry(within)
    if mode == "constant" and len(padded) == 1:
        _moved(step, fill=fill)


def _constant_of_shape(step: Step) -> None:
    attribute = step.node.attributes.get("value")
    number = 0.0 if attribute is None else float(attribute.as_tensor().numpy().reshape(-1)[0])
    for place, axis in enumerate(step.gives()):
        if isinstance(axis.size, int) and axis.size != 1:
            step.give_lanes(place, np.full(axis.size, number))


def _if(step: Step) -> None:
    """What both branches give."""
    branches = [step.node.attributes[name].as_graph() for name in ("then_branch", "else_branch")]
    for output, values in enumerate(zip(*[branch.outputs for branch in branches], strict=True)):
        axes = step.gives(output)
        for place, axis in enumerate(axes):
            if axis.size != 1:
                a, b = (step.lanes_of(value, place, axis) for value in values)
                step.give_lanes(place, np.where(a == b, a, np.nan) if len(a) == len(b) else nothing(len(a)), output)


# -- quantization ----------------------------------------------------------------------------------------------------


def _points(step: Step, place: int, size: int) -> tuple[Floats, Floats]:
    """Scale and zero point of the lanes of an axis."""
    along = place == step.integer("axis", 1) % max(len(step.axes(0)), 1)
    scale, point = (
        step.vector(index, size, default)
        if along
        else np.full(size, step.number(index) if step.has(index) else default)
        for index, default in ((1, 1.0), (2, 0.0))
    )
    return scale, point


def _quantize(step: Step, function: Callable[[Floats, Floats, Floats], Floats]) -> None:
    if not step.any_known(0):
        return
    for place, axis in enumerate(step.axes(0)):
        if axis.size != 1:
            lanes = step.lanes(0, place)
            step.give_lanes(place, function(lanes, *_points(step, place, len(lanes))))


def _quantized(lanes: Floats, scale: Floats, point: Floats) -> Floats:
    return np.where(lanes == 0, point, np.nan)


def _dequantized(lanes: Floats, scale: Floats, point: Floats) -> Floats:
    return np.where(lanes == point, 0.0, (lanes - point) * scale)


def _rule(function: Callable[..., None], *settings: int) -> Rule:
    return lambda step: function(step, *settings)


_UNARY: Sequence[str] = (
    "Abs", "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "Ceil", "Celu", "Cos", "Cosh", "Elu", "Erf", "Exp",
    "Floor", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "Log", "Mish", "Neg", "Reciprocal", "Relu", "Round",
    "Selu", "Shrink", "Sigmoid", "Sign", "Sin", "Sinh", "Softplus", "Softsign", "Sqrt", "Swish", "Tan", "Tanh",
    "ThresholdedRelu", "com.microsoft::Gelu", "com.microsoft::QuickGelu",
)  # fmt: skip

RULES: dict[str, Rule] = {
    **dict.fromkeys(_UNARY, _unary),
    **dict.fromkeys(("Dropout", "GlobalAveragePool", "GlobalMaxPool", "Identity", "MaxPool"), _carry(_same)),
    **dict.fromkeys(("Expand", "ReduceMax", "ReduceMean", "ReduceMin", "Transpose"), _carry(_same)),
    **dict.fromkeys(("GlobalLpPool", "GridSample", "LpNormalization", "LpPool", "RoiAlign"), _carry(_zero_only)),
    **dict.fromkeys(("ReduceL1", "ReduceL2", "ReduceSum", "ReduceSumSquare"), _carry(_zero_only)),
    **dict.fromkeys(("DepthToSpace", "Flatten", "Reshape", "SpaceToDepth", "Tile"), Step.regroup),
    **dict.fromkeys(("Squeeze", "Unsqueeze"), _carry(_same)),
    **dict.fromkeys(("Resize", "Upsample"), _resize),
    **dict.fromkeys(("com.microsoft::BiasGelu", "com.microsoft::FastGelu"), _bias_gelu),
    **dict.fromkeys(
        ("RMSNormalization", "SimplifiedLayerNormalization", "com.microsoft::SimplifiedLayerNormalization"), _rms_norm
    ),
    "Add": _elementwise(_sum),
    "Attention": _attention,
    "AveragePool": _average_pool,
    "BatchNormalization": _batchnorm,
    "Cast": _cast,
    "Clip": _clip,
    "Concat": _concat,
    "ConstantOfShape": _constant_of_shape,
    "Conv": _conv,
    "ConvInteger": _rule(_conv, 0, 1, 9),
    "ConvTranspose": _conv_transpose,
    "DequantizeLinear": _rule(_quantize, _dequantized),  # type: ignore[arg-type]
    "Div": _elementwise(_quotient),
    "Einsum": _einsum,
    "GRU": _rule(_recurrent, 3, 2),
    "Gather": _gather,
    "Gemm": _gemm,
    "GroupNormalization": _group_norm,
    "If": _if,
    "InstanceNormalization": _instance_norm,
    "LSTM": _rule(_recurrent, 4, 3),
    "LayerNormalization": _layer_norm,
    "MatMul": _matmul,
    "MatMulInteger": _matmul,
    "Max": _elementwise(_largest),
    "Mean": _elementwise(_mean),
    "Min": _elementwise(_smallest),
    "Mul": _elementwise(_product),
    "PRelu": _elementwise(_sloped),
    "Pad": _pad,
    "Pow": _elementwise(_power),
    "QLinearConv": _rule(_conv, 0, 3, 8, 7),
    "QLinearMatMul": _rule(_matmul, 0, 3, 7),
    "QuantizeLinear": _rule(_quantize, _quantized),  # type: ignore[arg-type]
    "RNN": _rule(_recurrent, 1, 0),
    "Slice": _slice,
    "Split": _split,
    "Sub": _elementwise(np.subtract),
    "Sum": _elementwise(_sum),
    "Where": _elementwise(_either),
    "com.microsoft::Attention": _packed_attention,
    "com.microsoft::FusedMatMul": _matmul,
    "com.microsoft::MultiHeadAttention": _multi_head_attention,
}
