"""Checkpoints of a training run: all of it or nothing, checked when read, and without a line of code in them.

A file is ``graphopt checkpoint 1``, the length of a header (8 bytes, little-endian), the header in JSON, the elements
of the tensors, each at a multiple of 64 bytes, and a SHA-256 of everything before it. The header tells the run's
identity, its state in plain values, and name, type, shape and place of each tensor. Reading runs nothing (no pickle).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from graphopt.atomic import Replacement, remove_stale
from graphopt.errors import ModelError, SaveError, UsageError

__all__ = ["Checkpoint", "Checkpoints"]

_MAGIC: Final = b"graphopt checkpoint 1\n"
_ALIGNMENT: Final = 64
_DIGEST: Final = 32
_KEPT: Final = 2  # the newest, and the one before it should that be damaged
_SHOWN: Final = 4
_DTYPES: Final[Mapping[str, torch.dtype]] = {
    str(dtype).removeprefix("torch."): dtype for dtype in vars(torch).values() if isinstance(dtype, torch.dtype)
}


@dataclasses.dataclass(frozen=True, slots=True)
class Checkpoint:
    """All that a run needs to go on.

    Attributes:
        step: How many batches the run has seen.
        state: Plain values: what JSON can hold.
        tensors: By name, on any device.
    """

    step: int
    state: Mapping[str, Any]
    tensors: Mapping[str, Tensor]


class Checkpoints:
    """The checkpoints of one run, in a folder of their own; the two newest stay.

    Attributes:
        folder: Made when the first one is written.
        notes: What a user should know of what was read: damaged files.
    """

    def __init__(self, folder: str | Path, *, seconds: float = 60.0) -> None:
        """Args:
        folder: The folder.
        seconds: How long a run goes on between two checkpoints; 0 for one after each step.
        """
        self.folder = Path(folder).absolute()
        self.notes: list[str] = []
        self._seconds = seconds
        self._written = time.monotonic()

    @property
    def is_due(self) -> bool:
        """Whether it is time for another one."""
        return time.monotonic() - self._written >= self._seconds

    def save(self, checkpoint: Checkpoint, identity: Mapping[str, Any]) -> None:
        """Writes a checkpoint, then removes those before the last two.

        Raises:
            SaveError: It cannot be written (a full disk, say). Those from before are untouched.
        """
        path = self.folder / f"step-{checkpoint.step:09}.checkpoint"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with Replacement(path) as file:
                file.write(_encoded(checkpoint, identity))
                file.commit()
            for old in [one for one in self._paths() if one != path][_KEPT - 1 :]:
                old.unlink(missing_ok=True)
            # A run that was killed while it wrote goes on, and saves next after another step.
            for cut in self.folder.glob(".step-*.tmp"):
                remove_stale(cut.with_name(cut.name[1:].rsplit(".", 2)[0]))
        except OSError as error:
            raise SaveError(
                f"{path}: the checkpoint cannot be written: {error.strerror or error}",
                hint="Make room and start again in the same way: it goes on from the checkpoint before.",
            ) from error
        self._written = time.monotonic()

    def newest(self, identity: Mapping[str, Any]) -> bytearray | None:
        """The bytes of the newest checkpoint that is whole, for :meth:`decoded`; None if there is none.

        Raises:
            UsageError: It is of another run.
            ModelError: There are some, and all are damaged.
        """
        paths = self._paths()
        for path in paths:
            try:
                contents = bytearray(path.read_bytes())
                found, _ = _decoded(contents)
            except (OSError, ValueError) as error:
                self.notes.append(f"{path} is left out: {getattr(error, 'strerror', None) or error}")
                continue
            _check_identity(self.folder, found, identity)
            return contents
        if paths:
            raise ModelError(
                f"{self.folder}: none of the {len(paths)} checkpoints can be read; {self.notes[-1]}",
                hint="Remove the folder to start from the beginning.",
            )
        return None

    @staticmethod
    def decoded(contents: bytearray) -> Checkpoint:
        """What :meth:`newest` read; the tensors use its memory."""
        return _decoded(contents)[1]

    def _paths(self) -> list[Path]:
        """Newest first."""
        return sorted(self.folder.glob("step-*.checkpoint"), reverse=True)


def _encoded(checkpoint: Checkpoint, identity: Mapping[str, Any]) -> Iterator[bytes | memoryview]:
    """The file, piece by piece, so that one tensor at a time is copied at most."""
    entries, end = {}, 0
    for name, one in checkpoint.tensors.items():
        entries[name] = {"dtype": str(one.dtype).removeprefix("torch."), "shape": list(one.shape), "start": end}
        end += _padded(one.numel() * one.element_size())
    header = json.dumps(
        {"identity": identity, "step": checkpoint.step, "state": checkpoint.state, "tensors": entries}
    ).encode()
    start = len(_MAGIC) + 8
    header += b" " * (_padded(start + len(header)) - start - len(header))
    total = hashlib.sha256()
    for piece in _pieces(header, checkpoint.tensors.values()):
        total.update(piece)
        yield piece
    yield total.digest()


def _pieces(header: bytes, tensors: Any) -> Iterator[bytes | memoryview]:
    yield _MAGIC + len(header).to_bytes(8, "little") + header
    for one in tensors:
        raw = one.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        yield memoryview(raw.numpy())
        yield bytes(_padded(len(raw)) - len(raw))


def _padded(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT


def _decoded(contents: bytearray) -> tuple[Mapping[str, Any], Checkpoint]:
    """The identity and what there is.

    Raises:
        ValueError: It is damaged, or no checkpoint.
    """
    start = len(_MAGIC) + 8
    if not contents.startswith(_MAGIC):
        raise ValueError("it is no checkpoint of this version of graphopt")
    body = memoryview(contents)[:-_DIGEST]
    if hashlib.sha256(body).digest() != contents[-_DIGEST:]:
        raise ValueError("it is damaged or cut short")
    try:
        length = int.from_bytes(contents[len(_MAGIC) : start], "little")
        header = json.loads(contents[start : start + length])
        tensors = {name: _tensor(body, start + length, entry) for name, entry in header["tensors"].items()}
        return header["identity"], Checkpoint(header["step"], header["state"], tensors)
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise ValueError(f"its header makes no sense: {error}") from error


def _tensor(body: memoryview, start: int, entry: Mapping[str, Any]) -> Tensor:
    dtype, count = _DTYPES[entry["dtype"]], math.prod(entry["shape"])
    if entry["start"] < 0:
        raise ValueError("a tensor lies before the first one")
    if not count:
        return torch.empty(entry["shape"], dtype=dtype)
    flat = torch.frombuffer(body, dtype=dtype, count=count, offset=start + entry["start"])
    return flat.reshape(entry["shape"])


def _check_identity(folder: Path, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    expected = json.loads(json.dumps(wanted))
    other = [key for key in sorted({*found, *expected}) if found.get(key) != expected.get(key)]
    if other:
        shown = [f"{key} ({_brief(found.get(key))}, now {_brief(expected.get(key))})" for key in other[:_SHOWN]]
        more = f" and {len(other) - _SHOWN} more" if len(other) > _SHOWN else ""
        raise UsageError(
            f"{folder} keeps another run, which differs in {', '.join(shown)}{more}",
            hint="Name another folder, or remove this one; a run goes on only with the same model, data and settings.",
        )


def _brief(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 20 else f"{text[:12]}…"
