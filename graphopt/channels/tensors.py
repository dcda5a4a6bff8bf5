"""Constants with lanes taken out or masked, computed from the original whenever they are needed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from graphopt.analysis import constants
from graphopt.proto.tensors import ComputedTensor

__all__ = ["MaskedTensor", "SlicedTensor", "sliced"]

_LAZY_FROM = 1 << 20  # bytes; smaller ones are made at once

Indices = npt.NDArray[np.int64]


class SlicedTensor(ComputedTensor):
    """Some places of each axis of another tensor; holds no data, so that a save needs one tensor at a time.

    Args:
        base: The other tensor.
        kept: The places, one array an axis; ``None`` for all.
    """

    __slots__ = ("_base", "_kept")

    _base: ir.TensorProtocol
    _kept: tuple[Indices | None, ...]

    def __init__(self, base: ir.TensorProtocol, kept: Sequence[Indices | None]) -> None:
        if isinstance(base, SlicedTensor):  # of what is left of a tensor, take the tensor itself
            kept = [
                new if old is None else old if new is None else old[new]
                for old, new in zip(base._kept, kept, strict=True)
            ]
            base = base._base
        sizes = zip(base.shape.numpy(), kept, strict=True)
        shape = ir.Shape([size if one is None else len(one) for size, one in sizes])
        shape.freeze()
        super().__init__(base.dtype, shape, base.name, base.doc_string)
        self._base = base
        self._kept = tuple(kept)

    def numpy(self) -> npt.NDArray[Any]:
        """A new array."""
        array = self._base.numpy()
        # The axis that loses most goes first, so that what is copied on the way is small.
        picks = [
            (len(one) / max(1, array.shape[axis]), axis, one) for axis, one in enumerate(self._kept) if one is not None
        ]
        for _, axis, one in sorted(picks, key=lambda pick: pick[:2]):
            array = array.take(one, axis)
        return np.ascontiguousarray(array, array.dtype.newbyteorder("="))


class MaskedTensor(ComputedTensor):
    """Another tensor with some places of some axes filled with one number.

    Args:
        base: The other tensor.
        dead: The places, one array of booleans an axis; ``None`` for none.
        fill: The number, or an array of them that broadcasts to the tensor.
    """

    __slots__ = ("_base", "_dead", "_fill")

    def __init__(self, base: ir.TensorProtocol, dead: Sequence[npt.NDArray[np.bool_] | None], fill: Any = 0) -> None:
        shape = ir.Shape(base.shape.numpy())
        shape.freeze()
        super().__init__(base.dtype, shape, base.name, base.doc_string)
        self._base = base
        self._dead = tuple(dead)
        self._fill = fill

    def numpy(self) -> npt.NDArray[Any]:
        """A new array."""
        array = self._base.numpy()
        array = array.astype(array.dtype.newbyteorder("="))
        fill = np.broadcast_to(np.asarray(self._fill, array.dtype), array.shape)
        for axis, one in enumerate(self._dead):
            if one is not None:
                places = np.flatnonzero(one)
                moved = np.moveaxis(array, axis, 0)
                moved[places] = np.moveaxis(fill, axis, 0)[places]
        return array


def sliced(tensor: ir.TensorProtocol, kept: Sequence[Indices | None]) -> ir.TensorProtocol:
    """A tensor of the places ``kept`` of each axis (``None``: all)."""
    lazy = SlicedTensor(tensor, kept)
    if lazy.nbytes >= _LAZY_FROM:
        return lazy
    if tensor.dtype.bitwidth < 8 or tensor.dtype == ir.DataType.STRING:
        return ir.Tensor(lazy.numpy(), dtype=tensor.dtype, name=tensor.name)
    return constants.tensor(lazy.numpy(), tensor.name)
