"""The child process of :mod:`graphopt.benchmark.memory`: open one model in a fresh process and report.

It is sent one request, answers ``{"ready"}`` once everything is loaded that is not the model's, and waits for a word.
Then it measures and says ``{"measured"}``, and last of all ``{"session_ms", "before", "peak"}``, or ``{"error"}``.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import IO, Any

from graphopt import runtime
from graphopt.benchmark.binding import runner
from graphopt.errors import GraphoptError, ModelError
from graphopt.verify.process import anonymous_memory
from graphopt.verify.protocol import Message, receive, send

__all__ = ["main"]

_RUNS = 3
_AGAIN = 2
_AGAIN_BELOW_MS = 2000.0


def main() -> None:
    """Serve one request on stdin, answer on stdout."""
    requests, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever prints, prints elsewhere
    try:
        send(replies, _probe(receive(requests), requests, replies))
    except GraphoptError as error:
        send(replies, {"error": type(error).__name__, "message": error.message, "hint": error.hint})


def _probe(request: Message, requests: IO[bytes], replies: IO[bytes]) -> Message:
    import onnxruntime  # noqa: F401  (its import belongs to the process, not to the model)

    send(replies, {"ready": True})
    receive(requests)
    before = _memory()
    session, milliseconds = _open(request)
    peaks = [_memory()]
    try:
        run = runner(session, request["feeds"], device=request["device"])
        for _ in range(_RUNS):
            run()
            peaks.append(_memory())
    except runtime.ort_errors() as error:
        message = f"{request['path']}: ONNX Runtime cannot run the model: {runtime.trim(error)}"
        return {"error": ModelError.__name__, "message": message, "hint": "", "ran": False}
    send(replies, {"measured": True})
    if milliseconds < _AGAIN_BELOW_MS:
        del session, run
        milliseconds = min(milliseconds, *(_open(request)[1] for _ in range(_AGAIN)))
    return {
        "session_ms": milliseconds,
        "before": before,
        "peak": None if None in peaks else max(peak for peak in peaks if peak is not None),
    }


def _open(request: Message) -> tuple[Any, float]:
    start = time.perf_counter()
    session = runtime.open_session(
        Path(request["path"]),
        provider=request["provider"],
        threads=request["threads"],
        custom_ops=request["custom_ops"],
    )
    return session, (time.perf_counter() - start) * 1e3


def _memory() -> int | None:
    """Anonymous memory now, or elsewhere than on Linux the process's peak so far, mapped files included."""
    anonymous = anonymous_memory(os.getpid())
    if anonymous:
        return anonymous
    if sys.platform == "win32":
        return None
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


if __name__ == "__main__":
    main()
