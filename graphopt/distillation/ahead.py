"""Works one step ahead in a thread: the teacher computes the next batch while the student trains on this one."""

from __future__ import annotations

import collections
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

__all__ = ["ahead", "split_cores"]

Item = TypeVar("Item")
Result = TypeVar("Result")


def ahead(items: Iterable[Item], work: Callable[[Item], Result], depth: int = 1) -> Iterator[tuple[Item, Result]]:
    """Each item with what ``work`` makes of it, in order, computed by a thread up to ``depth`` items ahead.

    ONNX Runtime lets other threads run while it computes. What ``work`` raises is raised where its item is due; when
    the iterator is closed, work that has not begun is given up.

    Args:
        items: Taken by the caller's thread, ``depth`` more of them than were given.
        work: Called by the thread, one item after another.
        depth: How many results may wait; 0 computes each when it is due.
    """
    if depth < 1:
        for item in items:
            yield item, work(item)
        return
    pool = ThreadPoolExecutor(1, thread_name_prefix="graphopt-ahead")
    pending: collections.deque[tuple[Item, Future[Result]]] = collections.deque()
    try:
        for item in items:
            pending.append((item, pool.submit(work, item)))
            if len(pending) > depth:
                due, future = pending.popleft()
                yield due, future.result()
        while pending:
            due, future = pending.popleft()
            yield due, future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def split_cores(cores: int | None = None, share: float = 0.5) -> tuple[int, int]:
    """Threads for the teacher and for the student, together as many as there are cores, each at least 1.

    More threads than cores cost both more than they gain.

    Args:
        cores: To share; None for all that this process may use.
        share: Of the teacher, 0 to 1.
    """
    if cores is None:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    teacher = min(max(1, round(cores * share)), max(1, cores - 1))
    return teacher, max(1, cores - teacher)
