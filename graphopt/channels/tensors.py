"""Constants with lanes taken out or masked, read from the original when they are needed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from onnx_ir import _core

from graphopt.analysis import constants

__all__ = ["SlicedTensor", "sliced"]

_LAZY_FROM = 1 << 20  # bytes; smaller ones are made at once

Indices = npt.NDArray[np.int64]


class SlicedTensor(_core.TensorBase):
    """Some places of each axis of another tensor; holds no data, so that a save needs one tensor at a time."""

    __slots__ = ("_base", "_kept", "_shape")

    def __init__(self, base: ir.TensorProtocol, kept: Sequence[Indices | None]) -> None:
        super().__init__(name=base.name, doc_string=base.doc_string)
        self._base = base
        self._kept = tuple(kept)
        sizes = zip(base.shape.numpy(), self._kept, strict=True)
        self._shape = ir.Shape([size if one is None else len(one) for size, one in sizes])
        self._shape.freeze()

    @property
    def raw(self) -> npt.NDArray[Any]:
        """The array."""
        return self.numpy()

    @property
    def dtype(self) -> ir.DataType:  # type: ignore[override]
        """The element type."""
        return self._base.dtype

    @property
    def shape(self) -> ir.Shape:  # type: ignore[override]
        """The shape of what is left."""
        return self._shape

    def numpy(self) -> npt.NDArray[Any]:
        """A new array, in native byte order."""
        array = self._base.numpy()
        # The axis that loses most goes first, so that what is copied on the way is small.
        picks = [(len(one) / array.shape[axis], axis, one) for axis, one in enumerate(self._kept) if one is not None]
        for _, axis, one in sorted(picks, key=lambda pick: pick[:2]):
            array = array.take(one, axis)
        return np.ascontiguousarray(array, array.dtype.newbyteorder("="))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        array = self.numpy()
        return array if dtype is None else array.astype(dtype)

    def __dlpack__(self, *, stream: Any = None) -> Any:
        return self.numpy().__dlpack__(stream=stream)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.numpy().__dlpack_device__()

    def tobytes(self) -> bytes:
        """The bytes as ``raw_data`` holds them."""
        return ir.Tensor(self.numpy(), dtype=self.dtype).tobytes()


def sliced(tensor: ir.TensorProtocol, kept: Sequence[Indices | None]) -> ir.TensorProtocol:
    """A tensor of the places ``kept`` of each axis (``None``: all)."""
    lazy = SlicedTensor(tensor, kept)
    if lazy.nbytes >= _LAZY_FROM:
        return lazy
    if tensor.dtype.bitwidth < 8 or tensor.dtype == ir.DataType.STRING:
        return ir.Tensor(lazy.numpy(), dtype=tensor.dtype, name=tensor.name)
    return constants.tensor(lazy.numpy(), tensor.name)
