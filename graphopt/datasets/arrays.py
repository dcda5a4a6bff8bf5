"""Arrays: ``.npz`` and ``.npy`` files, mappings, and whole feeds."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

import numpy as np

from graphopt.datasets.column import Column, Dataset, Rows, stream_rows
from graphopt.datasets.options import Options
from graphopt.errors import ModelError, UsageError
from graphopt.verify.feedfile import UNREADABLE, load_arrays

if TYPE_CHECKING:
    from graphopt.verify.feeds import Feeds

__all__ = ["KEYS", "from_arrays", "from_feeds", "open_calls", "open_npy", "open_npz"]

KEYS: Final = ("scale", "mean", "std", "layout", "input")
"""The options of all sources of arrays."""

_SPLIT: Final = re.compile(r"(.+)_(train|test)")


def from_arrays(arrays: Mapping[str, Any], where: str, options: Options | None = None) -> Dataset:
    """Arrays in memory, by input name; ``y`` holds the labels.

    Raises:
        ModelError: Something in it is no array.
    """
    columns = {name: Column.of(_array(value, name, where)) for name, value in arrays.items()}
    return Dataset(where, where, lambda _: columns, options or Options())


def _array(value: object, name: str, where: str) -> np.ndarray[Any, Any]:
    try:
        array = np.asarray(value)
    except ValueError as error:  # rows of different lengths
        raise ModelError(f"{where}: '{name}' is no array: {error}") from error
    if array.dtype.kind == "O" and not all(isinstance(entry, str) for entry in array.flat):
        raise ModelError(f"{where}: '{name}' is no array of numbers or texts, but of {type(value).__name__}")
    return array


def from_feeds(feeds: Sequence[Feeds], where: str) -> Dataset:
    """Whole feeds, one sample each; ``y`` in them is a label.

    Raises:
        ModelError: There are none, or one is no mapping.
    """
    if not feeds:
        raise ModelError(f"{where}: there are no samples: no feed is there")
    for number, feed in enumerate(feeds):
        if not isinstance(feed, Mapping):
            raise ModelError(
                f"{where}: feed {number} is {type(feed).__name__}, no mapping of input names to arrays",
                hint="Give a mapping of arrays with the samples along the leading axis, or mappings one by one.",
            )
    return Dataset(where, where, lambda _: {}, feeds=[dict(feed) for feed in feeds])


def open_calls(paths: Sequence[Path], folder: Path) -> Dataset:
    """A folder of ``.npz`` files, each one whole call of the model, as ``validate --inputs`` takes them."""
    dataset = from_feeds([load_arrays(path) for path in paths], str(folder))
    return Dataset(folder.name, str(folder), dataset.columns, feeds=dataset.feeds)


def open_npy(paths: Sequence[Path], source: Path, pairs: Mapping[str, str]) -> Dataset:
    """Files that are mapped into memory, each named as an input."""
    options = Options.of(pairs, str(source), KEYS)
    columns = {}
    for path in paths:
        try:
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        except UNREADABLE as error:
            raise ModelError(f"{path}: cannot be read as .npy: {error}") from error
        if not isinstance(array, np.ndarray):
            raise ModelError(f"{path}: not an .npy file", hint="Save it with numpy.save(path, array).")
        columns[path.stem if source.is_dir() else "x"] = Column.of(array)
    return Dataset(source.name, str(source), lambda _: columns, options)


def open_npz(path: Path, pairs: Mapping[str, str]) -> Dataset:
    """An archive; only the heads of its arrays are read, the samples when they are asked for."""
    options = Options.of(pairs, str(path), (*KEYS, "split"))
    try:
        with zipfile.ZipFile(path) as archive:
            members = [name for name in archive.namelist() if name.endswith(".npy")]
            columns = {name.removesuffix(".npy"): _member(path, archive, name) for name in members}
    except UNREADABLE as error:
        raise ModelError(f"{path}: cannot be read as .npz: {error}") from error
    columns = _split(columns, options, path)
    return Dataset(path.name, str(path), lambda _: columns, options)


def _split(columns: dict[str, Column], options: Options, path: Path) -> dict[str, Column]:
    """One half of ``x_train``, ``x_test`` and so on, without the ending."""
    found = {name: _SPLIT.fullmatch(name) for name in columns}
    if not columns or not all(found.values()):
        if options.split:
            raise UsageError(
                f"{path}: there is no split in it",
                hint=f"It would name its arrays x_{options.split}, not {_some(columns)}.",
            )
        return columns
    wanted = options.split or "train"
    chosen = {match[1]: columns[name] for name, match in found.items() if match is not None and match[2] == wanted}
    if not chosen:
        raise UsageError(f"{path}: there is no split '{wanted}' in it, only {_some(columns)}")
    return chosen


def _some(columns: Mapping[str, Column]) -> str:
    return ", ".join(columns) or "nothing"


def _member(path: Path, archive: zipfile.ZipFile, member: str) -> Column:
    with archive.open(member) as file:
        shape, fortran, dtype = _head(file)
    if dtype.hasobject:
        raise ModelError(f"{path}: '{member}' holds Python objects, which are not read")

    def read(rows: Rows) -> np.ndarray[Any, Any]:
        try:
            with zipfile.ZipFile(path) as again:
                if fortran or not shape:
                    whole = np.lib.format.read_array(again.open(member), allow_pickle=False)
                    return np.asarray(whole[rows] if shape else whole, dtype.newbyteorder("="))
                with again.open(member) as file:
                    _head(file)
                    return stream_rows(file, shape, dtype, rows)
        except UNREADABLE as error:
            raise ModelError(f"{path}: '{member}' cannot be read: {error}") from error

    return Column(shape, dtype.newbyteorder("="), read, once=True)


def _head(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(file)
    return np.lib.format.read_array_header_2_0(file)
