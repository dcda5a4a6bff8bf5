"""Slices of constants in which all elements are one number, found without reading weights that have none."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from graphopt import walk
from graphopt.analysis import constants

__all__ = ["has_zero_slices", "of_all", "uniform"]

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]

# Where, as fractions of each axis, elements of a slice are looked at before all of them.
_PROBES = tuple(np.random.default_rng(0).random((8, count)) for count in (2, 64))
_CHUNK = 1 << 22  # elements
_INTEGERS = frozenset({ir.DataType.INT8, ir.DataType.UINT8, ir.DataType.INT32, ir.DataType.INT64})
_NUMBERS = constants.FLOAT_TYPES | _INTEGERS


def uniform(tensor: ir.TensorProtocol | Array, axis: int) -> Floats:
    """The number that all elements at each place of an axis are; NaN where they differ.

    A few elements of each slice tell most that have more than one number; only the others are read, in chunks.
    """
    if not isinstance(tensor, np.ndarray):
        if tensor.dtype not in _NUMBERS:
            return np.full(tensor.shape.numpy()[axis], np.nan)
        tensor = tensor.numpy()
    slices = tensor.swapaxes(axis, 0)
    others = slices.shape[1:]
    if not slices.size:
        return np.full(len(slices), np.nan)
    first = _firsts(slices, 0)
    left = np.arange(len(slices))
    if math.prod(others) > 1:
        for some in _PROBES:
            probes = [(some[place % len(some)] * size).astype(np.int64) for place, size in enumerate(others)]
            left = left[(slices[(left[:, None], *probes)] == first[left, None]).all(axis=1)]
        left = left[[bool(_is_all(slices[place], first[place])) for place in left.tolist()]]
    result = np.full(len(slices), np.nan)
    numbers = first[left].astype(np.float64)
    result[left] = np.where(np.isfinite(numbers), numbers, np.nan)
    return result


def of_all(tensor: ir.TensorProtocol) -> Floats:
    """The number that all elements are, ``(1,)``; NaN where they differ."""
    if tensor.dtype not in _NUMBERS or not tensor.size:
        return np.full(1, np.nan)
    return uniform(tensor.numpy().reshape(1, -1), 0)


def _is_all(part: Array, number: Any) -> bool:
    """Whether all elements are one number; reads a chunk at a time."""
    if part.size <= _CHUNK or not part.ndim:
        return bool((part == number).all())
    step = max(1, _CHUNK * len(part) // part.size)
    return all(_is_all(part[start : start + step], number) for start in range(0, len(part), step))


_WEIGHTS: Mapping[str, Sequence[int]] = {
    **dict.fromkeys(
        ("Conv", "ConvTranspose", "ConvInteger", "Gemm", "MatMulInteger", "com.microsoft::Attention"), (1,)
    ),
    **dict.fromkeys(("MatMul", "com.microsoft::FusedMatMul"), (0, 1)),
    **dict.fromkeys(("QLinearConv", "QLinearMatMul"), (3,)),
    **dict.fromkeys(("GRU", "LSTM", "RNN"), (1, 2)),
    **dict.fromkeys(("DequantizeLinear", "Gather", "Transpose"), (0,)),
    **dict.fromkeys(
        ("BatchNormalization", "GroupNormalization", "InstanceNormalization", "LayerNormalization", "RMSNormalization"),
        (1,),
    ),
    "Einsum": (0, 1, 2),
    "Mul": (0, 1),
}
"""Inputs whose zero slices may make lanes dead."""


def has_zero_slices(model: ir.Model) -> bool:
    """Whether any weight has a slice of zeros, without which nothing can be dead.

    Says nothing of weights inside functions. Looks at a few elements of each slice, and no more where those are not
    zero.
    """
    seen: set[ir.Value] = set()
    for scope in walk.scopes(model):
        for node in scope.graph:
            operator = f"{node.domain}::{node.op_type}" if node.domain else node.op_type
            for index in _WEIGHTS.get(operator, ()):
                value = node.inputs[index] if index < len(node.inputs) else None
                tensor = constants.constant(value)
                if value is None or tensor is None or value in seen:
                    continue
                seen.add(value)
                if _is_suspect(tensor, node.op_type):
                    return True
    return False


def _is_suspect(tensor: ir.TensorProtocol, op_type: str) -> bool:
    shape = tensor.shape.numpy()
    if tensor.dtype not in constants.FLOAT_TYPES and (
        tensor.dtype not in _INTEGERS or op_type in ("Gather", "Mul", "Transpose")
    ):
        return False
    if op_type == "Mul" and max(shape, default=1) != math.prod(shape):
        return False  # no weight, and what varies along several axes zeroes no lane
    if op_type in ("Conv", "ConvTranspose", "ConvInteger", "QLinearConv"):
        axes = [axis for axis, size in enumerate(shape[:2]) if size > 1]
    elif op_type == "Gather":  # the row of padding is zero in most tables
        axes = [axis for axis in range(1, len(shape)) if shape[axis] > 1]
    else:
        axes = [axis for axis, size in enumerate(shape) if size > 1]
    if tensor.dtype in _INTEGERS and len(shape) > 1:  # zero is what the zero point says
        return any(np.isfinite(uniform(tensor, axis)).any() for axis in axes)
    array = tensor.numpy()
    # Most weights are done with after one element of each slice.
    return any(not _firsts(array, axis).all() and (uniform(array, axis) == 0).any() for axis in axes)


def _firsts(array: Array, axis: int) -> Array:
    """The first element of each slice."""
    corner: Any = [slice(None) if place == axis else 0 for place in range(array.ndim)]
    firsts: Array = array[tuple(corner)]
    return firsts
