"""Folds arithmetic with a constant per channel into the layer after it."""

from __future__ import annotations

import dataclasses
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from graphopt.pipeline.base import Context, RulePass, Safety
from graphopt.rewrite.builder import Builder
from graphopt.rewrite.match import Match, Miss
from graphopt_passes._channels import Floats, affine_of, batchnorm_affine, channel_vector, fits, scaled
from graphopt_passes._floats import FLOAT_TYPES

__all__ = ["FuseAffineConv"]

_ARITHMETIC: Final = ("Mul", "Add", "Sub", "Div")
_DEPTH: Final = 3


@dataclasses.dataclass(frozen=True)
class FuseAffineConv(RulePass):
    """Folds a Mul, Add, Sub, Div or BatchNormalization into the Conv, ConvTranspose, Gemm or MatMul after it.

    What it does:
        ``y = W (x * s + t) + B`` with one number a channel, or one for all, becomes ``W' x + B'`` with
        ``W' = W * s`` along the input channels and ``B' = B + W t``, summed over the window. Computed in float64,
        stored in the weight's dtype. It is how the mean and the spread of a data set that an exporter put in front
        of a network go away.

    Before:
        ``d = Div(x, [[58.4]], [[57.1]], [[57.4]]); y = Conv(d, W, B)``

    After:
        ``y = Conv(x, W', B)``

    Does not apply when:
        - the result of the arithmetic is read by anything else, or is a graph output;
        - weight, bias or operand is not constant, or can be overridden by the caller;
        - the operand varies along another axis than the channels, or makes ``x`` larger, or the size of ``x`` along the
          channels is not known;
        - it adds something and the layer pads: the padding is of zeros, to which nothing was added;
        - it adds something and the layer is a ConvTranspose, where the border sees fewer of the summands, or a MatMul,
          which has no bias;
        - it is the end of a normalization or a Gelu, by which runtimes recognise them;
        - the folded weights would overflow their type, or lose precision in it.

    Safety:
        Numeric: rounding of the folded weights. Weights shared with other nodes are copied, not changed.
    """

    name = "fuse-affine-conv"
    safety = Safety.NUMERIC
    ops = ("Conv", "ConvTranspose", "Gemm", "MatMul")

    def match(self, node: ir.Node, context: Context) -> Match | Miss | None:
        source = context.producer(node.inputs[0], *_ARITHMETIC, "BatchNormalization")
        if source is None or context.constant(node.inputs[1]) is None:
            return None
        position = _variable(source, context)
        x = source.inputs[position] if position is not None else None
        if position is None or x is None:
            return None
        if source.graph is not node.graph or not context.only_reader(source.outputs[0], node):
            return Miss("the result of the arithmetic is read elsewhere", node)
        if _ends_a_pattern(x, context, _DEPTH):
            return Miss("it is the end of a normalization or a Gelu, by which runtimes recognise them", node)
        layer = _layer(node, x, context)
        affine = layer if isinstance(layer, str) else _affine(source, position, layer, context)
        if isinstance(layer, str) or isinstance(affine, str):
            return Miss(layer if isinstance(layer, str) else str(affine), node)
        folded = layer.fold(*affine)
        if isinstance(folded, str):
            return Miss(folded, node)
        weight, bias = folded
        return Match(node, build=lambda builder: [_build(builder, node, x, weight, bias)])


def _variable(source: ir.Node, context: Context) -> int | None:
    """Which operand is no constant, if the other is, and if there is an affine form."""
    if source.op_type == "BatchNormalization":
        return 0
    constant = [context.constant(value) is not None for value in source.inputs]
    if sum(constant) != 1 or (source.op_type == "Div" and constant[0]) or context.opset(source) < 7:
        return None
    return constant.index(False)


def _ends_a_pattern(value: ir.Value, context: Context, depth: int) -> bool:
    """Whether arithmetic of two variables lies directly above, but for arithmetic with constants."""
    node = context.producer(value, *_ARITHMETIC)
    if node is None or depth == 0:
        return False
    position = _variable(node, context)
    if position is None:
        return node.op_type in ("Mul", "Div")
    operand = node.inputs[position]
    return operand is not None and _ends_a_pattern(operand, context, depth - 1)


@dataclasses.dataclass(frozen=True)
class _Layer:
    """A linear layer with constant operands.

    Attributes:
        node: The node.
        weight: Its weight as it is.
        rows: The weight as ``(groups, outputs a group, inputs a group, window)``.
        bias: ``(outputs,)``.
        channels: How many input channels it has.
        rank: How many axes its input has.
        axis: Which of them are the channels.
        refusal: Why nothing may be added to the input; ``None`` if something may.
    """

    node: ir.Node
    weight: npt.NDArray[Any]
    rows: npt.NDArray[Any]
    bias: Floats
    channels: int
    rank: int
    axis: int
    refusal: str | None

    def fold(self, scale: Floats, shift: Floats) -> tuple[npt.NDArray[Any], npt.NDArray[Any] | None] | str:
        """Weight and bias (``None``: as it is) with scale and shift, each ``(channels,)``, of the input in them."""
        if np.any(shift) and self.refusal is not None:
            return self.refusal
        weight = scaled(self.weight, self._along_input(scale))
        if not fits(self.weight, weight):
            return "the folded weights do not fit their type"
        if not np.any(shift):
            return weight, None
        rows = self.rows if self.rows.dtype.kind == "f" else np.asarray(self.rows, np.float32)
        added = np.einsum("goiw,gi->go", rows, shift.reshape(len(rows), -1), dtype=np.float64)
        with np.errstate(over="ignore"):
            bias = (self.bias + added.reshape(-1)).astype(weight.dtype)
        if not np.all(np.isfinite(np.asarray(bias, np.float64))):
            return "the folded weights do not fit their type"
        return weight, bias

    def _along_input(self, scale: Floats) -> Floats:
        """``scale`` shaped to multiply the weight along its input channels."""
        window = [1] * (self.weight.ndim - 2)
        if self.node.op_type == "ConvTranspose":
            return scale.reshape(-1, 1, *window)
        if self.node.op_type == "Conv":
            groups, outputs, inputs, _ = self.rows.shape
            return np.repeat(scale.reshape(groups, inputs), outputs, axis=0).reshape(-1, inputs, *window)
        return scale[None, :] if self.node.attributes.get_int("transB", False) else scale[:, None]


def _layer(node: ir.Node, x: ir.Value, context: Context) -> _Layer | str:
    weight, shape = context.array(node.inputs[1]), context.shapes.of(x)
    tensor = context.constant(node.inputs[1])
    if weight is None or tensor is None or tensor.dtype not in FLOAT_TYPES:
        return "the weight is not of a floating-point type"
    if shape is None or len(shape) < 2:
        return "the shape of the operand is not known"
    axis, rows, refusal = len(shape) - 1, weight, None
    if node.op_type in ("Conv", "ConvTranspose"):
        axis, refusal = 1, _padding(node)
        groups = node.attributes.get_int("group", 1)
        rows = weight.reshape(groups, len(weight) // groups, weight.shape[1], -1)
        rows = rows.transpose(0, 2, 1, 3) if node.op_type == "ConvTranspose" else rows
    elif weight.ndim != 2 or node.attributes.get_int("transA", False) or node.attributes.get_float("alpha", 1.0) != 1:
        return "the product is not of rows with a matrix"
    else:
        rows = (weight if node.attributes.get_int("transB", False) else weight.T)[None, :, :, None]
        refusal = "a MatMul has no bias" if node.op_type == "MatMul" else None
    channels = len(rows) * rows.shape[2]
    if shape[axis] != channels:
        return "the number of channels is not known"
    bias = _bias(node, len(rows) * rows.shape[1], context)
    if bias is None:
        return "the bias is not constant, or not one number a channel"
    return _Layer(node, weight, rows, bias, channels, len(shape), axis, refusal)


def _padding(node: ir.Node) -> str | None:
    if node.op_type == "ConvTranspose":
        return "a ConvTranspose adds up less at the border"
    if any(node.attributes.get_ints("pads", ())) or node.attributes.get_string("auto_pad", "NOTSET").startswith("SAME"):
        return "the layer pads with zeros, to which nothing was added"
    return None


def _bias(node: ir.Node, outputs: int, context: Context) -> Floats | None:
    value = node.inputs[2] if len(node.inputs) > 2 else None
    if value is None:
        return np.zeros(outputs)
    tensor = context.constant(value)
    if tensor is None:
        return None
    if node.op_type != "Gemm":
        return np.asarray(tensor.numpy(), np.float64)
    vector = channel_vector(tensor, outputs, 2)
    return None if vector is None or node.attributes.get_float("beta", 1.0) != 1 else vector


def _affine(source: ir.Node, position: int, layer: _Layer, context: Context) -> tuple[Floats, Floats] | str:
    if source.op_type == "BatchNormalization":
        found = batchnorm_affine(source, context)
        if layer.axis != 1:
            return "the BatchNormalization is over another axis"
    else:
        tensor = context.constant(source.inputs[1 - position])
        vector = channel_vector(tensor, layer.channels, layer.rank, layer.axis) if tensor is not None else None
        if vector is None:
            return "the constant varies along another axis than the channels"
        found = affine_of(source.op_type, vector, position)
    if isinstance(found, str):
        return found
    if len(found[0]) != layer.channels or not all(np.all(np.isfinite(one)) for one in found):
        return "the constant is not finite, or divides by zero"
    return found


def _build(
    builder: Builder, node: ir.Node, x: ir.Value, weight: npt.NDArray[Any], bias: npt.NDArray[Any] | None
) -> ir.Value:
    old_weight, old_bias = [*node.inputs[1:], None][:2]
    assert old_weight is not None
    inputs = [x, builder.constant(weight, old_weight.name), old_bias]
    if bias is not None:
        inputs[2] = builder.constant(bias, old_bias.name if old_bias is not None else f"{node.name or 'layer'}_bias")
    return builder.like(node, inputs if inputs[2] is not None else inputs[:2])
