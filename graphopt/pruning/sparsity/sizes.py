"""Bytes that zeros save: with a bitmap of what is not zero, and with gzip; encoded to be measured, not estimated."""

from __future__ import annotations

import dataclasses
import zlib
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from graphopt import proto

__all__ = ["Sizes", "encoded_bytes", "sizes"]

_LEVEL: Final = 6  # gzip's own default
_CHUNK: Final = 1 << 24


@dataclasses.dataclass(frozen=True, slots=True)
class Sizes:
    """Bytes of a model as a file.

    Attributes:
        file: With its weights inside.
        gzip: Compressed, at gzip's default level.
    """

    file: int
    gzip: int


def sizes(model: ir.Model) -> Sizes:
    """Writes a model to nowhere, and counts.

    Raises:
        ModelError: The model cannot be expressed in ONNX.
    """
    compressor = zlib.compressobj(_LEVEL, wbits=31)  # gzip's header and trailer
    total = compressed = 0
    for buffer in proto.to_buffers(model):
        total += len(buffer)
        view = memoryview(buffer)
        for at in range(0, len(buffer), _CHUNK):
            compressed += len(compressor.compress(view[at : at + _CHUNK]))
    return Sizes(total, compressed + len(compressor.flush()))


def encoded_bytes(array: npt.NDArray[Any]) -> int:
    """Bytes of an array as one bit for each place and the values that are not zero.

    For 2:4 that is as much as what NVIDIA's sparse tensor cores read: the values, and two bits for each.
    """
    present = array.reshape(-1) != 0
    return int(np.packbits(present).nbytes + array.reshape(-1)[present].nbytes)
