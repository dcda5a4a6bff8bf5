"""Asks a teacher about all samples and writes what it says to a folder, block by block."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import zlib
from collections.abc import Callable, Iterator
from io import FileIO
from pathlib import Path
from typing import Any, BinaryIO, Final, TypeAlias

import numpy as np
import torch
from torch import Tensor

from graphopt.distillation.sparse import top_k
from graphopt.distillation.storage import HEADER, LOCK, Contents, Field, Header
from graphopt.distillation.teacher import Feeds, Ids, Teacher
from graphopt.errors import ModelError, SaveError, UsageError

__all__ = ["Feed", "Filling", "Progress", "is_foreign", "writing"]

Array = np.ndarray[Any, Any]
Arrays: TypeAlias = dict[tuple[str, str], Array]
"""By output and part, see :class:`~graphopt.distillation.storage.Field`."""
Feed: TypeAlias = Callable[[Ids, int], Feeds]
"""The samples of some ids in a view, as one batch for the teacher."""
Progress: TypeAlias = Callable[[str, float], None]
"""Called with what is going on and the fraction of the whole done, from 0 to 1."""

_FILE: Final = re.compile(r"\d+\.bin|\.header\.json\.\d+\.tmp")
_NO_ROOM: Final = frozenset([errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
_CANNOT_RESERVE: Final = frozenset([errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS])
_FEW: Final = np.iinfo(np.int16).max  # classes that fit into 16 bits


class Filling:
    """One attempt to fill a folder, whose lock the caller holds.

    Args:
        folder: The folder.
        contents: What it is to hold.
        teacher: Whom to ask.
        feed: Gives the samples.
        batch: How many the teacher is asked about at once.
        report: Called after each batch.
    """

    def __init__(
        self, folder: Path, contents: Contents, teacher: Teacher, feed: Feed, batch: int, report: Progress
    ) -> None:
        self._folder = folder
        self._contents = contents
        self._teacher = teacher
        self._feed = feed
        self._batch = batch
        self._report = report

    def run(self, header: Header | None) -> Header:
        """Fills what is missing; a block counts once it is on the disk.

        Args:
            header: What the folder holds; None to begin anew.

        Raises:
            ModelError: The teacher fails, gives NaN, or shapes that differ from batch to batch.
            UsageError: An output has no axis of samples, or exceeds float16.
            SaveError: The disk is full, or cannot be written.
        """
        header = header or self._begin()
        if not header.finished:
            self._reserve(header)
        count, block = self._contents.count, self._contents.block
        done = sum(min(block, count - start) for _, start in header.finished)
        with _one_thread(), contextlib.ExitStack() as stack:
            with writing(self._folder):
                files = [
                    stack.enter_context(header.path(self._folder, field).open("r+b", buffering=0))
                    for field in header.fields
                ]
            for view, start in self._contents.blocks:
                if (view, start) in header.finished:
                    continue
                checksums = [0] * len(files)
                stop = min(start + block, count)
                for at in range(start, stop, self._batch):
                    self._report("asking the teacher", done / (count * self._contents.views))
                    ids = np.arange(at, min(at + self._batch, stop), dtype=np.int64)
                    checksums = self._write(header, files, self._ask(ids, view), view * count + at, checksums)
                    done += len(ids)
                self._finish(header, files, (view, start), checksums)
        self._report("asking the teacher", 1.0)
        return header

    def _begin(self) -> Header:
        """A fresh header; a first batch tells shapes and dtypes."""
        found = self._ask(np.arange(min(self._batch, self._contents.count), dtype=np.int64), 0)
        fields = [Field(*key, array.dtype.name, array.shape[1:]) for key, array in found.items()]
        header = Header(self._contents, fields)
        with writing(self._folder):
            (self._folder / HEADER).unlink(missing_ok=True)
            for path in self._folder.iterdir():
                if _FILE.fullmatch(path.name):
                    path.unlink()  # not cut: another process may still have it mapped
            header.save(self._folder)
        return header

    def _reserve(self, header: Header) -> None:
        """Makes the files at their full size, so that a disk that is too small is found out before the work."""
        paths = [header.path(self._folder, field) for field in header.fields]
        try:
            with writing(self._folder, header.bytes):
                for path, field in zip(paths, header.fields, strict=True):
                    path.unlink(missing_ok=True)
                    with path.open("xb") as file:
                        _extend(file, header.size(field))
        except SaveError:
            for path in paths:
                path.unlink(missing_ok=True)
            raise

    def _ask(self, ids: Ids, view: int) -> Arrays:
        """What is kept of some samples, by output and part, as it is kept."""
        contents = self._contents
        found: Arrays = {}
        for name, output in self._teacher.tensors(self._feed(ids, view)).items():
            if output.shape[:1] != (len(ids),):
                raise UsageError(
                    f"'{name}' of the teacher has the shape {list(output.shape)} for {len(ids)} samples: it cannot be "
                    "kept by sample",
                    hint="Leave it out, or ask the teacher in every step instead of keeping what it says.",
                )
            if bool(output.isnan().any()):
                raise ModelError(f"'{name}' of the teacher is NaN in the samples {ids[0]} to {ids[-1]} (view {view})")
            if contents.k is None or name not in contents.classes:
                found[name, "values"] = self._kept(output, name)
                continue
            largest = top_k(output, self._teacher.kinds[name], contents.k, contents.temperature)
            found[name, "probabilities"] = self._kept(largest.probabilities, name)
            found[name, "indices"] = (
                largest.indices.cpu().numpy().astype(np.int16 if output.shape[-1] <= _FEW else np.int32)
            )
            found[name, "rest"] = largest.rest.cpu().numpy()
        return found

    def _kept(self, values: Tensor, name: str) -> Array:
        if not values.is_floating_point():
            return values.cpu().numpy()
        if not self._contents.half:
            return (values if values.dtype == torch.float64 else values.float()).cpu().numpy()
        half = values.half()
        if bool((half.isinf() & ~values.isinf()).any()):
            raise UsageError(f"'{name}' of the teacher exceeds float16", hint="Keep it as float32.")
        return half.cpu().numpy()

    def _write(self, header: Header, files: list[FileIO], found: Arrays, row: int, checksums: list[int]) -> list[int]:
        """Writes some rows; the checksums go on from those of the rows before."""
        sums = []
        for field, file, checksum in zip(header.fields, files, checksums, strict=True):
            array = found.get((field.output, field.part))
            if array is None or array.shape[1:] != field.shape or array.dtype.name != field.dtype:
                given = "nothing" if array is None else f"{array.dtype.name} {list(array.shape[1:])}"
                raise ModelError(
                    f"'{field.output}' of the teacher is {field.dtype} {list(field.shape)} for some samples, {given} "
                    "for others, and so cannot be kept",
                    hint="Bring the samples to one size, or ask the teacher in every step.",
                )
            raw = array.tobytes()
            with writing(self._folder, header.bytes):
                file.seek(row * field.row)
                _write_all(file, raw)
            sums.append(zlib.crc32(raw, checksum))
        return sums

    def _finish(self, header: Header, files: list[FileIO], block: tuple[int, int], checksums: list[int]) -> None:
        with writing(self._folder, header.bytes):
            for file in files:
                os.fsync(file.fileno())
            header.finished[block] = checksums
            header.save(self._folder)


def is_foreign(folder: Path) -> bool:
    """Whether something lies in a folder that no cache puts there."""
    ours = {HEADER, LOCK}
    return folder.is_dir() and not all(path.name in ours or _FILE.fullmatch(path.name) for path in folder.iterdir())


@contextlib.contextmanager
def writing(folder: Path, needed: int = 0) -> Iterator[None]:
    """Says of an error of the system what it is about, and how many bytes are needed."""
    try:
        yield
    except OSError as error:
        hint = ""
        if error.errno in _NO_ROOM:
            free = shutil.disk_usage(next(path for path in (folder, *folder.parents) if path.exists())).free
            hint = f"It needs {needed:,} bytes in all and {free:,} are free; float16 or top-k need less."
        raise SaveError(f"{folder}: cannot be written: {error.strerror or error}", hint=hint) from error


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Leaves the cores to the teacher: torch's threads for the little that is left would only be in its way."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _write_all(file: FileIO, raw: bytes) -> None:
    view = memoryview(raw)
    while view:
        view = view[file.write(view) :]


def _extend(file: BinaryIO, size: int) -> None:
    if hasattr(os, "posix_fallocate") and size:
        try:
            os.posix_fallocate(file.fileno(), 0, size)
            return
        except OSError as error:
            if error.errno not in _CANNOT_RESERVE:
                raise
    file.truncate(size)
