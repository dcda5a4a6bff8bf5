"""Find the weights that a model keeps in other files, and map them into memory.

Only files in the model's folder (or below it) are opened: a location that is absolute, climbs out with ``..`` or
follows a symbolic link outside is refused, because a model from the internet must not read your files.
"""

from __future__ import annotations

import mmap
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from graphopt.errors import ModelError

if TYPE_CHECKING:
    import onnx

__all__ = ["ExternalFiles", "map_file"]


def map_file(descriptor: int) -> memoryview:
    """Map an open regular file for reading; the view keeps the file's content reachable even when it is unlinked."""
    if os.fstat(descriptor).st_size == 0:
        return memoryview(b"")
    return memoryview(mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ))


class ExternalFiles:
    """The data files of one model, each mapped once.

    Args:
        model: The absolute path of the model file. Where it is a symbolic link, locations may also be relative to
            the folder of the file it leads to: model hubs keep their caches so.
    """

    def __init__(self, model: Path) -> None:
        folders = (model.parent, Path(os.path.realpath(model)).parent)
        self._folders = tuple(dict.fromkeys(folders))
        self._roots = tuple(Path(os.path.realpath(folder)) for folder in self._folders)
        self._maps: dict[str, memoryview] = {}
        self.files: dict[str, int] = {}
        """The data files that tensors were found in, and their sizes."""

    def __call__(self, proto: onnx.TensorProto) -> memoryview:
        """The bytes of an external tensor.

        Raises:
            ModelError: The file cannot be read, may not be read, or does not hold what the tensor says.
        """
        entries = {entry.key: entry.value for entry in proto.external_data}
        location = entries.get("location", "")
        if location not in self._maps:
            self._maps[location] = self._open(location, proto.name)
        mapped = self._maps[location]
        offset = _count(entries, "offset", 0, proto.name)
        length = _count(entries, "length", len(mapped) - offset, proto.name)
        if length < 0 or offset + length > len(mapped):
            raise ModelError(
                f"tensor {proto.name!r} lies at bytes {offset} to {offset + max(length, 0)} of {location!r},"
                f" and that file has only {len(mapped)} bytes",
                hint="The data file is cut short or belongs to another model; fetch it again.",
            )
        if "length" not in entries:
            length = min(length, _needed(proto))
        return mapped[offset : offset + length]

    def _open(self, location: str, tensor: str) -> memoryview:
        path = self._locate(location, tensor)
        try:
            # a pipe must not keep us waiting for whoever writes to it
            descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0))
        except OSError as error:
            raise ModelError(
                f"the data of tensor {tensor!r} should be in {str(path)!r}, which cannot be read: {error.strerror}",
                hint="A model with external data needs its data files in the same folder.",
            ) from None
        try:
            state = os.fstat(descriptor)
            if not stat.S_ISREG(state.st_mode):
                raise ModelError(f"the data of tensor {tensor!r} should be in {str(path)!r}, which is no regular file")
            self.files[str(path)] = state.st_size
            return map_file(descriptor)
        except (OSError, ValueError) as error:
            raise ModelError(f"{str(path)!r}, with the data of tensor {tensor!r}, cannot be mapped: {error}") from None
        finally:
            os.close(descriptor)

    def _locate(self, location: str, tensor: str) -> Path:
        refused = f"tensor {tensor!r} has its data at {location!r}, "
        if not location or "\0" in location:
            raise ModelError(f"tensor {tensor!r} has its data in another file, and no usable name of it")
        parts = location.replace("\\", "/").split("/")
        if location.startswith(("/", "\\")) or Path(location).is_absolute() or parts[0].endswith(":"):
            raise ModelError(refused + "an absolute path; it must be relative to the model's folder")
        if ".." in parts:
            raise ModelError(refused + "which leads out of the model's folder")
        candidates = [folder / location for folder in self._folders]
        path = next((candidate for candidate in candidates if os.path.lexists(candidate)), candidates[0])
        real = Path(os.path.realpath(path))
        if not any(real.is_relative_to(root) for root in self._roots):
            raise ModelError(
                refused + f"a symbolic link to {str(real)!r} outside of the model's folder",
                hint="Copy the data file beside the model if you trust it.",
            )
        return real


def _needed(proto: onnx.TensorProto) -> int:
    """The bytes that a tensor of this type and shape takes."""
    from graphopt.proto.tensors import byte_size

    return byte_size(proto.data_type, proto.dims)


def _count(entries: dict[str, str], key: str, default: int, tensor: str) -> int:
    content = entries.get(key)
    if content is None:
        return default
    if not (content.isascii() and content.isdigit() and len(content) < 20):
        raise ModelError(f"tensor {tensor!r} has an external {key} that is no byte count: {content!r}")
    return int(content)
