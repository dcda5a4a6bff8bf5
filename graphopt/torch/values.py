"""What flows between operators: tensors, lists of them, and sizes that stay Python integers.

A size that a graph computes (``Shape``, ``Gather``, ``Concat``, then ``Reshape``) is needed by the host. As a tensor on
an accelerator it would have to be waited for; as Python integers it costs nothing and ``torch.compile`` can trace it.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import numpy as np
import onnx_ir as ir
import torch

__all__ = ["DTYPES", "Ints", "Run", "Sizes", "from_ir", "ints", "number", "tensor", "to_numpy", "torch_dtype"]


class Ints(NamedTuple):
    """A scalar or vector of integers or truth values on the host.

    Attributes:
        values: The numbers.
        rank: 0 or 1.
        dtype: What a tensor of them would have.
    """

    values: tuple[Any, ...]
    rank: int = 1
    dtype: torch.dtype = torch.int64


Sizes: TypeAlias = Ints | torch.Tensor
"""Annotates a parameter of an operator that holds sizes, axes or positions: it gets what there is, unconverted."""


class Run(NamedTuple):
    """What an operator may want to know about a run.

    Attributes:
        training: Whether the module is in training mode.
        device: Where tensors go that are made from nothing.
    """

    training: bool
    device: torch.device


_D = ir.DataType
DTYPES: dict[ir.DataType, torch.dtype] = {
    _D.FLOAT: torch.float32,
    _D.DOUBLE: torch.float64,
    _D.FLOAT16: torch.float16,
    _D.BFLOAT16: torch.bfloat16,
    _D.INT8: torch.int8,
    _D.INT16: torch.int16,
    _D.INT32: torch.int32,
    _D.INT64: torch.int64,
    _D.UINT8: torch.uint8,
    _D.UINT16: torch.uint16,
    _D.UINT32: torch.uint32,
    _D.UINT64: torch.uint64,
    _D.BOOL: torch.bool,
    _D.COMPLEX64: torch.complex64,
    _D.COMPLEX128: torch.complex128,
    _D.FLOAT8E4M3FN: torch.float8_e4m3fn,
    _D.FLOAT8E4M3FNUZ: torch.float8_e4m3fnuz,
    _D.FLOAT8E5M2: torch.float8_e5m2,
    _D.FLOAT8E5M2FNUZ: torch.float8_e5m2fnuz,
    # torch has no type of these; the values fit
    _D.INT4: torch.int8,
    _D.UINT4: torch.uint8,
    _D.INT2: torch.int8,
    _D.UINT2: torch.uint8,
}
_BITS = {1: np.uint8, 2: np.uint16}


def torch_dtype(dtype: ir.DataType | int) -> torch.dtype | None:
    """torch's type for an ONNX element type; ``None`` where there is none (strings)."""
    return DTYPES.get(ir.DataType(dtype))


def from_ir(source: ir.TensorProtocol) -> torch.Tensor | None:
    """A copy of an ONNX tensor; ``None`` if torch has no such type."""
    dtype = DTYPES.get(source.dtype)
    if dtype is None:
        return None
    array = np.asarray(source.numpy())
    if source.dtype.bitwidth < 8:
        array = array.astype(np.int8 if source.dtype.is_signed() else np.uint8)
    elif array.dtype.kind == "V" or array.dtype.name.startswith(("bfloat", "float8")):
        array = array.view(_BITS[array.dtype.itemsize])
    array = np.array(array, array.dtype.newbyteorder("="), order="C")
    made = torch.from_numpy(array)
    return made if made.dtype == dtype else made.view(dtype)


def to_numpy(values: torch.Tensor) -> np.ndarray[Any, Any]:
    """A tensor as an array; types that NumPy lacks come as those of ml_dtypes."""
    values = values.detach().cpu().contiguous()
    name = str(values.dtype).removeprefix("torch.")
    if name != "bfloat16" and not name.startswith("float8"):
        return np.asarray(values.numpy())
    kind = next(ir_dtype for ir_dtype, dtype in DTYPES.items() if dtype == values.dtype).numpy()
    raw = values.view(torch.uint8 if values.element_size() == 1 else torch.int16)
    return np.asarray(raw.numpy().view(kind))


def tensor(value: Any, device: torch.device) -> Any:
    """Sizes as a tensor on ``device``; anything else as it is."""
    if not isinstance(value, Ints):
        return value
    if value.rank == 0:
        return torch.full((), value.values[0], dtype=value.dtype, device=device)
    return torch.tensor(list(value.values), dtype=value.dtype, device=device)


def ints(value: Sizes) -> list[int]:
    """Sizes as a list; a scalar as a list of one."""
    if isinstance(value, Ints):
        return list(value.values)
    found: list[int] = value.reshape(-1).tolist()
    return found


def number(value: Any) -> Any:
    """The single number that a tensor or Ints holds."""
    return value.values[0] if isinstance(value, Ints) else value.reshape(()).item()
