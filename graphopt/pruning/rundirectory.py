"""A folder that keeps what a run worked out, so that an interrupted one goes on from there."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from graphopt.atomic import Replacement
from graphopt.channels.atoms import Mask
from graphopt.channels.groups import ChannelGraph
from graphopt.errors import SaveError, UsageError
from graphopt.pruning.importance.evidence import Ranking

if TYPE_CHECKING:
    from graphopt.pruning.latency.table import LatencyTable
    from graphopt.pruning.plan import Settings

__all__ = ["RunDirectory", "Store"]

Array = npt.NDArray[Any]


class Store(Protocol):
    """Keeps arrays by name."""

    def load(self, name: str) -> Mapping[str, Array] | None:
        """What was kept under a name, if anything."""

    def save(self, name: str, arrays: Mapping[str, Array]) -> None:
        """Keeps arrays."""


class RunDirectory:
    """The folder of one run; without a folder it keeps nothing.

    Args:
        folder: The folder, made when something is kept.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    @classmethod
    def of(cls, path: str | Path | None) -> RunDirectory:
        """The directory of a path."""
        return cls(None if path is None else Path(path).absolute())

    @property
    def keeps(self) -> bool:
        """Whether there is a folder."""
        return self._folder is not None

    def open(self, model: str, data: str, settings: Settings) -> None:
        """Takes the folder for a run, or goes on with one of the same model, data and settings.

        Raises:
            UsageError: The folder is of another run.
            SaveError: It cannot be written.
        """
        if self._folder is None:
            return
        identity = {"model": model, "data": data, "settings": dataclasses.asdict(settings)}
        text = json.dumps(identity, indent=2) + "\n"
        file = self._folder / "run.json"
        if file.is_file():
            try:
                kept = file.read_bytes()
            except OSError as error:
                raise UsageError(
                    f"{file}: cannot be read: {error.strerror or error}", hint="Name another folder."
                ) from error
            if kept != text.encode():
                raise UsageError(
                    f"{self._folder} keeps another run: its model, data or settings differ",
                    hint="Name another folder, or remove this one.",
                )
            return
        if self._folder.exists() and not (self._folder.is_dir() and all(map(_is_ours, self._folder.iterdir()))):
            raise UsageError(f"{self._folder} is no folder of a run, and not empty", hint="Name a new folder.")
        self._write("run.json", text.encode())

    def rankings(
        self, graph: ChannelGraph, work_out: Callable[[], list[Ranking]], gone: Mask | None = None
    ) -> list[Ranking]:
        """The rankings of a run, after the removal of ``gone``: kept ones, or else worked out and kept."""
        name = "rankings" if gone is None else f"rankings-{_key(gone)}"
        kept = self.load(name)
        if kept is not None:
            return [Ranking(group, kept[f"order{group.index}"], kept[f"harm{group.index}"]) for group in graph.groups]
        rankings = work_out()
        orders = {f"order{one.group.index}": one.order for one in rankings}
        self.save(name, orders | {f"harm{one.group.index}": one.harm for one in rankings})
        return rankings

    def latency_table(self) -> Path | None:
        """The file of a table that was measured before."""
        file = None if self._folder is None else self._folder / "latency.json"
        return file if file is not None and file.is_file() else None

    def save_latency_table(self, table: LatencyTable) -> None:
        """Keeps a table."""
        if self._folder is not None:
            self._write("latency.json", table.to_json().encode())

    def fits(self, gone: Mask, blocks: Iterable[str] = ()) -> Store:
        """Where the fits after a removal are kept."""
        return _Fits(self, _key(gone, *blocks))

    def load(self, name: str) -> Mapping[str, Array] | None:
        """Arrays that were kept; ``None`` if there are none, or only damaged ones."""
        if self._folder is None:
            return None
        try:
            with np.load(self._folder / f"{name}.npz", allow_pickle=False) as archive:
                return {key: archive[key] for key in archive.files}
        except (OSError, ValueError, EOFError, zipfile.BadZipFile):
            return None

    def save(self, name: str, arrays: Mapping[str, Array]) -> None:
        """Keeps arrays, all of them or nothing."""
        if self._folder is None:
            return
        import io

        stream = io.BytesIO()
        np.savez(stream, **dict(arrays))  # type: ignore[arg-type]
        self._write(f"{name}.npz", stream.getvalue())

    def _write(self, name: str, contents: bytes) -> None:
        assert self._folder is not None
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with Replacement(self._folder / name) as file:
                file.write([contents])
                file.commit()
        except OSError as error:
            raise SaveError(f"{self._folder / name}: cannot be written: {error.strerror or error}") from error


class _Fits:
    """Fits of one removal, each in a file."""

    def __init__(self, directory: RunDirectory, key: str) -> None:
        self._directory = directory
        self._key = key

    def load(self, name: str) -> Mapping[str, Array] | None:
        return self._directory.load(self._file(name))

    def save(self, name: str, arrays: Mapping[str, Array]) -> None:
        self._directory.save(self._file(name), arrays)

    def _file(self, name: str) -> str:
        return f"fit-{self._key}-{hashlib.sha256(name.encode()).hexdigest()[:16]}"


def _is_ours(path: Path) -> bool:
    """Whether it is what is left of a run that was killed before it had begun."""
    return path.name.startswith(".run.json.")


def _key(gone: Mask, *blocks: str) -> str:
    return hashlib.sha256(b"\0".join([gone.tobytes(), *(name.encode() for name in blocks)])).hexdigest()[:16]
