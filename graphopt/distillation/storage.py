"""How a teacher's outputs lie in a folder: a JSON header, and a file of raw values for each array.

::

    header.json   what is kept, of which teacher and data, and which blocks are finished, with their checksums
    0.bin 1.bin   little-endian values in C order, of shape (views, count, *shape of a sample)
    lock          held by the process that fills the folder

A block is some consecutive samples of one view. It is entered in the header, atomically, only after its values are on
the disk, so that what the header claims is there. Nothing in the folder is ever executed.
"""

from __future__ import annotations

import dataclasses
import json
import math
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from graphopt.atomic import Replacement
from graphopt.errors import ModelError, UsageError
from graphopt.version import __version__

if TYPE_CHECKING:
    from graphopt.distillation.teacher import Teacher

__all__ = ["HEADER", "LOCK", "Contents", "Field", "Header"]

_FORMAT: Final = "graphopt-teacher-cache"
_VERSION: Final = 1
HEADER: Final = "header.json"
LOCK: Final = "lock"
_BLOCKS: Final = 64  # so that rewriting the header costs little, and a kill loses little
_LEAST: Final = 256  # samples of a block
_READ: Final = 1 << 24  # bytes that are checked at once
_DTYPES: Final = frozenset(
    ["float16", "float32", "float64", "bool", "uint8", "int8", "int16", "int32", "int64"]
)  # fmt: skip
_PARTS: Final = frozenset(["values", "probabilities", "indices", "rest"])


@dataclasses.dataclass(frozen=True)
class Contents:
    """What a cache is of; with any other it is stale.

    Attributes:
        teacher: :attr:`Teacher.digest <graphopt.distillation.teacher.Teacher.digest>`.
        data: Digest of the samples as they are fed, of augmentation too.
        count: Samples; their ids are 0 to ``count - 1``.
        outputs: Names that are kept.
        views: Augmentation seeds, each with its own outputs.
        half: Whether floats are kept as float16.
        k: How many probabilities are kept of each output in ``classes``; None for all outputs whole.
        classes: Outputs of which only the largest probabilities are kept.
        temperature: At which probabilities are taken; 1 without ``k``.
    """

    teacher: str
    data: str
    count: int
    outputs: tuple[str, ...]
    views: int = 1
    half: bool = False
    k: int | None = None
    classes: tuple[str, ...] = ()
    temperature: float = 1.0

    @classmethod
    def of(
        cls,
        teacher: Teacher,
        data: str,
        count: int,
        *,
        views: int = 1,
        half: bool = False,
        k: int | None = None,
        classes: Sequence[str] | None = None,
        temperature: float = 1.0,
    ) -> Contents:
        """What a cache of a teacher's names is of.

        Args:
            teacher: The teacher; all its names are kept.
            data: See above.
            count: See above, 1 or more.
            views: See above, 1 or more.
            half: See above.
            k: See above, 1 or more.
            classes: See above; None for the outputs of the model that are logits or probabilities.
            temperature: See above.

        Raises:
            UsageError: Numbers out of range, a name that the teacher does not have, ``k`` without classes.
        """
        if count < 1 or views < 1:
            raise UsageError(f"there is nothing to keep of {count} samples in {views} views")
        outputs = tuple(teacher.names)
        if k is None:
            return cls(teacher.digest, data, count, outputs, views, half)
        if k < 1 or not (math.isfinite(temperature) and temperature > 0):
            raise UsageError(f"the {k} largest at a temperature of {temperature:g} are none", hint="Give both above 0.")
        found = tuple(name for name in outputs if teacher.kinds[name] != "values") if classes is None else (*classes,)
        if not found or not set(found) <= set(outputs):
            raise UsageError(
                f"the {k} largest probabilities need outputs of classes, and "
                + (f"the teacher gives no {sorted(set(found) - set(outputs))}" if found else "none looks like one"),
                hint=f"Name some of: {', '.join(outputs)}.",
            )
        return cls(teacher.digest, data, count, outputs, views, half, k, found, float(temperature))

    @property
    def block(self) -> int:
        """Samples of a block."""
        return min(self.count, max(_LEAST, -(-self.count * self.views // _BLOCKS)))

    @property
    def blocks(self) -> list[tuple[int, int]]:
        """(view, first sample) of each block."""
        return [(view, start) for view in range(self.views) for start in range(0, self.count, self.block)]

    def differences(self, other: Contents) -> list[str]:
        """In which points, in words, this is not ``other``."""
        ours, theirs = dataclasses.asdict(self), dataclasses.asdict(other)
        return [f"{key} is {_short(ours[key])}, not {_short(theirs[key])}" for key in ours if ours[key] != theirs[key]]


def _short(value: object) -> str:
    text = str(value)
    return f"{text[:12]}…" if isinstance(value, str) and len(text) > 12 else text


@dataclasses.dataclass(frozen=True)
class Field:
    """One file.

    Attributes:
        output: Which output of the teacher it is of.
        part: ``values``, or for top-k ``probabilities``, ``indices`` or ``rest``.
        dtype: Of NumPy's names.
        shape: Of one sample.
    """

    output: str
    part: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def row(self) -> int:
        """Bytes of one sample."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


@dataclasses.dataclass
class Header:
    """What a folder holds, as its ``header.json`` says.

    Attributes:
        contents: Of what it is.
        fields: The files, in order.
        finished: (view, first sample) of each finished block, and the CRC-32 of its part of each file.
    """

    contents: Contents
    fields: list[Field]
    finished: dict[tuple[int, int], list[int]] = dataclasses.field(default_factory=dict)

    @property
    def is_complete(self) -> bool:
        """Whether all blocks are finished."""
        return len(self.finished) == len(self.contents.blocks)

    @property
    def bytes(self) -> int:
        """Of all files together."""
        return sum(map(self.size, self.fields))

    def size(self, field: Field) -> int:
        """Bytes of a file."""
        return field.row * self.contents.count * self.contents.views

    def path(self, folder: Path, field: Field) -> Path:
        """Where a file lies."""
        return folder / f"{self.fields.index(field)}.bin"

    def map(self, folder: Path) -> list[np.ndarray[Any, Any]]:
        """The files, mapped into memory, ``(views, count, *shape)`` each.

        Raises:
            ModelError: One is missing, or of another length.
        """
        maps = []
        for field in self.fields:
            path = self.path(folder, field)
            shape = (self.contents.views, self.contents.count, *field.shape)
            try:
                length = path.stat().st_size
                if length != self.size(field):
                    raise ModelError(f"{path}: it has {length:,} bytes, not {self.size(field):,}: it was cut")
                dtype = np.dtype(field.dtype).newbyteorder("<")
                # "c": torch wants writable memory, and nothing that is written there reaches the file
                found = np.memmap(path, dtype, "c", shape=shape) if length else np.zeros(shape, dtype)
            except OSError as error:
                raise ModelError(f"{path}: cannot be read: {error.strerror or error}") from error
            maps.append(np.asarray(found))
        return maps

    def check(self, folder: Path) -> None:
        """Compares all finished blocks with their checksums.

        Raises:
            ModelError: A file is missing, cut or changed.
        """
        for place, array in enumerate(self.map(folder)):
            for (view, start), checksums in self.finished.items():
                if _crc(array[view, start : start + self.contents.block]) != checksums[place]:
                    path = self.path(folder, self.fields[place])
                    raise ModelError(f"{path}: samples from {start} on (view {view}) are damaged")

    def save(self, folder: Path) -> None:
        """Writes ``header.json``, all of it or nothing.

        Raises:
            OSError: The disk does not allow it.
        """
        data = {
            "format": _FORMAT,
            "version": _VERSION,
            "graphopt": __version__,
            "contents": dataclasses.asdict(self.contents),
            "files": [dataclasses.asdict(field) for field in self.fields],
            "finished": [[view, start, *sums] for (view, start), sums in self.finished.items()],
        }
        with Replacement(folder / HEADER) as file:
            file.write([json.dumps(data).encode() + b"\n"])
            file.commit()

    @classmethod
    def load(cls, folder: Path) -> Header | None:
        """Reads ``header.json``; None where there is none.

        Raises:
            ModelError: It cannot be read, is no header, or one of another version.
        """
        path = folder / HEADER
        try:
            text = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise ModelError(f"{path}: cannot be read: {error.strerror or error}") from error
        try:
            data = json.loads(text)
            if data["format"] != _FORMAT:
                raise ValueError(f"its format is {data['format']!r}")
            if data["version"] != _VERSION:
                raise ModelError(f"{path} has version {data['version']}, this graphopt reads {_VERSION}")
            return cls._of(data)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ModelError(f"{path}: it is no header of a teacher's cache, or damaged: {error}") from error

    @classmethod
    def _of(cls, data: Any) -> Header:
        contents = Contents(**data["contents"])
        contents = dataclasses.replace(contents, outputs=tuple(contents.outputs), classes=tuple(contents.classes))
        sizes = (contents.count, contents.views)
        fields = [Field(one["output"], one["part"], one["dtype"], tuple(one["shape"])) for one in data["files"]]
        if not all(_is_size(size) and size for size in sizes) or not all(map(_is_sound, fields)):
            raise ValueError("its sizes or dtypes make no sense")
        finished = {(view, start): list(sums) for view, start, *sums in data["finished"]}
        if not set(finished) <= set(contents.blocks) or any(len(sums) != len(fields) for sums in finished.values()):
            raise ValueError("it claims blocks that are none")
        return cls(contents, fields, finished)


def _is_size(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_sound(field: Field) -> bool:
    return field.dtype in _DTYPES and field.part in _PARTS and all(map(_is_size, field.shape))


def _crc(array: np.ndarray[Any, Any]) -> int:
    raw = array.reshape(-1).view(np.uint8) if array.size else np.empty(0, np.uint8)
    found = 0
    for start in range(0, len(raw), _READ):
        found = zlib.crc32(raw[start : start + _READ].data, found)
    return found
