"""A lock that one process holds and that ends with it, however it ends: no stale lock is left to be found."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from graphopt.errors import LimitReached, SaveError

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

__all__ = ["exclusive"]

_PAUSE: Final = 0.1  # seconds between tries
_TAKEN: Final = {errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES, errno.EDEADLK}
_FAR: Final = 1 << 30  # Windows locks bytes, and those before stay readable


@contextlib.contextmanager
def exclusive(path: Path, *, wait: float | None = None, waiting: Callable[[str], None] | None = None) -> Iterator[None]:
    """Holds the lock of a file, which is made if need be and stays.

    The file says who holds it, but only the system's lock counts: one of a killed process is free at once. On a file
    system without locks nothing is locked.

    Args:
        path: The file.
        wait: Seconds to wait for another process; None for as long as it takes.
        waiting: Told once, before the waiting, who holds the lock.

    Raises:
        LimitReached: Another process holds it for longer than ``wait``.
        SaveError: The file cannot be made.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise SaveError(f"{path}: cannot be written: {error.strerror or error}") from error
    try:
        deadline = None if wait is None else time.monotonic() + wait
        told = False
        while not _take(descriptor):
            holder = _holder(path)
            if deadline is not None and time.monotonic() >= deadline:
                raise LimitReached(
                    f"{path.parent}: {holder} is at work on it", hint="Let it finish, or name another folder."
                )
            if waiting is not None and not told:
                waiting(holder)
                told = True
            time.sleep(_PAUSE)
        with contextlib.suppress(OSError):  # a full disk: the name is only for messages
            os.ftruncate(descriptor, 0)
            os.lseek(descriptor, 0, os.SEEK_SET)
            os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode())
        yield
    finally:
        os.close(descriptor)


def _take(descriptor: int) -> bool:
    try:
        if sys.platform == "win32":
            os.lseek(descriptor, _FAR, os.SEEK_SET)
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in _TAKEN
    return True


def _holder(path: Path) -> str:
    try:
        text = path.read_text("utf-8", errors="replace")[:200]
    except OSError:
        text = ""
    return " ".join(text.split()) or "another process"
