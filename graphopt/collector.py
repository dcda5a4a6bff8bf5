"""Keeps Python's cyclic collector from walking a large graph over and over while it is built or rewritten."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator

__all__ = ["paused"]


@contextlib.contextmanager
def paused() -> Iterator[None]:
    """No collections inside, and none of what was made inside at the end.

    Objects made meanwhile count as old at once: a collector that comes back to a million young ones would walk them
    all, twice, before it believes that they stay (10 us a node of a graph, as much as it takes to read one). Garbage
    among them is found by the next full collection.
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        if gc.get_freeze_count() == 0:  # else somebody relies on frozen objects to stay so
            gc.freeze()
            gc.unfreeze()
        gc.enable()
