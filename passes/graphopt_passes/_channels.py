"""Per-channel arithmetic on convolutions and fully connected layers, shared by the passes that fuse into them."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from graphopt.pipeline.base import Context
from graphopt.rewrite.builder import Builder
from graphopt.rewrite.match import Rewrite

__all__ = ["LINEAR_OPS", "Floats", "batchnorm_affine", "channel_vector", "scale_output_channels"]

Floats = npt.NDArray[np.float64]
LINEAR_OPS = ("Conv", "ConvTranspose", "Gemm")


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
    if not np.all(spread > 0) or not np.all(np.isfinite(spread)):
        return "a BatchNormalization variance is not positive"
    scale = scale / np.sqrt(spread)
    return scale, bias - mean * scale


def output_channels(linear: ir.Node, context: Context) -> tuple[int, int] | str:
    """Number of output channels and rank of the result of a linear op with a constant weight."""
    weight = context.constant(linear.inputs[1])
    if weight is None:
        return "the weight is not constant"
    shape = weight.shape.numpy()
    if linear.op_type == "Gemm":
        return shape[0 if linear.attributes.get_int("transB", 0) else 1], 2
    group = linear.attributes.get_int("group", 1)
    return (shape[1] * group if linear.op_type == "ConvTranspose" else shape[0]), len(shape)


def channel_vector(contents: npt.NDArray[Any], channels: int, rank: int) -> Floats | None:
    """A tensor that broadcasts over ``(N, channels, ...)`` as one number a channel, as ``(channels,)``.

    The trap: ``(8,)`` against ``(N, 8, 8, 8)`` lies along the width, not the channels. So the axes are aligned from
    the right, as broadcasting does, and everything but axis 1 must be 1.
    """
    shape = (1,) * (rank - contents.ndim) + contents.shape
    if len(shape) != rank or shape[1] not in (1, channels) or any(size != 1 for size in (shape[0], *shape[2:])):
        return None
    return np.broadcast_to(np.asarray(contents, np.float64).reshape(-1), (channels,))


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
    bias_value = linear.inputs[2] if len(linear.inputs) > 2 else None
    bias = _bias(linear, bias_value, channels, context)
    if isinstance(bias, str):
        return bias

    def build(builder: Builder) -> list[ir.Value | None]:
        old_weight = linear.inputs[1]
        tensor = context.constant(old_weight)
        assert old_weight is not None and tensor is not None
        weight = tensor.numpy()
        inputs = [linear.inputs[0], old_weight]
        if not np.all(scale == 1):
            scaled = (np.asarray(weight, np.float64) * _along_output(linear, scale, weight.shape)).astype(weight.dtype)
            inputs[1] = builder.constant(scaled, old_weight.name)
        name = bias_value.name if bias_value is not None else f"{linear.name or linear.op_type}_bias"
        inputs.append(builder.constant((bias * scale + shift).astype(weight.dtype), name))
        attributes = {"beta": 1.0} if linear.op_type == "Gemm" else None
        return [builder.like(linear, inputs, attributes)]

    return build


def _bias(linear: ir.Node, value: ir.Value | None, channels: int, context: Context) -> Floats | str:
    if value is None:
        return np.zeros(channels)
    contents = context.array(value)
    if contents is None:
        return "the bias is not constant"
    if linear.op_type != "Gemm":
        return np.asarray(contents, np.float64)
    vector = channel_vector(contents, channels, 2) if contents.ndim <= 2 else None
    if vector is None:
        return "the Gemm's bias varies over the batch"
    return vector * linear.attributes.get_float("beta", 1.0)


def _along_output(linear: ir.Node, scale: Floats, shape: tuple[int, ...]) -> Floats:
    """``scale`` shaped to multiply a weight of ``shape`` along its output channels."""
    if linear.op_type == "Gemm":
        return scale[:, None] if linear.attributes.get_int("transB", 0) else scale[None, :]
    if linear.op_type == "Conv":
        return scale.reshape(-1, *[1] * (len(shape) - 1))
    group = linear.attributes.get_int("group", 1)
    by_row = np.repeat(scale.reshape(group, -1), shape[0] // group, axis=0)
    return by_row.reshape(shape[0], shape[1], *[1] * (len(shape) - 2))
