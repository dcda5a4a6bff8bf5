"""What readers hand over: named columns, one row a sample, read only where rows are asked for."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from graphopt.datasets.options import Options

if TYPE_CHECKING:
    from graphopt.verify.feeds import Feeds, Input

__all__ = ["LABELS", "Array", "Column", "Dataset", "Rows", "stream_rows"]

Array = np.ndarray[Any, Any]
Rows = npt.NDArray[np.intp]
"""Row numbers, ascending and none twice."""

LABELS: Final = "y"
"""The column that holds the labels, unless the model has an input of that name."""

_BLOCK: Final = 4 << 20  # bytes of a stream in memory at once


@dataclass(frozen=True, slots=True)
class Column:
    """One array of a dataset, its leading axis the samples; of rank 0 it is one value for all of them.

    Attributes:
        shape: Samples first.
        dtype: In native byte order.
        read: The given rows, as an array of the shape ``(len(rows), *shape[1:])``.
        once: Reading costs a pass over a whole file, so what was read is worth keeping.
        layout: ``nhwc`` where that is known of images; empty where the fit must tell.
        derived: The values were computed here, not given, and may become any type of their kind that the model takes.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    read: Callable[[Rows], Array]
    once: bool = False
    derived: bool = False
    layout: str = ""

    @classmethod
    def of(cls, array: Array, *, derived: bool = False) -> Column:
        """An array in memory, or mapped into it."""
        dtype = array.dtype.newbyteorder("=")

        def read(rows: Rows) -> Array:
            return np.asarray(array[rows] if array.ndim else array, dtype)

        return cls(array.shape, dtype, read, derived=derived)

    @classmethod
    def each(cls, count: int, shape: Sequence[int], dtype: npt.DTypeLike, make: Callable[[int], Array]) -> Column:
        """Rows that are made one by one, of ``shape`` without the samples."""
        kind = np.dtype(dtype)

        def read(rows: Rows) -> Array:
            made = np.empty((len(rows), *shape), kind)
            for position, row in enumerate(rows.tolist()):
                made[position] = make(row)
            return made

        return cls((count, *shape), kind, read)

    def bytes_of(self, rows: int) -> int:
        """What so many rows take in memory."""
        return rows * math.prod(self.shape[1:]) * self.dtype.itemsize


@dataclass(frozen=True, slots=True)
class Dataset:
    """Samples to calibrate or train with, not yet checked against a model: see :func:`graphopt.datasets.bind`.

    Attributes:
        name: Short, for reports.
        where: For messages: the path, or what else the caller would recognise.
        columns: Given the inputs that a model must be fed, the arrays by name. A column ``y`` holds the labels.
        options: The preprocessing.
        feeds: Instead of columns: whole feeds, each as the model takes it.
    """

    name: str
    where: str
    columns: Callable[[Sequence[Input]], Mapping[str, Column]]
    options: Options = field(default_factory=Options)
    feeds: Sequence[Feeds] | None = None


def stream_rows(file: IO[bytes], shape: Sequence[int], dtype: np.dtype[Any], rows: Rows) -> Array:
    """The wanted rows of an array that follows in a stream, in C order; the rest is passed over.

    Args:
        file: At the array's first byte.
        shape: Of the whole array.
        dtype: As stored.
        rows: Ascending.

    Raises:
        EOFError: The stream ends before the last wanted row.
    """
    size = math.prod(shape[1:]) * dtype.itemsize
    taken = np.empty((len(rows), *shape[1:]), dtype)
    flat = taken.reshape(len(rows), -1).view(np.uint8) if size and len(rows) else np.empty((0, 0), np.uint8)
    step = max(1, _BLOCK // max(1, size))
    start = done = 0
    while done < len(flat):
        count = min(step, shape[0] - start)
        block = file.read(count * size)
        if len(block) < count * size:
            raise EOFError(f"it ends in sample {start + len(block) // size} of {shape[0]}")
        stop = int(np.searchsorted(rows, start + count))
        flat[done:stop] = np.frombuffer(block, np.uint8).reshape(count, size)[rows[done:stop] - start]
        start, done = start + count, stop
    return taken.astype(dtype.newbyteorder("="), copy=False)
