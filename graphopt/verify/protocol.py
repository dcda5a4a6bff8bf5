"""How the verifier and its worker talk: length-prefixed JSON with the arrays' bytes behind it, over pipes.

No pickle: a reply can never run code, and a half-written message is an error. Arrays travel as raw bytes, or, when
they are a slice of a file, as a reference that the worker maps.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from typing import IO, Any, Final

import numpy as np

__all__ = ["FileSlice", "Message", "receive", "send"]

Message = dict[str, Any]
"""Nested dicts and lists of JSON values, NumPy arrays and file slices."""

_LENGTH: Final = struct.Struct("<Q")
_CHUNK: Final = 1 << 24


@dataclass(frozen=True, slots=True)
class FileSlice:
    """A tensor that lies in a file: ``dtype`` is a NumPy or ml_dtypes name, ``offset`` in bytes."""

    path: str
    offset: int
    dtype: str
    shape: tuple[int, ...]


def send(stream: IO[bytes], message: Message) -> None:
    """Write one message."""
    arrays: list[np.ndarray[Any, Any]] = []
    header = json.dumps(_encode(message, arrays)).encode()
    stream.write(_LENGTH.pack(len(header)))
    stream.write(header)
    for array in arrays:
        view = memoryview(array.reshape(-1).view(np.uint8))  # type: ignore[arg-type]
        for start in range(0, len(view), _CHUNK):
            stream.write(view[start : start + _CHUNK])
    stream.flush()


def receive(stream: IO[bytes]) -> Message:
    """Read one message.

    Raises:
        EOFError: The other side has gone, before or in the middle of a message.
    """
    (length,) = _LENGTH.unpack(_exactly(stream, _LENGTH.size))
    message: Message = _decode(json.loads(_exactly(stream, length)), stream)
    return message


def _exactly(stream: IO[bytes], count: int) -> bytearray:
    data = bytearray(count)
    view, done = memoryview(data), 0
    while done < count:
        read = stream.readinto(view[done : done + _CHUNK])  # type: ignore[attr-defined]
        if not read:
            raise EOFError(f"the stream ended {count - done} bytes early")
        done += read
    return data


def _encode(value: Any, arrays: list[np.ndarray[Any, Any]]) -> Any:
    if isinstance(value, np.ndarray):
        if value.dtype.kind in "OUS":
            return {"$strings": [str(item) for item in value.ravel()], "shape": value.shape}
        arrays.append(np.ascontiguousarray(value))
        return {"$array": value.dtype.name, "shape": value.shape, "bytes": value.nbytes}
    if isinstance(value, FileSlice):
        return {"$file": value.path, "offset": value.offset, "dtype": value.dtype, "shape": value.shape}
    if isinstance(value, dict):
        return {key: _encode(item, arrays) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_encode(item, arrays) for item in value]
    return value


def _decode(value: Any, stream: IO[bytes]) -> Any:
    """Rebuild what :func:`_encode` took apart; the arrays are read in the order in which it met them."""
    if isinstance(value, list):
        return [_decode(item, stream) for item in value]
    if not isinstance(value, dict):
        return value
    if "$array" in value:
        return np.frombuffer(_exactly(stream, value["bytes"]), dtype_of(value["$array"])).reshape(value["shape"])
    if "$strings" in value:
        return np.array(value["$strings"], dtype=object).reshape(value["shape"])
    if "$file" in value:
        return _mapped(FileSlice(value["$file"], value["offset"], value["dtype"], tuple(value["shape"])))
    return {key: _decode(item, stream) for key, item in value.items()}


def dtype_of(name: str) -> np.dtype[Any]:
    """The dtype of a NumPy or ml_dtypes name."""
    try:
        return np.dtype(name)
    except TypeError:
        import ml_dtypes  # 20 ms, and few models need it

        dtype: np.dtype[Any] = np.dtype(getattr(ml_dtypes, name))
        return dtype


def _mapped(source: FileSlice) -> np.ndarray[Any, Any]:
    dtype = dtype_of(source.dtype)
    count = int(np.prod(source.shape, dtype=np.int64))
    if count == 0:
        return np.empty(source.shape, dtype)
    raw = np.memmap(source.path, np.uint8, "r", source.offset, (count * dtype.itemsize,))
    return np.asarray(raw).view(dtype).reshape(source.shape)
