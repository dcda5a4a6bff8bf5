"""Replace files atomically: the old one or the new one is there, whatever happens, and nothing else.

A file is written under a temporary name beside its target, ``.NAME.N.tmp``, on a lock that ends with the process;
it is flushed to the disk and renamed. A temporary file without a lock is what a killed run left behind: the next
run on the same target removes it. Systems without ``flock`` lose only that last part.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import TracebackType

if sys.platform != "win32":
    import fcntl

__all__ = ["Replacement", "locked", "mark", "remove_stale", "sync_folder"]

_CHUNK = 1 << 24  # bytes a write call
_GATHER = 1 << 20  # small buffers are joined up to this many bytes


class Replacement:
    """A file in the making; a context manager that leaves nothing behind unless :meth:`commit` was called.

    Raises:
        OSError: The folder or the disk does not allow it.
    """

    def __init__(self, target: Path) -> None:
        self.target = target
        self.path, self._descriptor = _claim(target)
        self._open = True

    def __enter__(self) -> Replacement:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.discard()

    def write(self, buffers: Iterable[bytes | memoryview], *, mode: int | None = None) -> None:
        """Write buffers one after the other and flush them to the disk.

        Args:
            buffers: What to write; views of memory maps go to the kernel as they are.
            mode: Permission bits, by default those the process gives to new files.
        """
        small: list[bytes | memoryview] = []
        pending = 0
        for buffer in buffers:
            if len(buffer) < _GATHER:
                small.append(buffer)
                pending += len(buffer)
                if pending < _GATHER:
                    continue
            _write_all(self._descriptor, b"".join(small))
            if len(buffer) >= _GATHER:
                _write_all(self._descriptor, buffer)
            small, pending = [], 0
        _write_all(self._descriptor, b"".join(small))
        if mode is not None and hasattr(os, "fchmod"):
            os.fchmod(self._descriptor, mode)
        os.fsync(self._descriptor)

    def commit(self) -> None:
        """Rename the file to its target and make that durable."""
        if sys.platform == "win32":
            self._close()
        self.path.replace(self.target)
        sync_folder(self.target.parent)

    @property
    def is_in_place(self) -> bool:
        """Whether the file has become the target."""
        return self._open and _is_at(self._descriptor, self.target)

    def discard(self) -> None:
        """Remove the temporary file, if it is still there."""
        if not self._open:
            return
        # Once it is renamed, another process may have taken the temporary name.
        ours = _is_at(self._descriptor, self.path)
        if sys.platform == "win32":
            self._close()
        if ours:
            self.path.unlink()
        self._close()

    def _close(self) -> None:
        if self._open:
            self._open = False
            os.close(self._descriptor)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder's lock, which other graphopt processes wait for; no more than a courtesy elsewhere."""
    if sys.platform == "win32":
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Make renames in a folder durable, where the system can."""
    if sys.platform == "win32":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in {errno.EINVAL, errno.ENOTSUP, errno.EBADF}:
            raise
    finally:
        os.close(descriptor)


def mark(path: Path, target: Path) -> Path | None:
    """Give a file a temporary name for ``target`` as well, by which a later :func:`remove_stale` finds it.

    Returns:
        The name; None where files cannot have two.
    """
    for n in itertools.count():
        name = _temporary(target, n)
        try:
            os.link(path, name)
        except FileExistsError:
            continue
        except OSError:
            return None
        return name
    raise AssertionError("unreachable")


def remove_stale(target: Path, *, unfinished: Callable[[os.stat_result], None] | None = None) -> None:
    """Remove the temporary files for ``target`` that dead processes left behind.

    Args:
        target: The file they were to become.
        unfinished: Told of a temporary file that has a second name already, before it is removed.
    """
    for n in itertools.count():
        path = _temporary(target, n)
        if not os.path.lexists(path):
            return
        _remove_if_stale(path, unfinished)


def _temporary(target: Path, n: int) -> Path:
    return target.with_name(f".{target.name}.{n}.tmp")


def _claim(target: Path) -> tuple[Path, int]:
    """Create and lock a temporary file for a target."""
    remove_stale(target)
    for n in itertools.count():
        path = _temporary(target, n)
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
        except FileExistsError:
            continue
        if _lock(descriptor, unsupported=True) and _is_at(descriptor, path):
            return path, descriptor
        os.close(descriptor)  # another process took it for stale before it was locked
    raise AssertionError("unreachable")


def _remove_if_stale(path: Path, unfinished: Callable[[os.stat_result], None] | None) -> None:
    if sys.platform == "win32":
        return
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return
    try:
        if not (_lock(descriptor, unsupported=False) and _is_at(descriptor, path)):
            return
        state = os.fstat(descriptor)
        if state.st_nlink > 1:
            if unfinished is None:
                return
            unfinished(state)
        path.unlink()
    finally:
        os.close(descriptor)


def _lock(descriptor: int, *, unsupported: bool) -> bool:
    """Try to lock a file; ``unsupported`` is the answer of a system without locks."""
    if sys.platform == "win32":
        return unsupported
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return unsupported and error.errno not in {errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES}
    return True


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether the open file is the one under that name."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.lstat(path))
    except FileNotFoundError:
        return False


def _write_all(descriptor: int, buffer: bytes | memoryview) -> None:
    view = memoryview(buffer)
    while len(view):
        view = view[os.write(descriptor, view[:_CHUNK]) :]
