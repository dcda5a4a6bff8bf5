"""The folder of one compression: everything that was worked out, so that an interrupted run goes on from there.

::

    run.json            what the run is of: model, data, settings; another run is refused
    latency.json        what was measured: of models, of operators, and which layers are slower in int8
    optimized.onnx      the original after the default passes
    pruning/            rankings
    plans/CUT.json      what goes, for each cut that was tried: how far, and steps from there
    pruned/CUT.onnx     without it, refitted
    trained/CUT.onnx    and distilled; trained/CUT/ keeps checkpoints meanwhile
    aware/CUT/          checkpoints of the distillation in int8
    variants/NAME.onnx  in a precision: what was measured; NAME.json beside it says how good it is
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import onnx_ir as ir

from graphopt import io
from graphopt.atomic import Replacement
from graphopt.errors import ModelError, SaveError, UsageError

__all__ = ["LATENCIES", "Workspace"]

LATENCIES: Final = "latency.json"
_LOCK: Final = "lock"
_OURS: Final = (
    _LOCK,
    "original.onnx",
    "data.npz",
    "evaluation.npz",
    "trial.json",
    "data.npz.part",
    "evaluation.npz.part",
)
"""What may be there before it is said what the run is of."""


class Workspace:
    """A folder of files that are written whole or not at all.

    Args:
        folder: The folder.

    Attributes:
        folder: The folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def lock(self) -> Path:
        """The file that a process locks while it works here."""
        return self.folder / _LOCK

    def prepare(self) -> None:
        """Makes the folder, if it is not there.

        Raises:
            UsageError: It is there, and is of something else.
            SaveError: It cannot be made.
        """
        if self.folder.exists() and not self.folder.is_dir():
            raise UsageError(f"{self.folder} is no folder", hint="Name a new folder for the run.")
        if self.folder.exists() and not (self.folder / "run.json").exists():
            strangers = [one for one in self.folder.iterdir() if one.name not in _OURS and ".run.json" not in one.name]
            if strangers:
                raise UsageError(
                    f"{self.folder} is no folder of a compression, and not empty", hint="Name a new folder for the run."
                )
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SaveError(f"{self.folder} cannot be made: {error.strerror or error}") from error

    def claim(self, identity: Mapping[str, Any]) -> None:
        """Says what the run is of; that of another run is refused.

        Raises:
            UsageError: The folder keeps another run.
            SaveError: It cannot be written.
        """
        own = json.loads(json.dumps(identity))
        kept = self.read("run.json")
        if kept is None:
            self.write("run.json", own)
        elif kept != own:
            other = [name for name in own if kept.get(name) != own[name]]
            raise UsageError(
                f"{self.folder} keeps another run, of other {' and '.join(other) or 'versions'}",
                hint="Name another folder, or remove this one.",
            )

    def read(self, name: str) -> dict[str, Any] | None:
        """The data of a JSON file; None if it is not there, or damaged."""
        try:
            found = json.loads((self.folder / name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return found if isinstance(found, dict) else None

    def write(self, name: str, data: Mapping[str, Any]) -> None:
        """Writes a JSON file.

        Raises:
            SaveError: It cannot be written.
        """
        self.write_text(name, json.dumps(data, indent=1) + "\n")

    def write_text(self, name: str, text: str) -> None:
        """Writes a text.

        Raises:
            SaveError: It cannot be written.
        """
        path = self.folder / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with Replacement(path) as file:
                file.write([text.encode()])
                file.commit()
        except OSError as error:
            raise SaveError(f"{path}: cannot be written: {error.strerror or error}") from error

    def model(self, name: str, make: Callable[[], ir.Model]) -> Path:
        """The path of a model, made unless it is there.

        Raises:
            SaveError: It cannot be written.
        """
        path = self.folder / f"{name}.onnx"
        if path.exists():
            try:
                io.load(path)
            except ModelError:
                path.unlink()
            else:
                return path
        made = make()
        path.parent.mkdir(parents=True, exist_ok=True)
        io.save(made, path)
        return path
