"""Keeps Python's cyclic collector from walking a large graph over and over while it is built or rewritten."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator

__all__ = ["paused"]

_FLOOR = 2_500_000
"""Objects: about as many as two graphs of 100,000 nodes are made of, some 300 MB."""


class _Ledger:
    """What was promoted past the collector's own bookkeeping; process-wide, as the collector is."""

    def __init__(self) -> None:
        self.promoted = 0
        self.alive = 0

    def settle(self) -> None:
        """Collects once as much has been promoted as was alive before, so that garbage stays bounded."""
        if self.promoted <= max(_FLOOR, self.alive):
            return
        gc.collect()
        gc.freeze()
        self.alive = gc.get_freeze_count()
        gc.unfreeze()
        self.promoted = 0

    def promote(self) -> None:
        """Lets all young objects count as old, without a walk."""
        self.promoted += gc.get_count()[0]
        gc.freeze()
        gc.unfreeze()


_LEDGER = _Ledger()


@contextlib.contextmanager
def paused() -> Iterator[None]:
    """No collections inside, and none of what was made inside at the end.

    Objects made meanwhile count as old at once: a collector that comes back to a million young ones would walk them
    all, twice, before it believes that they stay (10 us a node of a graph, as much as it takes to read one). Promoted
    objects never trigger a full collection by themselves, so this keeps count and asks for one when it is due.
    """
    if not gc.isenabled() or gc.get_freeze_count():  # frozen objects: somebody relies on them to stay so
        yield
        return
    _LEDGER.settle()
    gc.disable()
    try:
        yield
    finally:
        _LEDGER.promote()
        gc.enable()
