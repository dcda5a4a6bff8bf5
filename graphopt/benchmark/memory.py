"""What a model costs before its first answer: session creation and peak memory, each in a fresh process.

In the measuring process itself neither could be told apart: the allocator keeps what an earlier model freed, and the
runtime's one-time start-up would be charged to whichever model came first. The fresh process also takes the fall if a
model crashes the runtime.
"""

from __future__ import annotations

import dataclasses
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from graphopt import errors
from graphopt.benchmark.probe import MARK, anonymous_bytes

__all__ = ["Footprint", "footprint"]

_SAMPLE_SECONDS = 0.002


@dataclasses.dataclass(frozen=True, slots=True)
class Footprint:
    """What opening a model takes.

    Attributes:
        session_ms: Milliseconds to create a session, the best of up to three.
        peak_bytes: Peak anonymous memory of creating a session and running it three times, beyond what the process
            had with the runtime and the feeds loaded. Weights that stay mapped from the file do not count. Elsewhere
            than on Linux the peak resident size, and ``None`` on Windows.
    """

    session_ms: float
    peak_bytes: int | None


def footprint(
    path: Path,
    feeds: Mapping[str, npt.NDArray[Any]],
    *,
    provider: str = "cpu",
    threads: int | None = None,
    device: str | None = None,
    custom_ops: Sequence[str] = (),
    time_limit: float = 600.0,
) -> Footprint:
    """Open ``path`` in a fresh process and run it on ``feeds``.

    Raises:
        ModelError: ONNX Runtime refuses the model, fails to run it, or crashes.
        LimitReached: The process took longer than ``time_limit`` seconds.
    """
    with tempfile.TemporaryDirectory(prefix="graphopt-bench-") as scratch:
        archive = Path(scratch, "feeds.npz")
        np.savez(archive, *(array.astype(str) if array.dtype == object else array for array in feeds.values()))
        request = {
            "path": str(path),
            "feeds": str(archive),
            "names": list(feeds),
            "provider": provider,
            "threads": threads,
            "device": device,
            "custom_ops": list(custom_ops),
        }
        with Path(scratch, "stderr").open("w+", encoding="utf-8", errors="replace") as log:
            return _serve(request, log, time.monotonic() + time_limit)


def _serve(request: Mapping[str, Any], log: IO[str], deadline: float) -> Footprint:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYTHONSAFEPATH": "1"}
    command = [sys.executable, "-m", "graphopt.benchmark.probe", json.dumps(request)]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env=environment, encoding="utf-8"
    )
    try:
        return _converse(process, str(request["path"]), log, deadline)
    finally:
        process.kill()
        process.communicate()


def _converse(process: subprocess.Popen[str], path: str, log: IO[str], deadline: float) -> Footprint:
    """Start the measurement once the child is ready, sample its memory while it works, return its answer."""
    assert process.stdin is not None
    lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    threading.Thread(target=_forward, args=(process.stdout, lines), daemon=True).start()
    peak, sampling = 0, False
    while True:
        try:
            line = lines.get(timeout=_SAMPLE_SECONDS if sampling else 0.1)
        except queue.Empty:
            if sampling:
                peak = max(peak, anonymous_bytes(process.pid) or 0)
            if time.monotonic() > deadline:
                raise errors.LimitReached(
                    f"{path}: opening the model and running it three times took longer than the time limit",
                    hint="Give smaller shapes, or leave this model out.",
                ) from None
            continue
        if line is None:
            raise errors.ModelError(_death(process.wait(), path, log))
        message = json.loads(line)
        if "error" in message:
            kind, text, hint = message["error"]
            raise getattr(errors, kind, errors.ModelError)(text, hint=hint)
        if "session_ms" in message:
            return _footprint(message, peak)
        sampling = "ready" in message
        if sampling:
            process.stdin.write("go\n")
            process.stdin.flush()


def _footprint(answer: Mapping[str, Any], sampled: int) -> Footprint:
    if answer["peak"] is None:
        return Footprint(answer["session_ms"], None)
    return Footprint(answer["session_ms"], max(0, answer["peak"], sampled) - answer["before"])


def _forward(stream: IO[str], lines: queue.SimpleQueue[str | None]) -> None:
    """Pass on the child's protocol lines, then ``None``."""
    for line in stream:
        if line.startswith(MARK):
            lines.put(line.removeprefix(MARK))
    lines.put(None)


def _death(code: int, path: str, log: IO[str]) -> str:
    log.seek(0)
    last = next((line.strip() for line in reversed(log.read().splitlines()) if line.strip()), "")
    try:
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"exited with code {code}"
    except ValueError:
        how = f"was killed by signal {-code}"
    return f"{path}: the process that ran the model {how}" + (f" ({last[:200]})" if last else "")
