"""What a model costs before its first answer: session creation and peak memory, each in a fresh process.

In the measuring process itself neither could be told apart: the allocator keeps what an earlier model freed, and the
runtime's one-time start-up would be charged to whichever model came first. The fresh process also takes the fall if a
model crashes the runtime.
"""

from __future__ import annotations

import contextlib
import dataclasses
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

from graphopt import errors
from graphopt.verify.process import anonymous_memory
from graphopt.verify.protocol import Message, receive, send

__all__ = ["CannotRun", "Footprint", "footprint"]

_SAMPLE_SECONDS = 0.002


class CannotRun(errors.ModelError):
    """ONNX Runtime opens the model but does not run it on these feeds."""


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
    feeds: Mapping[str, Any],
    *,
    provider: str = "cpu",
    threads: int | None = None,
    device: str | None = None,
    custom_ops: Sequence[str] = (),
    time_limit: float = 600.0,
) -> Footprint:
    """Open ``path`` in a fresh process and run it on ``feeds``.

    Raises:
        ModelError: ONNX Runtime refuses the model or crashes; :class:`CannotRun` where other feeds may help.
        LimitReached: The process took longer than ``time_limit`` seconds.
    """
    request = {
        "path": str(path),
        "feeds": dict(feeds),
        "provider": provider,
        "threads": threads,
        "device": device,
        "custom_ops": [str(library) for library in custom_ops],
    }
    paths = [str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONSAFEPATH": "1"}
    command = [sys.executable, "-m", "graphopt.benchmark.probe"]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env=environment, start_new_session=True
        )
        try:
            return _converse(process, request, log, time.monotonic() + time_limit)
        finally:
            process.kill()
            process.wait()
            _close(process)


def _converse(process: subprocess.Popen[bytes], request: Message, log: IO[bytes], deadline: float) -> Footprint:
    """Start the measurement once the child is ready, sample its memory while it works, return its answer."""
    assert process.stdin is not None
    assert process.stdout is not None
    path = request["path"]
    replies: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
    threading.Thread(target=_forward, args=(process.stdout, replies), daemon=True).start()
    peak, sampling = 0, False
    try:
        send(process.stdin, request)
        while True:
            reply = _next(replies, deadline, path, _SAMPLE_SECONDS if sampling else 0.1)
            if reply is None:
                raise errors.ModelError(_death(process, path, log))
            if "error" in reply:
                kind = CannotRun if "ran" in reply else getattr(errors, reply["error"])
                raise kind(reply["message"], hint=reply["hint"])
            if "session_ms" in reply:
                known = reply["peak"] is not None and reply["before"] is not None
                return Footprint(reply["session_ms"], max(reply["peak"], peak) - reply["before"] if known else None)
            if "ready" in reply:
                send(process.stdin, {"go": True})
            sampling = "measured" not in reply
            if sampling:
                peak = max(peak, anonymous_memory(process.pid))
    except BrokenPipeError:
        raise errors.ModelError(_death(process, path, log)) from None


def _next(replies: queue.SimpleQueue[Message | None], deadline: float, path: str, wait: float) -> Message | None:
    """The child's next message, an empty one if none came in time, ``None`` at its end."""
    try:
        return replies.get(timeout=wait)
    except queue.Empty:
        if time.monotonic() > deadline:
            raise errors.LimitReached(
                f"{path}: opening the model and running it three times took longer than the time limit",
                hint="Give smaller shapes, or leave this model out.",
            ) from None
        return {}


def _forward(stream: IO[bytes], replies: queue.SimpleQueue[Message | None]) -> None:
    """Pass on the child's messages, then ``None``."""
    try:
        while True:
            replies.put(receive(stream))
    except (EOFError, OSError, ValueError):  # the child is gone, or its pipe was closed under us
        replies.put(None)


def _close(process: subprocess.Popen[bytes]) -> None:
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with contextlib.suppress(OSError):  # what was still buffered for a dead child
                stream.close()


def _death(process: subprocess.Popen[bytes], path: str, log: IO[bytes]) -> str:
    code = process.wait()
    log.seek(0)
    lines = [line.strip() for line in log.read().decode(errors="replace").splitlines() if line.strip()]
    try:
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"exited with code {code}"
    except ValueError:
        how = f"was killed by signal {-code}"
    return f"{path}: the process that ran the model {how}" + (f" ({lines[-1][:200]})" if lines else "")
