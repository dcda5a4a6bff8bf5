"""One process a tool, kept alive between runs, so that times are those of a warm process and a crash stays contained.

The parent sends one JSON object a line, ``{"source": ..., "output": ...}``, and gets one back.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import IO, Any

__all__ = ["Reply", "Worker"]

_TICK = 0.002  # seconds between two looks at the memory of a running tool


@dataclasses.dataclass(frozen=True)
class Reply:
    """What came of one run.

    Attributes:
        seconds: From load to save.
        error: Why there is no result; empty when there is one.
        peak: Anonymous memory beyond that before the run, in bytes.
    """

    seconds: float = 0.0
    error: str = ""
    peak: int = 0


class Worker:
    """A tool in a process of its own; started again after a crash.

    Args:
        tool: A name in :data:`bench.tools.TOOLS`.
    """

    def __init__(self, tool: str) -> None:
        self.tool = tool
        self._process: subprocess.Popen[bytes] | None = None

    def run(self, source: Path, output: Path, *, timeout: float = 600) -> Reply:
        """Optimizes ``source`` into ``output``."""
        if self._process is None:
            ready = self._start(timeout)
            if ready.error:
                self.close()
                return ready
        before = self._memory()
        self._send({"source": str(source), "output": str(output)})
        return self._receive(timeout, before)

    def close(self) -> None:
        """Ends the process."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                assert pipe is not None
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
            self._process = None

    def _start(self, timeout: float) -> Reply:
        here = Path(__file__).parent
        paths = [str(here.parent), str(here.parents[1]), str(here.parents[1] / "passes"), os.environ.get("PYTHONPATH")]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.worker", self.tool],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in paths if path)},
            cwd=tempfile.gettempdir(),
        )
        return self._receive(timeout, 0)

    def _send(self, message: dict[str, str]) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(message).encode() + b"\n")
        self._process.stdin.flush()

    def _receive(self, timeout: float, before: int) -> Reply:
        assert self._process is not None
        assert self._process.stdout is not None
        deadline = time.monotonic() + timeout
        peak = before
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while not selector.select(_TICK):
                peak = max(peak, self._memory())
                if time.monotonic() > deadline:
                    self.close()
                    return Reply(error=f"no result in {timeout:g} s")
        line = self._process.stdout.readline()
        if not line:
            code = self._process.wait()
            self.close()
            reason = signal.Signals(-code).name if code < 0 else f"exit {code}"
            return Reply(error=f"crashed ({reason})")
        answer: dict[str, Any] = json.loads(line)
        return Reply(answer["seconds"], answer["error"], max(0, max(peak, self._memory()) - before))

    def _memory(self) -> int:
        """Anonymous and shared memory in bytes; mapped files, which the system can drop, do not count."""
        assert self._process is not None
        try:
            status = Path(f"/proc/{self._process.pid}/status").read_text()
        except (FileNotFoundError, ProcessLookupError):
            return 0
        fields = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
        return sum(int(fields.get(key, "0 kB").split()[0]) for key in ("RssAnon", "RssShmem")) * 1024


def _serve(tool: str, orders: IO[str], replies: IO[str]) -> None:
    from bench.tools import TOOLS, prepare

    prepare(tool)
    _answer(replies, 0.0, "")
    for line in orders:
        message = json.loads(line)
        gc.collect()
        os.sync()  # graphopt alone flushes what it writes; it must not wait for what the others left behind
        start = time.perf_counter()
        try:
            TOOLS[tool](message["source"], message["output"])
            error = ""
        except Exception as problem:  # noqa: BLE001 -- whatever a tool raises is a row of the table
            error = f"{type(problem).__name__}: {' '.join(str(problem).split())[:200]}"
        _answer(replies, time.perf_counter() - start, error)


def _answer(replies: IO[str], seconds: float, error: str) -> None:
    replies.write(json.dumps({"seconds": seconds, "error": error}) + "\n")
    replies.flush()


def _main() -> None:
    replies = os.fdopen(os.dup(1), "w")
    silence = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):  # several tools print
        os.dup2(silence, stream)
    try:
        _serve(sys.argv[1], sys.stdin, replies)
    except ImportError as error:
        _answer(replies, 0.0, f"not installed: {error}")


if __name__ == "__main__":
    _main()
