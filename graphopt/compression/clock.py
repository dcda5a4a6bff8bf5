"""Measured latencies of whole models, kept: whoever has the same table decides the same.

A table is a JSON file::

    {"schema": "graphopt.compression/1", "key": "...", "operators": {...}, "models": {"3f0a...": 0.412, ...}}

``operators`` is what :mod:`graphopt.pruning.latency` has measured of single operators, ``models`` the share of the
original's latency that a model takes, by a digest of its structure: weights do not change it.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import onnx_ir as ir

from graphopt import io
from graphopt.compression.context import Context
from graphopt.compression.workspace import LATENCIES
from graphopt.errors import ModelError, UsageError
from graphopt.pruning.latency.measure import Stopwatch
from graphopt.pruning.latency.table import LatencyTable
from graphopt.pruning.plan import digest_of

__all__ = ["Clock", "Table", "opened_table"]

_SCHEMA: Final = "graphopt.compression/1"
_SECONDS: Final = 1.0
_SHARED: Final = 2  # times as long where threads wait for each other, and for whatever else runs


class Table:
    """What was measured.

    Args:
        key: Of what, and how: model, provider, threads, batch.
        save: Called with the text of the table after each measurement.

    Attributes:
        operators: Times of operators, if they were measured.
        models: Shares of the original's latency, by digest.
        milliseconds: Of the original; NaN until it was measured.
        floats: Layers that are slower in int8, or err too much; ``None`` until that was measured.
    """

    def __init__(self, key: Mapping[str, Any], save: Callable[[str], None]) -> None:
        self.key = dict(key)
        self.operators: LatencyTable | None = None
        self.models: dict[str, float] = {}
        self.milliseconds = float("nan")
        self.floats: list[str] | None = None
        self._save = save

    def keep(self) -> None:
        """Saves what there is."""
        self._save(self.to_json())

    def to_json(self) -> str:
        """As text."""
        content = {
            "schema": _SCHEMA,
            "key": self.key,
            "milliseconds": self.milliseconds if self.models else None,
            "models": self.models,
            "floats": self.floats,
            "operators": None if self.operators is None else json.loads(self.operators.to_json()),
        }
        return json.dumps(content, indent=1) + "\n"

    def read(self, path: str | os.PathLike[str]) -> None:
        """Takes over what a file holds.

        Raises:
            ModelError: It cannot be read, or is no such table.
            UsageError: It is of something else.
        """
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
            if content["schema"] != _SCHEMA:
                raise KeyError("schema")
            key = dict(content["key"])
            models = {str(name): _positive(share) for name, share in content["models"].items()}
            operators, floats = content["operators"], content.get("floats")
            floats = None if floats is None else [str(name) for name in floats]
            table = None if operators is None else LatencyTable.from_json(json.dumps(operators))
            milliseconds = _positive(content["milliseconds"]) if models else float("nan")
        except OSError as error:
            raise ModelError(f"cannot read the latency table {os.fspath(path)}: {error.strerror or error}") from error
        except (ValueError, KeyError, TypeError, AttributeError, ModelError) as error:
            raise ModelError(
                f"{os.fspath(path)} is no latency table of graphopt compress", hint="Name a new file: it is written."
            ) from error
        other = [f"{name} is {key.get(name)!r}, not {own!r}" for name, own in self.key.items() if key.get(name) != own]
        if other:
            raise UsageError(
                f"the latency table {os.fspath(path)} is of something else: {'; '.join(other)}",
                hint="Name a new file: it is written.",
            )
        self.models, self.operators, self.milliseconds, self.floats = models, table, milliseconds, floats


def _positive(given: Any) -> float:
    """A measured number.

    Raises:
        ValueError: It is none.
    """
    number = float(given)
    if not 0 < number < float("inf"):
        raise ValueError(given)
    return number


def opened_table(context: Context, file: Path | None) -> Table:
    """The table of a run: what it has measured so far, else what a file holds; what is measured goes to both.

    Args:
        context: The run.
        file: The file, if there is one.

    Raises:
        ModelError: ``file`` cannot be read, or is no such table.
        UsageError: It is of something else.
    """
    settings, workspace = context.settings, context.workspace
    kept = workspace.folder / LATENCIES

    def save(text: str) -> None:
        workspace.write_text(LATENCIES, text)
        if file is not None:
            io.write_text(file, text)

    key = {"provider": settings.provider, "threads": settings.threads, "batch": settings.batch}
    table = Table({"model": digest_of(context.model), **key}, save)
    if kept.exists():
        with contextlib.suppress(ModelError):  # a damaged one is measured again
            table.read(kept)
            return table
    if file is not None and file.exists():
        table.read(file)
        workspace.write_text(LATENCIES, table.to_json())
    return table


class Clock:
    """Tells what share of the original's latency a model takes; measures once, then remembers.

    A context manager, since the original's session stays open.

    Args:
        original: The path of the original.
        feeds: One run.
        table: What was measured before, and takes what is measured.
        provider: Execution provider.
        threads: Intra-op threads.
        seed: Of the order of runs.
    """

    def __init__(
        self, original: Path, feeds: Mapping[str, Any], table: Table, *, provider: str, threads: int | None, seed: int
    ) -> None:
        self._make: Callable[[], Stopwatch] = lambda: Stopwatch(
            original,
            feeds,
            provider=provider,
            threads=threads,
            seconds=_SECONDS * (1 if threads == 1 else _SHARED),
            seed=seed,
        )
        self._watch: Stopwatch | None = None
        self._table = table

    def __enter__(self) -> Clock:
        return self

    def __exit__(self, *_: object) -> None:
        if self._watch is not None:
            self._watch.close()

    def share(self, model: Path | ir.Model) -> float:
        """The share of the original's latency that a model, or the one of a path, takes.

        Raises:
            ModelError: ONNX Runtime does not run it.
        """
        digest = digest_of(model if isinstance(model, ir.Model) else io.load(model))
        if digest not in self._table.models:
            if self._watch is None:
                self._watch = self._make()
            self._table.models[digest] = round(1 / self._watch.ratio(model).value, 5)
            self._table.milliseconds = self._watch.milliseconds
            self._table.keep()
        return self._table.models[digest]
