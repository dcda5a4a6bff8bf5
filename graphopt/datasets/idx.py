"""IDX files, the format of MNIST and its followers: a head of sizes, then the values, big-endian.

Source: the description that Y. LeCun, C. Cortes and C. Burges published with MNIST.
"""

from __future__ import annotations

import contextlib
import gzip
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any, Final

import numpy as np

from graphopt.datasets.arrays import KEYS
from graphopt.datasets.column import LABELS, Column, Dataset, Rows, stream_rows
from graphopt.datasets.options import Options
from graphopt.errors import ModelError, UsageError
from graphopt.verify.feedfile import UNREADABLE

__all__ = ["is_idx", "open_folder", "open_idx"]

_NAME: Final = re.compile(r".*[-.]idx(\d+)?([-.]ubyte)?(\.gz)?", re.IGNORECASE)
_IMAGES: Final = re.compile(r"images([-.])idx\d+", re.IGNORECASE)
_TYPES: Final[Mapping[int, str]] = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_PREFIX: Final[Mapping[str, str]] = {"train": "train", "test": "t10k"}


def is_idx(path: Path) -> bool:
    """Whether the name is that of an IDX file: ``train-images-idx3-ubyte.gz``."""
    return _NAME.fullmatch(path.name) is not None


def open_folder(folder: Path, pairs: Mapping[str, str]) -> Dataset:
    """The images and labels of one split, by their usual names.

    Raises:
        ModelError: There are none, or they cannot be read.
        UsageError: Unknown options.
    """
    split = Options.of(pairs, str(folder), (*KEYS, "split")).split or "train"
    starts = (_PREFIX[split], split)
    for path in sorted(folder.iterdir()):
        if is_idx(path) and _IMAGES.search(path.name) and path.name.startswith(starts):
            return open_idx(path, pairs, name=f"{folder.name}/{split}")
    raise ModelError(f"{folder}: there are no {split} images in it, as in {_PREFIX[split]}-images-idx3-ubyte.gz")


def open_idx(path: Path, pairs: Mapping[str, str], name: str = "") -> Dataset:
    """One file of images, and the labels that lie beside it.

    Raises:
        ModelError: It cannot be read, or has another number of labels than images.
        UsageError: Unknown options.
    """
    options = Options.of(pairs, str(path), (*KEYS, "split"))
    if options.split and not name:
        raise UsageError(f"{path}: a single file has no split", hint="Name the folder, or the other file.")
    columns = {"x": _column(path)}
    beside = path.with_name(_IMAGES.sub(r"labels\1idx1", path.name))
    for other in (beside, beside.with_name(beside.name.removesuffix(".gz")), beside.with_name(f"{beside.name}.gz")):
        if other != path and other.is_file():
            columns[LABELS] = _column(other)
            break
    return Dataset(name or path.name, str(path), lambda _: columns, options)


def _column(path: Path) -> Column:
    with _opened(path) as file:
        shape, dtype, start = _head(path, file)
    if path.suffix.lower() != ".gz":
        try:
            return Column.of(np.memmap(path, dtype, "r", start, shape))
        except (OSError, ValueError) as error:
            raise ModelError(f"{path}: it is shorter than the {list(shape)} values that it announces") from error

    def read(rows: Rows) -> np.ndarray[Any, Any]:
        with _opened(path) as file:
            file.read(start)
            return stream_rows(file, shape, dtype, rows)

    return Column(shape, dtype.newbyteorder("="), read, once=True)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    opener: Any = gzip.open if path.suffix.lower() == ".gz" else open
    try:
        with opener(path, "rb") as file:
            yield file
    except UNREADABLE as error:
        raise ModelError(f"{path}: cannot be read as an IDX file: {error}") from error


def _head(path: Path, file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any], int]:
    magic = file.read(4)
    if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in _TYPES:
        raise ModelError(f"{path}: not an IDX file", hint="One begins with two zero bytes, a type and a rank.")
    rank = magic[3]
    sizes = file.read(4 * rank)
    if not rank or len(sizes) < 4 * rank:
        raise ModelError(f"{path}: the IDX file ends within its head")
    return tuple(np.frombuffer(sizes, ">u4").tolist()), np.dtype(_TYPES[magic[2]]), 4 + 4 * rank
