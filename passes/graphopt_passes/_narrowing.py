"""Constants in another float type: what does not fit is clamped or refused, and never becomes infinite."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

import ml_dtypes
import numpy as np
import onnx_ir as ir

from graphopt.analysis import constants

__all__ = ["Clamp", "Extent", "change_constant", "converted", "extent", "largest", "smallest"]

_CHUNK: Final = 1 << 20  # elements


class Extent(NamedTuple):
    """The finite numbers of a constant.

    Attributes:
        low: The least.
        high: The largest.
        tiny: The smallest magnitude that is not zero; infinite if there is none.
    """

    low: float
    high: float
    tiny: float

    @property
    def largest(self) -> float:
        """The largest magnitude."""
        return max(self.high, -self.low)


class Clamp(NamedTuple):
    """What becomes of finite numbers that a type does not have.

    Attributes:
        limit: Those beyond it become ``bound``.
        bound: A number.
        least: Those closer to zero, other than zero, become it.
    """

    limit: float
    bound: float
    least: float = 0.0


def largest(dtype: ir.DataType) -> float:
    """The largest number of a float type."""
    return float(ml_dtypes.finfo(dtype.numpy()).max)  # type: ignore[no-untyped-call]


def smallest(dtype: ir.DataType) -> float:
    """The smallest positive number of a float type."""
    return float(ml_dtypes.finfo(dtype.numpy()).smallest_subnormal)  # type: ignore[no-untyped-call]


def extent(tensor: ir.TensorProtocol) -> Extent:
    """What numbers a constant has, read in pieces."""
    low = high = 0.0
    tiny = float("inf")
    flat = tensor.numpy().reshape(-1)
    for start in range(0, flat.size, _CHUNK):
        piece = flat[start : start + _CHUNK].astype(np.float32, copy=False)
        piece = piece[np.isfinite(piece)]
        low, high = min(low, float(piece.min(initial=0))), max(high, float(piece.max(initial=0)))
        if flat.size <= _CHUNK:
            size = np.abs(piece)
            tiny = float(size.min(initial=tiny, where=size > 0))
    return Extent(low, high, tiny)


def converted(tensor: ir.TensorProtocol, dtype: ir.DataType, clamp: Clamp) -> ir.TensorProtocol:
    """A constant in another float type; a large one lies in a file that vanishes with it."""
    base = tensor.numpy()
    result = np.empty(base.shape, dtype.numpy())
    source, target = base.reshape(-1), result.reshape(-1)
    for start in range(0, source.size, _CHUNK):
        piece = source[start : start + _CHUNK].astype(np.float32)
        too_large = np.isfinite(piece) & (np.abs(piece) > clamp.limit)
        too_small = (piece != 0) & (np.abs(piece) < clamp.least)
        piece[too_large] = np.copysign(clamp.bound, piece[too_large])
        piece[too_small] = np.copysign(clamp.least, piece[too_small])
        target[start : start + _CHUNK] = piece.astype(result.dtype)
    return constants.tensor(result, tensor.name)


def change_constant(value: ir.Value, change: Callable[[ir.TensorProtocol], ir.TensorProtocol]) -> None:
    """Changes what an initializer, a Constant or a ConstantOfShape holds; anything else stays."""
    if value.const_value is not None and value.producer() is None:
        value.const_value = change(value.const_value)
    node = value.producer()
    if node is None or node.domain:
        return
    if node.op_type == "Constant":
        tensor = constants.tensor_of_constant_node(node)
        assert tensor is not None
        node.attributes.clear()
        node.attributes["value"] = ir.AttrTensor("value", change(tensor))
    elif node.op_type == "ConstantOfShape":
        fill = node.attributes.get("value")
        tensor = ir.tensor(np.zeros(1, np.float32)) if fill is None else fill.as_tensor()
        node.attributes["value"] = ir.AttrTensor("value", change(tensor))
