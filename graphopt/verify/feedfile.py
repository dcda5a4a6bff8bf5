"""Inputs from the user: an ``.npz`` file whose arrays are named as the model's inputs.

One file is one call of the model: its leading axis is whatever the model's leading axis is, never a list of samples.
For more samples give a directory of such files (taken in the order of their names) or a list. An array ``y`` that is no
input is the truth for a metric. Pickled objects are refused.
"""

from __future__ import annotations

import tokenize
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from graphopt.errors import ModelError

if TYPE_CHECKING:
    from graphopt.verify.feeds import Feeds, Input, Plan

__all__ = ["UNREADABLE", "load_arrays", "read"]

Array = np.ndarray[Any, Any]

UNREADABLE: Final = (
    OSError, ValueError, EOFError, SyntaxError, tokenize.TokenError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip
"""What NumPy raises for a damaged ``.npz`` or ``.npy`` file."""


def read(source: Path | Sequence[Path], plan: Plan, *, with_truth: bool) -> Iterator[tuple[str, Feeds, Array | None]]:
    """(file name, feeds, ``y``) of each file.

    Raises:
        ModelError: A file cannot be read, lacks an input, has a stranger, or an array of the wrong dtype or shape.
    """
    for path in _files(source):
        arrays = load_arrays(path)
        names = {entry.name for entry in plan.inputs}
        truth = arrays.pop("y", None) if "y" not in names else None
        if with_truth and truth is None:
            raise ModelError(f"{path}: a metric needs the array 'y'")
        _check(path, arrays, plan)
        yield str(path), arrays, truth


def _files(source: Path | Sequence[Path]) -> list[Path]:
    if not isinstance(source, Path):
        return [file for one in source for file in _files(Path(one))]
    if not source.is_dir():
        return [source]
    files = sorted(source.glob("*.npz"))
    if not files:
        raise ModelError(f"{source}: there is no .npz file in this directory")
    return files


def load_arrays(path: Path) -> dict[str, Array]:
    """The arrays of an ``.npz`` file.

    Raises:
        ModelError: It cannot be read.
    """
    try:
        archive = np.load(path, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise ModelError(f"{path}: not an .npz file", hint="Save it with numpy.savez(path, name=array).")
        with archive:
            arrays = {name: archive[name] for name in archive.files}
    except UNREADABLE as error:
        raise ModelError(f"{path}: cannot be read as .npz: {error}") from error
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray):  # numpy gives the bytes of a member that is not in its format
            raise ModelError(f"{path}: '{name}' is no array")
    return arrays


def _check(path: Path, arrays: dict[str, Array], plan: Plan) -> None:
    known = {entry.name: entry for entry in plan.inputs}
    optional = set(plan.defaults)
    for name in arrays:
        if name not in known and name not in optional:
            raise ModelError(f"{path}: the model has no input '{name}'", hint=f"Its inputs are: {', '.join(known)}.")
    for name, entry in known.items():
        if name not in arrays:
            raise ModelError(f"{path}: input '{name}' is missing")
        _check_array(path, entry, arrays[name])


def _check_array(path: Path, entry: Input, array: Array) -> None:
    wanted = entry.dtype.numpy()
    if array.dtype != wanted and not (array.dtype.kind in "US" and wanted.kind == "O"):
        raise ModelError(
            f"{path}: input '{entry.name}' is {array.dtype}, the model takes {wanted}",
            hint=f"Convert it with array.astype('{wanted}').",
        )
    if not entry.accepts(array.shape):
        raise ModelError(
            f"{path}: input '{entry.name}' has the shape {list(array.shape)}, the model takes {entry.shown_shape}"
        )
