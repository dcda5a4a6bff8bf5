"""Quantization and integer arithmetic (ONNX: QuantizeLinear, DequantizeLinear, QLinear*, *Integer)."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import onnx_ir as ir
import torch
from torch import Tensor

from graphopt.analysis import constants
from graphopt.torch.node import OpNode
from graphopt.torch.ops.convolution import convolve
from graphopt.torch.registry import builds, op
from graphopt.torch.values import torch_dtype

__all__ = ["dequantized", "kind_of", "layout", "quantized", "span"]

_BOUNDS = {
    ir.DataType.INT8: (-128, 127),
    ir.DataType.UINT8: (0, 255),
    ir.DataType.INT16: (-32768, 32767),
    ir.DataType.UINT16: (0, 65535),
    ir.DataType.INT32: (-(1 << 31), (1 << 31) - 1),
    ir.DataType.INT4: (-8, 7),
    ir.DataType.UINT4: (0, 15),
}
_REDUCED = {ir.DataType.INT8: (-64, 64), ir.DataType.UINT8: (0, 127)}  # as ONNX Runtime reduces ranges


def span(value: ir.Value | None) -> tuple[int, int] | None:
    """The least and the greatest integer that a value may hold; ``None`` where its type says nothing.

    A weight that keeps to 7 bits goes on doing so: more would overflow on x86 processors without VNNI.
    """
    kind = value.dtype if value is not None else None
    if kind is None:
        return None
    held = constants.array(value) if kind in _REDUCED else None
    if held is not None and held.size:
        low, high = _REDUCED[kind]
        if low <= held.min() and held.max() <= high:
            return low, high
    return _BOUNDS.get(kind)


def _spread(x: Tensor, parameter: Tensor, axis: int, block: int) -> Tensor:
    """A scale or zero point, in a shape that broadcasts against ``x``."""
    if block:
        axis = axis % x.ndim
        return parameter.repeat_interleave(block, axis).narrow(axis, 0, x.shape[axis])
    if parameter.numel() == 1 and parameter.ndim <= 1:
        return parameter.reshape(())
    shape = [1] * x.ndim
    shape[axis] = -1
    return parameter.reshape(shape)


def kind_of(node: ir.Node) -> ir.DataType | None:
    """What a QuantizeLinear gives; ``None`` if its zero point is computed and of no declared type."""
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        return node.inputs[2].dtype
    asked = node.attributes.get("output_dtype")
    return ir.DataType((asked.as_int() if asked is not None else 0) or ir.DataType.UINT8)


def _is_simulated(node: ir.Node | None) -> bool:
    """Whether a QuantizeLinear is there for its rounding only: every reader turns its integers into floats again."""
    if node is None or node.op_type != "QuantizeLinear" or node.domain:
        return False
    value = node.outputs[0]
    kind = kind_of(node)
    if value.is_graph_output() or kind not in _BOUNDS or kind == ir.DataType.INT32:  # float32 cannot hold int32
        return False
    return all(use.node.op_type == "DequantizeLinear" and use.idx == 0 for use in value.uses())


@builds("QuantizeLinear")
def quantize(node: OpNode) -> Callable[..., Tensor]:
    kind = kind_of(node.node)
    return functools.partial(
        _quantize,
        dtype=None if kind is None else torch_dtype(kind),
        bounds=None if kind is None else _BOUNDS.get(kind),
        **layout(node.node),
        simulated=_is_simulated(node.node),
    )


def _quantize(
    x: Tensor,
    scale: Tensor,
    zero: Tensor | None = None,
    *,
    dtype: torch.dtype | None,
    bounds: tuple[int, int] | None,
    axis: int,
    block: int,
    simulated: bool,
) -> Tensor:
    if dtype is None:
        assert zero is not None  # else it is uint8
        dtype = zero.dtype
    y = (x if x.is_floating_point() else x.to(scale.dtype)) / _spread(x, scale, axis, block)
    if dtype.is_floating_point:
        largest = torch.finfo(dtype).max
        y = y if zero is None else y + _spread(x, zero, axis, block).to(y.dtype)
        return y.float().clamp(-largest, largest).to(dtype)
    y = _round_straight_through(y) if simulated else torch.round(y)
    if zero is not None:
        y = y + _spread(x, zero, axis, block).to(y.dtype)
    wide = (y.double() if dtype == torch.int32 else y.float()).clamp(*bounds or _limits(dtype))
    return wide if simulated else wide.to(torch.int32).to(dtype)


def _round_straight_through(y: Tensor) -> Tensor:
    """Rounds; the gradient passes as if it did not (Bengio et al., arXiv 1308.3432).

    With the clamp that follows, gradients pass inside the range only; those by the scale are LSQ's (arXiv 1902.08153).
    """
    return y + (torch.round(y) - y).detach() if y.requires_grad else torch.round(y)


@builds("DequantizeLinear")
def dequantize(node: OpNode) -> Callable[..., Tensor]:
    quantized = node.node.inputs[0]
    kind = node.dtype(0)
    output_dtype = node.attribute("output_dtype", 0)
    return functools.partial(
        _dequantize,
        **layout(node.node),
        dtype=torch_dtype(output_dtype) if output_dtype else None,
        simulated=quantized is not None and _is_simulated(quantized.producer()),
        held=torch_dtype(kind) if kind is not None and kind in _BOUNDS else None,
        bounds=span(quantized),
    )


def dequantized(node: ir.Node, x: Tensor, scale: Tensor, zero: Tensor | None) -> Tensor:
    """What a DequantizeLinear makes of integers."""
    return _dequantize(x, scale, zero, **layout(node), dtype=None, simulated=False, held=None, bounds=None)


def quantized(x: Tensor, scale: Tensor, zero: Tensor | None, **settings: Any) -> Tensor:
    """The integers of which a DequantizeLinear makes floats as near to ``x`` as can be.

    Args:
        x: The floats.
        scale: Of the DequantizeLinear.
        zero: Likewise, if there is one.
        **settings: Its :func:`layout`; ``dtype`` and ``bounds`` of the integers, see :func:`span`.
    """
    return _quantize(x, scale, zero, **settings, simulated=False)


def layout(node: ir.Node) -> dict[str, Any]:
    """Along which axis a node's scales lie, and how many elements share one there."""
    axis, block = node.attributes.get("axis"), node.attributes.get("block_size")
    return {"axis": 1 if axis is None else axis.as_int(), "block": 0 if block is None else block.as_int()}


def _dequantize(
    x: Tensor,
    scale: Tensor,
    zero: Tensor | None = None,
    *,
    axis: int,
    block: int,
    dtype: torch.dtype | None,
    simulated: bool,
    held: torch.dtype | None,
    bounds: tuple[int, int] | None,
) -> Tensor:
    if x.dtype.is_floating_point and held is not None and not simulated:  # a weight in integers that trains
        x = _quantize(x, scale, zero, dtype=held, bounds=bounds, axis=axis, block=block, simulated=True)
        simulated = True
    work = torch.float32 if simulated or x.dtype.is_floating_point else torch.int32
    y = x.to(work)
    if zero is not None and (simulated or work == torch.int32):
        y = y - _spread(x, zero, axis, block).to(work)
    return (y.to(scale.dtype) * _spread(x, scale, axis, block)).to(dtype or scale.dtype)


@op("DynamicQuantizeLinear", since=11)
def dynamic_quantize(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    low, high = x.amin().clamp(max=0), x.amax().clamp(min=0)
    scale = (high - low) / 255
    zero = torch.round((0 - low) / torch.where(scale == 0, torch.ones_like(scale), scale)).clamp(0, 255)
    y = (torch.round(x / torch.where(scale == 0, torch.ones_like(scale), scale)) + zero).clamp(0, 255)
    return y.to(torch.uint8), scale, zero.to(torch.uint8)


def _centred(x: Tensor, zero: Tensor | None, *, rows: bool) -> Tensor:
    """Integers less their zero point, in float64, which holds the products exactly."""
    y = x.double()
    if zero is None:
        return y
    zero = zero.double()
    return y - (zero.unsqueeze(-1) if rows and zero.ndim == 1 and zero.numel() > 1 else zero)


@op("MatMulInteger", since=10)
def matmul_integer(a: Tensor, b: Tensor, a_zero: Tensor | None = None, b_zero: Tensor | None = None) -> Tensor:
    product = _centred(a, a_zero, rows=True) @ _centred(b, b_zero, rows=False)
    return product.to(torch.int64).to(torch.int32)


def _limits(dtype: torch.dtype) -> tuple[int, int]:
    limits = torch.iinfo(dtype)
    return limits.min, limits.max


@op("QLinearMatMul", since=10)
def q_linear_matmul(
    a: Tensor,
    a_scale: Tensor,
    a_zero: Tensor,
    b: Tensor,
    b_scale: Tensor,
    b_zero: Tensor,
    y_scale: Tensor,
    y_zero: Tensor,
) -> Tensor:
    product = _centred(a, a_zero, rows=True) @ _centred(b, b_zero, rows=False)
    left = a_scale.unsqueeze(-1) if a_scale.ndim == 1 and a_scale.numel() > 1 else a_scale
    y = torch.round(product * (left.double() * b_scale.double() / y_scale.double())) + y_zero.double()
    return y.clamp(*_limits(y_zero.dtype)).to(y_zero.dtype)


def _settings(node: OpNode) -> dict[str, Any]:
    return {
        "strides": node.attribute("strides", ()),
        "dilations": node.attribute("dilations", ()),
        "pads": node.attribute("pads", ()),
        "group": node.attribute("group", 1),
        "auto_pad": node.attribute("auto_pad", "NOTSET"),
    }


def _channels(zero: Tensor | None, rank: int) -> Tensor | None:
    return zero.reshape(-1, *[1] * (rank - 1)) if zero is not None and zero.numel() > 1 else zero


@builds("ConvInteger", since=10)
def conv_integer(node: OpNode) -> Callable[..., Tensor]:
    return functools.partial(_conv_integer, settings=_settings(node))


def _conv_integer(
    x: Tensor,
    w: Tensor,
    x_zero: Tensor | None = None,
    w_zero: Tensor | None = None,
    *,
    settings: dict[str, Any],
) -> Tensor:
    left = _centred(x, x_zero, rows=False)
    right = _centred(w, _channels(w_zero, w.ndim), rows=False)
    return convolve(left, right, None, **settings).to(torch.int64).to(torch.int32)


@builds("QLinearConv", since=10)
def q_linear_conv(node: OpNode) -> Callable[..., Tensor]:
    return functools.partial(_q_linear_conv, settings=_settings(node))


def _q_linear_conv(
    x: Tensor,
    x_scale: Tensor,
    x_zero: Tensor,
    w: Tensor,
    w_scale: Tensor,
    w_zero: Tensor,
    y_scale: Tensor,
    y_zero: Tensor,
    b: Tensor | None = None,
    *,
    settings: dict[str, Any],
) -> Tensor:
    left = _centred(x, x_zero, rows=False)
    right = _centred(w, _channels(w_zero, w.ndim), rows=False)
    product = convolve(left, right, None if b is None else b.double(), **settings)
    factor = x_scale.double() * w_scale.double().reshape(-1, *[1] * (w.ndim - 2)) / y_scale.double()
    y = torch.round(product * factor) + y_zero.double()
    return y.clamp(*_limits(y_zero.dtype)).to(y_zero.dtype)
