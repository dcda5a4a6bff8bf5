"""Per-channel arithmetic on convolutions and fully connected layers, shared by the passes that fuse into them."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from graphopt.pipeline.base import Context
from graphopt.rewrite.builder import Builder
from graphopt.rewrite.match import Rewrite
from graphopt_passes._floats import FLOAT_TYPES, smallest_normal

__all__ = [
    "LINEAR_OPS",
    "Floats",
    "Layers",
    "affine_of",
    "batchnorm_affine",
    "channel_vector",
    "fits",
    "layers_of",
    "scale_output_channels",
    "scaled",
]

Floats = npt.NDArray[np.float64]
LINEAR_OPS = ("Conv", "ConvTranspose", "Gemm")

_SLAB = 1 << 20  # elements computed in float64 at a time


def batchnorm_affine(node: ir.Node, context: Context) -> tuple[Floats, Floats] | str:
    """The inference form of a BatchNormalization, ``y = x * scale + shift``.

    Returns:
        Scale and shift, each ``(C,)`` in float64; or why there is no such form.
    """
    if context.opset(node) < 7:
        return "BatchNormalization before opset 7 may train"
    if node.attributes.get_int("training_mode", 0) or any(output.uses() for output in node.outputs[1:]):
        return "the BatchNormalization trains"
    if context.opset(node) < 14 and any(output.name for output in node.outputs[1:]):
        return "the BatchNormalization trains"
    if not node.attributes.get_int("spatial", 1):
        return "the BatchNormalization has statistics per activation"
    arrays = [context.array(value) for value in node.inputs[1:5]]
    if len(arrays) != 4 or any(one is None for one in arrays):
        return "a BatchNormalization statistic is not constant"
    scale, bias, mean, var = (np.asarray(one, np.float64) for one in arrays)
    if len({one.shape for one in (scale, bias, mean, var)}) != 1 or scale.ndim != 1:
        return "the BatchNormalization statistics differ in shape"
    spread = var + node.attributes.get_float("epsilon", 1e-5)
    if not (spread > 0).all() or not np.isfinite(spread).all():
        return "a BatchNormalization variance is not positive"
    scale = scale / np.sqrt(spread)
    return scale, bias - mean * scale


def affine_of(op_type: str, operand: Floats, position: int) -> tuple[Floats, Floats]:
    """Scale and shift, each ``(C,)``, of Add, Sub, Mul or Div with ``operand`` where the variable is at ``position``.

    A division by the variable has no such form.
    """
    ones, zeros = np.ones_like(operand), np.zeros_like(operand)
    if op_type == "Mul":
        return operand, zeros
    if op_type == "Add":
        return ones, operand
    if op_type == "Sub":
        return (ones, -operand) if position == 0 else (-ones, operand)
    with np.errstate(divide="ignore"):
        return 1 / operand, zeros


def fits(old: npt.NDArray[Any], new: npt.NDArray[Any]) -> bool:
    """Whether weights that took the place of ``old`` are finite and as a whole still normal numbers of their type."""
    was, largest = (float(max(one.max(initial=0), -one.min(initial=0))) for one in (old, new))
    return bool(np.isfinite(largest)) and (largest >= smallest_normal(new.dtype) or largest == was or was == 0)


def output_channels(linear: ir.Node, context: Context) -> tuple[int, int] | str:
    """Number of output channels and rank of the result of a linear op with a constant weight of floats."""
    weight = context.constant(linear.inputs[1])
    if weight is None:
        return "the weight is not constant"
    if weight.dtype not in FLOAT_TYPES:
        return "the weight is not of a floating-point type"
    shape = weight.shape.numpy()
    if linear.op_type == "Gemm":
        return shape[0 if linear.attributes.get_int("transB", 0) else 1], 2
    group = linear.attributes.get_int("group", 1)
    return (shape[1] * group if linear.op_type == "ConvTranspose" else shape[0]), len(shape)


@dataclasses.dataclass(frozen=True)
class Layers:
    """What gives a value: a convolution or fully connected layer, or several whose channels a Concat puts together.

    Attributes:
        nodes: The layers, in the order of their channels.
        channels: How many each has.
        rank: How many axes the result has.
        concat: What puts several together.
    """

    nodes: Sequence[ir.Node]
    channels: Sequence[int]
    rank: int
    concat: ir.Node | None

    def scaled(self, scale: Floats, shift: Floats, context: Context) -> Rewrite | str:
        """Rewrites the layers so that they give their result times ``scale`` plus ``shift``, each ``(C,)``."""
        if len(scale) != sum(self.channels):
            return "the channels do not fit"
        builds: list[Rewrite] = []
        for node, count, end in zip(self.nodes, self.channels, itertools.accumulate(self.channels), strict=True):
            own = slice(end - count, end)
            build = scale_output_channels(node, scale[own], shift[own], context)
            if isinstance(build, str):
                return build
            builds.append(build)
        concat = self.concat
        if concat is None:
            return builds[0]
        return lambda builder: [builder.like(concat, [build(builder)[0] for build in builds])]


def layers_of(value: ir.Value | None, reader: ir.Node, context: Context) -> Layers | str | None:
    """The layers that compute ``value`` for ``reader`` alone.

    Returns:
        The layers; why they may not be changed; ``None`` if something else computes the value.
    """
    concat = context.producer(value, "Concat")
    last = concat if concat is not None else reader
    operands = concat.inputs if concat is not None else [value]
    nodes = [node for one in operands if (node := context.producer(one, *LINEAR_OPS)) is not None]
    if len(nodes) < len(operands) or not nodes:
        return None
    alone = all(context.only_reader(node.outputs[0], last) and node.graph is reader.graph for node in nodes)
    if not alone or (concat is not None and context.producer(value, reader=reader) is None):
        return "the convolution's result is read elsewhere"
    found = [output_channels(node, context) for node in nodes]
    refusal = next((one for one in found if isinstance(one, str)), None)
    if refusal is not None:
        return refusal
    counts, ranks = zip(*(one for one in found if not isinstance(one, str)), strict=True)
    if concat is not None and concat.attributes.get_int("axis", 1) not in (1, 1 - ranks[0]):
        return None
    return Layers(nodes, counts, ranks[0], concat)


def channel_vector(tensor: ir.TensorProtocol, channels: int, rank: int, axis: int = 1) -> Floats | None:
    """A tensor that broadcasts over ``(N, channels, ...)`` as one number a channel, as ``(channels,)``.

    The trap: ``(8,)`` against ``(N, 8, 8, 8)`` lies along the width, not the channels. So the axes are aligned from
    the right, as broadcasting does, and everything but axis 1 must be 1. Nothing that would make the result larger
    passes: no more axes than ``rank``, no more channels than there are.
    """
    shape = tensor.shape.numpy()
    if len(shape) > rank:
        return None
    aligned = [*[1] * (rank - len(shape)), *shape]
    if aligned.pop(axis) not in (1, channels) or any(size != 1 for size in aligned):
        return None
    return np.broadcast_to(np.asarray(tensor.numpy(), np.float64).reshape(-1), (channels,))


def scale_output_channels(linear: ir.Node, scale: Floats, shift: Floats, context: Context) -> Rewrite | str:
    """Rewrites ``linear`` so that it computes ``linear(x) * scale + shift``.

    Args:
        linear: A Conv, ConvTranspose or Gemm.
        scale: Factor by output channel, ``(C,)``.
        shift: Summand by output channel, ``(C,)``.
        context: What is known of the model.

    Returns:
        A rewrite that yields the new node's output, or why there is none.
    """
    found = output_channels(linear, context)
    if isinstance(found, str):
        return found
    channels, _ = found
    if scale.shape != (channels,) or shift.shape != (channels,):
        return "the channels do not fit"
    weight_value, bias_value = linear.inputs[1], linear.inputs[2] if len(linear.inputs) > 2 else None
    tensor = context.constant(weight_value)
    assert weight_value is not None
    assert tensor is not None
    old_bias = _bias(linear, bias_value, channels, context)
    if isinstance(old_bias, str):
        return old_bias
    old_weight = tensor.numpy()
    weight = old_weight if (scale == 1).all() else scaled(old_weight, _along_output(linear, scale, old_weight.shape))
    with np.errstate(over="ignore"):
        bias = (old_bias * scale + shift).astype(old_weight.dtype.newbyteorder("="))
    if not _keeps_precision(linear, old_weight, weight, scale) or not np.isfinite(bias).all():
        return "the scaled weights do not fit their type"

    def build(builder: Builder) -> list[ir.Value | None]:
        inputs = [linear.inputs[0], weight_value]
        if weight is not old_weight:
            inputs[1] = builder.constant(weight, weight_value.name)
        if bias_value is not None or np.any(bias) or _needs_bias(linear, context):
            name = bias_value.name if bias_value is not None else f"{linear.name or linear.op_type}_bias"
            inputs.append(builder.constant(bias, name))
        attributes = {"beta": None} if linear.op_type == "Gemm" else None
        return [builder.like(linear, inputs, attributes)]

    return build


def _needs_bias(linear: ir.Node, context: Context) -> bool:
    return linear.op_type == "Gemm" and context.opset(linear) < 11


def _bias(linear: ir.Node, value: ir.Value | None, channels: int, context: Context) -> Floats | str:
    if value is None:
        return np.zeros(channels)
    tensor = context.constant(value)
    if tensor is None:
        return "the bias is not constant"
    if linear.op_type == "Gemm":
        vector = channel_vector(tensor, channels, 2)
        return "the Gemm's bias varies over the batch" if vector is None else _beta(linear) * vector
    if tensor.shape.numpy() != (channels,):
        return "the bias is not one number a channel"
    return np.asarray(tensor.numpy(), np.float64)


def _beta(gemm: ir.Node) -> float:
    return gemm.attributes.get_float("beta", 1.0)


def scaled(weight: npt.NDArray[Any], factor: Floats) -> npt.NDArray[Any]:
    """``weight * factor`` in float64, stored in the weight's dtype; a slab at a time, to need little memory."""
    kind = weight.dtype.newbyteorder("=")
    if weight.size <= _SLAB:
        with np.errstate(over="ignore"):
            return (np.asarray(weight, np.float64) * factor).astype(kind)
    factor = np.broadcast_to(factor, weight.shape)
    product = np.empty(weight.shape, kind)
    step = max(1, _SLAB * len(weight) // max(1, weight.size))
    with np.errstate(over="ignore"):
        for start in range(0, len(weight), step):
            slab = slice(start, start + step)
            product[slab] = np.asarray(weight[slab], np.float64) * factor[slab]
    return product


def _keeps_precision(linear: ir.Node, old: npt.NDArray[Any], new: npt.NDArray[Any], scale: Floats) -> bool:
    """Whether no channel overflows, and none falls below the normal numbers of the type, where bits get lost.

    Matters for half precision: a BatchNormalization with a tiny variance scales by thousands.
    """
    if new is old:
        return True
    rows = _by_channel(linear, new, len(scale))
    largest = np.maximum(rows.max(axis=1, initial=0), -rows.min(axis=1, initial=0)).astype(np.float64)
    if not np.isfinite(largest).all():
        return False
    fell = (largest < smallest_normal(new.dtype)) & (scale != 0)
    return not fell.any() or not np.abs(_by_channel(linear, old, len(scale))[fell]).max(initial=0) > 0


def _by_channel(linear: ir.Node, weight: npt.NDArray[Any], channels: int) -> npt.NDArray[Any]:
    """The weight with one row an output channel."""
    if linear.op_type == "Gemm":
        return weight if linear.attributes.get_int("transB", 0) else weight.T
    if linear.op_type == "Conv":
        return weight.reshape(channels, -1)
    group = linear.attributes.get_int("group", 1)
    rows, columns = weight.shape[:2]
    grouped = weight.reshape(group, rows // group, columns, -1)
    return grouped.transpose(0, 2, 1, 3).reshape(channels, -1)


def _along_output(linear: ir.Node, scale: Floats, shape: tuple[int, ...]) -> Floats:
    """``scale`` shaped to multiply a weight of ``shape`` along its output channels."""
    if linear.op_type == "Gemm":
        return scale[:, None] if linear.attributes.get_int("transB", 0) else scale[None, :]
    if linear.op_type == "Conv":
        return scale.reshape(-1, *[1] * (len(shape) - 1))
    group = linear.attributes.get_int("group", 1)
    by_row = np.repeat(scale.reshape(group, -1), shape[0] // group, axis=0)
    return by_row.reshape(shape[0], shape[1], *[1] * (len(shape) - 2))
