"""Which node takes how long: ONNX Runtime's own profile of a model, after its own optimizations."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from graphopt import runtime
from graphopt.errors import ModelError, SaveError

__all__ = ["NodeTime", "node_times"]

_WARMUP: Final = 3
_KERNEL: Final = "_kernel_time"
_FUSED: Final = re.compile(r"^fused |_nchwc$|_quant$|_token_\d+$")
"""What ONNX Runtime adds to the name of a node that it has replaced."""


class NodeTime(NamedTuple):
    """A node and its time.

    Attributes:
        name: Its name in the model, as far as ONNX Runtime keeps it.
        op: The operator that ran.
        milliseconds: The mean over the middle half of the runs: single times come in microseconds.
    """

    name: str
    op: str
    milliseconds: float


def node_times(
    model: Path, feeds: Mapping[str, Any], *, provider: str = "cpu", threads: int | None = None, runs: int = 20
) -> list[NodeTime]:
    """Times each node of a model, slowest first.

    Args:
        model: Its file.
        feeds: One run.
        provider: Execution provider.
        threads: Intra-op threads.
        runs: How many are timed.

    Raises:
        ModelError: ONNX Runtime cannot run it.
        EnvironmentProblem: The provider is missing.
        SaveError: There is no room for temporary files.
    """
    with tempfile.TemporaryDirectory(prefix="graphopt-profile-") as folder:
        session = runtime.open_session(model, provider=provider, threads=threads, profile=Path(folder) / "run")
        try:
            for _ in range(_WARMUP + runs):
                session.run(None, dict(feeds))
        except runtime.ort_errors() as error:
            raise ModelError(f"ONNX Runtime cannot run the model: {runtime.trim(error)}") from error
        try:
            events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise SaveError(
                f"ONNX Runtime could not write its profile to {folder}", hint="Free some room for temporary files."
            ) from error
    taken: dict[tuple[str, str], list[float]] = {}
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith(_KERNEL):
            name = _FUSED.sub("", event["name"].removesuffix(_KERNEL))
            taken.setdefault((name, event["args"].get("op_name", "")), []).append(event["dur"] / 1000)
    # A node in a loop runs several times a run: its time is that of all of them.
    found = [NodeTime(*key, _per_run(own, _WARMUP + runs)) for key, own in taken.items()]
    return sorted(found, key=lambda one: -one.milliseconds)


def _per_run(times: list[float], runs: int) -> float:
    """The mean over the middle half of the runs, the first ones left out."""
    each = max(1, len(times) // runs)
    sums = sorted(sum(times[at : at + each]) for at in range(_WARMUP * each, len(times), each))
    middle = sums[len(sums) // 4 : -(len(sums) // 4) or None]
    return sum(middle) / max(1, len(middle))
