"""Cast, CastLike, BitCast."""

from __future__ import annotations

import functools
from collections.abc import Callable

import onnx_ir as ir
import torch
from torch import Tensor

from graphopt.torch.node import OpNode
from graphopt.torch.registry import builds, op
from graphopt.torch.values import torch_dtype

__all__: list[str] = []

_FLOAT8 = frozenset({torch.float8_e4m3fn, torch.float8_e4m3fnuz, torch.float8_e5m2, torch.float8_e5m2fnuz})
_NARROW = frozenset({ir.DataType.INT4, ir.DataType.UINT4, ir.DataType.INT2, ir.DataType.UINT2})


@builds("Cast")
def cast(node: OpNode) -> Callable[..., Tensor]:
    wanted = node.attribute("to")
    return _to(node, getattr(ir.DataType, wanted) if isinstance(wanted, str) else ir.DataType(wanted))


@builds("CastLike", since=15)
def cast_like(node: OpNode) -> Callable[..., Tensor]:
    kind = node.dtype(1)
    if kind is None:
        return _like
    return functools.partial(_dropping, function=_to(node, kind))


def _to(node: OpNode, kind: ir.DataType) -> Callable[..., Tensor]:
    dtype = torch_dtype(kind)
    if dtype is None or node.dtype(0) == ir.DataType.STRING:
        raise node.refuse(f"torch has no elements of type {kind.name if dtype is None else 'STRING'}")
    if kind in _NARROW:
        return functools.partial(_to_few_bits, bits=kind.bitwidth, signed=kind.is_signed())
    if dtype in _FLOAT8:
        return functools.partial(_to_float8, dtype=dtype, saturate=bool(node.attribute("saturate", 1)))
    return functools.partial(_to_dtype, dtype=dtype)


def _dropping(x: Tensor, _: Tensor, *, function: Callable[..., Tensor]) -> Tensor:
    return function(x)


def _like(x: Tensor, y: Tensor) -> Tensor:
    return x.to(y.dtype)


def _to_dtype(x: Tensor, *, dtype: torch.dtype) -> Tensor:
    if x.is_floating_point() and not dtype.is_floating_point and dtype.itemsize < 4 and dtype != torch.bool:
        return x.to(torch.int32).to(dtype)  # what is out of range wraps
    return x.to(dtype)


def _to_few_bits(x: Tensor, *, bits: int, signed: bool) -> Tensor:
    low = torch.bitwise_and(x.to(torch.int32), (1 << bits) - 1)
    half = 1 << (bits - 1)
    return torch.where(low >= half, low - 2 * half, low).to(torch.int8) if signed else low.to(torch.uint8)


def _to_float8(x: Tensor, *, dtype: torch.dtype, saturate: bool) -> Tensor:
    largest = torch.finfo(dtype).max
    wide = x.to(torch.float32)
    if saturate:
        return torch.where(wide.isnan(), wide, wide.clamp(-largest, largest)).to(dtype)
    return wide.to(dtype)


@op("BitCast", since=26)
def bit_cast(x: Tensor, *, to: int) -> Tensor:
    dtype = torch_dtype(to)
    assert dtype is not None
    return x.contiguous().view(dtype)
