"""Runs that are over, one JSON line each, so that a bench that was interrupted goes on where it was."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, TypeAlias

__all__ = ["FOLDER", "Figures", "Ledger", "write"]

Figures: TypeAlias = dict[str, Any]

FOLDER: Final = Path(__file__).parents[3] / ".zoo" / "distillation"


class Ledger:
    """What was measured, by the settings it was measured with. Several processes may add to one file.

    Args:
        name: Of the bench.
        folder: Where the file is.
    """

    def __init__(self, name: str, folder: Path = FOLDER) -> None:
        self._path = folder / f"{name}.jsonl"
        folder.mkdir(parents=True, exist_ok=True)

    def find(self, settings: Mapping[str, Any]) -> Figures | None:
        """The figures of a run that is over; the newest ones, if it was run twice."""
        lines = self._path.read_text().splitlines() if self._path.exists() else []
        records = [json.loads(line) for line in lines]
        found = [record["figures"] for record in records if record["settings"] == json.loads(json.dumps(settings))]
        return found[-1] if found else None

    def run(self, settings: Mapping[str, Any], measure: Callable[[], Figures]) -> Figures:
        """The figures of a run, made and recorded now unless they are there."""
        found = self.find(settings)
        if found is not None:
            return found
        began = time.perf_counter()
        figures = measure() | {"seconds": round(time.perf_counter() - began, 1)}
        line = json.dumps({"settings": settings, "figures": figures}) + "\n"
        with self._path.open("a") as file:  # a short line is appended at once
            file.write(line)
        print(line, end="", file=sys.stderr, flush=True)
        return figures


def write(path: Path, contents: bytes) -> None:
    """At once or not at all."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    temporary.write_bytes(contents)
    temporary.replace(path)
