"""What a teacher says of all samples, asked once and mapped into memory."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from graphopt.distillation.batch import TopK
from graphopt.distillation.filling import Feed, Filling, Progress, is_foreign, writing
from graphopt.distillation.storage import LOCK, Contents, Header
from graphopt.distillation.teacher import Feeds, Ids, Teacher
from graphopt.errors import ModelError, UsageError
from graphopt.lock import exclusive

__all__ = ["Cache", "Contents", "Feed", "Progress"]

_BATCH: Final = 128
_REFILL: Final = "Remove the folder, so that it is filled anew, or name another one."


class Cache:
    """The outputs of one teacher by sample and view, in a folder.

    The folder's format is that of :mod:`graphopt.distillation.storage`. The idea is TinyViT's (Wu et al.,
    arXiv 2207.10666): the teacher is deterministic, so each view of a sample needs it once, however long the training.

    Attributes:
        contents: Of what it is.
        bytes: Of the files.
    """

    def __init__(self, folder: Path, header: Header) -> None:
        """Maps a complete cache; :meth:`open` and :meth:`fill` check it first.

        Raises:
            ModelError: A file is missing or cut.
        """
        self.contents = header.contents
        self.bytes = header.bytes
        self._parts: dict[str, dict[str, Tensor]] = {name: {} for name in header.contents.outputs}
        for field, array in zip(header.fields, header.map(folder), strict=True):
            self._parts[field.output][field.part] = torch.from_numpy(array)

    @classmethod
    def open(cls, folder: str | os.PathLike[str], contents: Contents) -> Cache:
        """Opens a cache that is complete; all of it is read once and compared with its checksums.

        Raises:
            UsageError: It is of another teacher, other data, or holds something else: the message says what.
            ModelError: There is none, it is incomplete, cut or damaged.
        """
        path = Path(folder).absolute()
        header = _read(path, contents)
        if header is None or not header.is_complete:
            state = "there is no teacher's cache in it" if header is None else "the teacher's cache is not complete"
            raise ModelError(f"{path}: {state}", hint="Fill it first.")
        return cls(path, header)

    @classmethod
    def fill(
        cls,
        folder: str | os.PathLike[str],
        contents: Contents,
        teacher: Teacher,
        feed: Feed,
        *,
        batch: int = _BATCH,
        refill: bool = False,
        wait: float | None = None,
        progress: Progress | None = None,
    ) -> Cache:
        """Opens a cache, and first fills what is missing of it: all, or what a killed process left.

        Of several processes one fills, the others wait and then use the same files.

        Args:
            folder: Made if need be.
            contents: What it is to hold.
            teacher: Whom to ask.
            feed: Gives the samples.
            batch: How many the teacher is asked about at once.
            refill: Whether a stale or damaged cache is filled anew; else it is an error.
            wait: Seconds to wait for another process that fills it; None for as long as it takes.
            progress: Called with what is going on and the fraction done.

        Raises:
            UsageError: The folder holds other files, or a cache of something else; or an output cannot be kept.
            ModelError: What is there is cut or damaged; or the teacher fails.
            SaveError: The folder cannot be written, or the disk is full; finished blocks stay.
            LimitReached: Another process fills it for longer than ``wait``.
        """
        if contents.teacher != teacher.digest or set(contents.outputs) != set(teacher.names):
            raise UsageError("the cache is to be of another teacher, or of other outputs, than the one that is asked")
        if batch < 1:
            raise UsageError(f"a batch of {batch} samples is none", hint="Give 1 or more.")
        path = Path(folder).absolute()
        report = progress or (lambda what, fraction: None)
        header = _usable(path, contents, refill)
        if header is not None and header.is_complete:
            return cls(path, header)
        with writing(path):
            path.mkdir(parents=True, exist_ok=True)
        with exclusive(path / LOCK, wait=wait, waiting=lambda holder: report(f"waiting for {holder}", 0.0)):
            header = _usable(path, contents, refill)  # it may have been filled meanwhile
            if header is None or not header.is_complete:
                header = Filling(path, contents, teacher, feed, batch, report).run(header)
        return cls(path, header)

    def targets(self, ids: Ids, view: int, feeds: Feeds | None = None) -> Mapping[str, Tensor | TopK]:
        """See :class:`~graphopt.distillation.teacher.Targets`: one gather for each array; ``feeds`` are not looked at.

        Floats come as float32 (float64 stays).

        Raises:
            IndexError: An id or view that the cache does not have.
        """
        rows = torch.from_numpy(ids)
        found: dict[str, Tensor | TopK] = {}
        for name, parts in self._parts.items():
            taken = {part: tensor[view].index_select(0, rows) for part, tensor in parts.items()}
            found[name] = _whole(taken["values"]) if "values" in taken else self._top_k(taken)
        return found

    def _top_k(self, taken: Mapping[str, Tensor]) -> TopK:
        probabilities, rest = taken["probabilities"].float(), taken["rest"]
        total = probabilities.sum(-1) + rest  # float16 rounds the large ones by more than the rest may be
        return TopK(probabilities / total[..., None], taken["indices"].long(), rest / total, self.contents.temperature)


def _whole(values: Tensor) -> Tensor:
    return values.float() if values.dtype == torch.float16 else values


def _read(folder: Path, contents: Contents) -> Header | None:
    """What a folder holds of ``contents``, checked; None where nothing is there yet."""
    header = Header.load(folder)
    if header is None:
        if is_foreign(folder):
            raise UsageError(f"{folder} is no teacher's cache, and not empty", hint="Name a new folder.")
        return None
    if header.contents != contents:
        found = "; ".join(header.contents.differences(contents))
        raise UsageError(f"{folder}: the teacher's cache is stale: {found}", hint=_REFILL)
    if header.finished:
        header.check(folder)
    return header


def _usable(folder: Path, contents: Contents, refill: bool) -> Header | None:
    """The same, or None for what is to be filled anew."""
    try:
        return _read(folder, contents)
    except ModelError as error:
        if not refill:
            raise ModelError(error.message, hint=error.hint or _REFILL) from error
    except UsageError:
        if not refill or is_foreign(folder):
            raise
    return None
