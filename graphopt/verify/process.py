"""The worker as its parent sees it: a process that is started, asked, watched, and killed when it takes too much."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Final, Literal

from graphopt.human import byte_size
from graphopt.verify.protocol import Message, receive, send

__all__ = ["Worker", "WorkerLost", "available_memory"]

_POLL: Final = 0.03  # seconds between two looks at the worker's memory


class WorkerLost(Exception):
    """The worker is gone: out of ``time`` or ``memory``, dead in ONNX Runtime (``crash``), or failed by a ``bug``."""

    def __init__(self, reason: Literal["time", "memory", "crash", "bug"], detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


class Worker:
    """A process that runs models in ONNX Runtime. It starts at once and ends with :meth:`close` or with its parent.

    Args:
        memory_limit: Bytes of anonymous memory (what no file backs) it may hold; watched on Linux only.
    """

    def __init__(self, memory_limit: int | None) -> None:
        self.memory_limit = memory_limit
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the worker; has no name on POSIX
        root = str(Path(__file__).parents[2])
        paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "graphopt.verify.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONSAFEPATH": "1"},
            start_new_session=True,  # an interrupt from the terminal is the parent's to handle
        )

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def request(self, message: Message, time_limit: float) -> Message:
        """Ask, wait, and return the reply.

        Raises:
            WorkerLost: The worker took more than ``time_limit`` seconds, too much memory, or died.
        """
        done = threading.Event()
        verdict: list[WorkerLost] = []
        guard = threading.Thread(target=self._guard, args=(done, time_limit, verdict), daemon=True)
        guard.start()
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            send(self._process.stdin, message)
            return receive(self._process.stdout)
        except (EOFError, OSError) as error:
            done.set()
            guard.join()
            raise (verdict[0] if verdict else self._autopsy()) from error
        finally:
            done.set()
            guard.join()

    def close(self) -> None:
        """Kill the worker and release its pipes. Harmless when it is gone."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._stderr):
            if stream is not None:
                try:
                    stream.close()
                except OSError:  # what was still buffered for a dead worker
                    continue

    def _guard(self, done: threading.Event, time_limit: float, verdict: list[WorkerLost]) -> None:
        end = time.monotonic() + time_limit
        while not done.wait(_POLL):
            if time.monotonic() > end:
                verdict.append(WorkerLost("time", "it took too long"))
            elif self.memory_limit is not None and anonymous_memory(self.pid) > self.memory_limit:
                verdict.append(WorkerLost("memory", f"it took more than {byte_size(self.memory_limit)} of memory"))
            if verdict:
                self._process.kill()
                return

    def _autopsy(self) -> WorkerLost:
        code = self._process.wait()
        if code == -getattr(signal, "SIGKILL", 9):
            return WorkerLost("memory", "it was killed from outside, most likely because memory ran out")
        if code < 0:
            return WorkerLost("crash", f"ONNX Runtime crashed ({signal.Signals(-code).name})")
        self._stderr.seek(0)
        said = self._stderr.read().decode(errors="replace").strip()
        if code == 1 and said.rpartition("Traceback (most recent call last)")[1]:
            return WorkerLost("bug", said)
        return WorkerLost("crash", f"the worker ended with exit code {code}{f': {said[-300:]}' if said else ''}")


def anonymous_memory(pid: int) -> int:
    """Bytes of memory that no file backs; 0 where the system does not tell."""
    try:
        status = Path(f"/proc/{pid}/status").read_bytes()
    except OSError:
        return 0
    return sum(_number(status, key) for key in (b"RssAnon:", b"VmSwap:")) * 1024


def available_memory() -> int | None:
    """Bytes that a new process may take before the system (or its control group) runs out; None if unknown."""
    try:
        free = _number(Path("/proc/meminfo").read_bytes(), b"MemAvailable:") * 1024
    except OSError:
        return None
    group = Path("/sys/fs/cgroup")
    try:
        limit = (group / "memory.max").read_text().strip()
        used = int((group / "memory.current").read_text())
        inactive = _number((group / "memory.stat").read_bytes(), b"inactive_file ")
    except (OSError, ValueError):
        return free or None
    return min(free, max(0, int(limit) - used + inactive)) if limit.isdigit() else free


def _number(text: bytes, key: bytes) -> int:
    for line in text.splitlines():
        if line.startswith(key):
            return int(line[len(key) :].split()[0])
    return 0
