"""The child process of :mod:`graphopt.benchmark.memory`: open one model in a fresh process and report.

Protocol, one JSON object a line on stdout behind :data:`MARK` (a custom operator may print, too): first
``{"ready": true}``, then, after a line on stdin, either ``{"session_ms", "before", "peak"}`` or ``{"error"}``.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from graphopt.errors import GraphoptError

__all__ = ["MARK", "anonymous_bytes", "main"]

MARK = "graphopt-probe "
_RUNS = 3
_AGAIN = 2
_AGAIN_BELOW_MS = 2000.0


def anonymous_bytes(pid: int | str = "self") -> int | None:
    """The process's anonymous resident memory (the heap, not mapped files); ``None`` where there is no /proc."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    for line in status.splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    return None


def _peak_bytes() -> int | None:
    """Anonymous memory now, or elsewhere than on Linux the process's peak so far, mapped files included."""
    anonymous = anonymous_bytes()
    if anonymous is not None or sys.platform == "win32":
        return anonymous
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def main() -> None:
    """Serve the one request given as JSON in the first argument."""
    request = json.loads(sys.argv[1])
    try:
        _say(_probe(request))
    except GraphoptError as error:
        _say({"error": [type(error).__name__, error.message, error.hint]})


def _probe(request: dict[str, Any]) -> dict[str, Any]:
    import numpy as np
    import onnxruntime  # noqa: F401  (its import belongs to the process, not to the model)

    from graphopt import runtime
    from graphopt.benchmark.binding import runner

    with np.load(request["feeds"], allow_pickle=False) as archive:
        feeds = {name: _from_archive(archive[f"arr_{index}"]) for index, name in enumerate(request["names"])}

    def open_session() -> tuple[Any, float]:
        start = time.perf_counter()
        session = runtime.open_session(
            Path(request["path"]),
            provider=request["provider"],
            threads=request["threads"],
            custom_ops=request["custom_ops"],
        )
        return session, (time.perf_counter() - start) * 1e3

    _say({"ready": True})
    sys.stdin.readline()
    before = _peak_bytes()
    session, milliseconds = open_session()
    peaks = [_peak_bytes()]
    run = runner(session, feeds, device=request["device"])
    for _ in range(_RUNS):
        run()
        peaks.append(_peak_bytes())
    known = [peak for peak in peaks if peak is not None]
    _say({"measured": True})
    if milliseconds < _AGAIN_BELOW_MS:
        del session, run
        milliseconds = min(milliseconds, *(open_session()[1] for _ in range(_AGAIN)))
    return {"session_ms": milliseconds, "before": before, "peak": max(known, default=None)}


def _from_archive(array: Any) -> Any:
    """Strings travel as fixed-width text, since pickles are not allowed; ONNX Runtime wants objects."""
    return array.astype(object) if array.dtype.kind == "U" else array


def _say(message: dict[str, Any]) -> None:
    sys.stdout.write(f"\n{MARK}{json.dumps(message)}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
