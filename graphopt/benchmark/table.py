"""The result of a benchmark: plain data, JSON, and renderings for terminals and notebooks.

The JSON form, as ``graphopt bench --json`` prints it; milliseconds, bytes, and ``null`` for what is not known::

    {
      "schema": "graphopt.bench/1",
      "models": [
        {
          "name": "before", "path": "/models/before.onnx",
          "latency_ms": {"p50": 2.1, "p90": 2.2, "p99": 2.6, "min": 2.0, "mean": 2.1, "std": 0.1},
          "runs": 480, "throughput": 475.2,
          "speedup": null,
          "session_ms": 31.0, "peak_bytes": 21000000, "file_bytes": 4970000, "nodes": 105, "parameters": 1235496,
          "energy_mj": 31.4
        },
        {"name": "after", ..., "speedup": {"value": 1.34, "low": 1.33, "high": 1.36, "confidence": 0.95}}
      ],
      "settings": {"provider": "CPUExecutionProvider", "threads": null, "batch": null, "seed": 0, "rounds": 100,
                   "io_binding": false, "shapes": {"x": [1, 3, 224, 224]}, "energy": "package-0, dram"},
      "environment": {"onnxruntime": "1.31.1", "graphopt": "0.1.0", "python": "3.11.2", "platform": "...",
                      "processor": "...", "cores": 8}
    }

``throughput`` is items (batch entries, where a batch was asked for) a second. ``speedup`` is the first model's time
over this one's: above 1 is faster. Its bounds are ``null`` below five rounds. ``energy_mj`` is millijoules of a run,
``energy`` the counters that told so, or why they cannot be read if there are any.
"""

from __future__ import annotations

import dataclasses
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphopt.human import printable
from graphopt.version import __version__

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult

    from graphopt.benchmark.stats import Interval, Latency

__all__ = ["BenchRow", "BenchTable", "Settings", "environment"]

SCHEMA = "graphopt.bench/1"


@dataclasses.dataclass(frozen=True, slots=True)
class BenchRow:
    """What was measured of one model; see the module's page for units."""

    name: str
    path: Path | None
    latency: Latency
    runs: int
    throughput: float
    speedup: Interval | None
    session_ms: float
    peak_bytes: int | None
    file_bytes: int
    nodes: int
    parameters: int
    energy_mj: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """The row's JSON form."""
        return {
            "name": self.name,
            "path": None if self.path is None else str(self.path),
            "latency_ms": dataclasses.asdict(self.latency),
            "runs": self.runs,
            "throughput": self.throughput,
            "speedup": None if self.speedup is None else dataclasses.asdict(self.speedup),
            "session_ms": self.session_ms,
            "peak_bytes": self.peak_bytes,
            "file_bytes": self.file_bytes,
            "nodes": self.nodes,
            "parameters": self.parameters,
            "energy_mj": self.energy_mj,
        }


@dataclasses.dataclass(frozen=True, slots=True)
class Settings:
    """How it was measured."""

    provider: str
    threads: int | None
    batch: int | None
    seed: int
    rounds: int
    io_binding: bool
    shapes: Mapping[str, list[int]]
    energy: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class BenchTable:
    """Models timed against the first of them. Prints itself in a terminal (with rich) and in a notebook."""

    rows: tuple[BenchRow, ...]
    settings: Settings
    environment: Mapping[str, str | int | None]

    def to_dict(self) -> dict[str, Any]:
        """The JSON form that the module's page documents."""
        return {
            "schema": SCHEMA,
            "models": [row.to_dict() for row in self.rows],
            "settings": dataclasses.asdict(self.settings),
            "environment": dict(self.environment),
        }

    @property
    def verdict(self) -> str:
        """The result in a sentence; empty with a single model."""
        first = printable(self.rows[0].name)
        return "\n".join(_sentence(first, printable(row.name), row.speedup) for row in self.rows if row.speedup)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from graphopt.benchmark import render

        yield from render.terminal(self, console, options)

    def _repr_html_(self) -> str:
        from graphopt.benchmark import render

        return render.html(self)


def environment() -> dict[str, str | int | None]:
    """The software and hardware that figures depend on."""
    import onnxruntime as ort

    return {
        "onnxruntime": ort.__version__,
        "graphopt": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(terse=True),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.processor() or platform.machine()


def _sentence(first: str, name: str, speedup: Interval) -> str:
    if speedup.low is None or speedup.high is None:
        return f"{name} took 1/{speedup.value:.2f} of the time of {first}, in too few rounds to be sure."
    if not speedup.conclusive:
        return f"{name} and {first} are equally fast as far as this can tell."
    faster = speedup.value >= 1
    value, low, high = (speedup.value, speedup.low, speedup.high) if faster else _inverted(speedup)
    verb = "faster" if faster else "slower"
    return f"{name} is {value:.2f}x {verb} than {first} ({speedup.confidence:.0%} sure of {low:.2f} to {high:.2f})."


def _inverted(speedup: Interval) -> tuple[float, float, float]:
    assert speedup.low is not None
    assert speedup.high is not None
    return 1 / speedup.value, 1 / speedup.high, 1 / speedup.low
