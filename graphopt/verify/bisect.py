"""Finds the pass that made a model wrong."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

__all__ = ["first_bad"]

T = TypeVar("T")


def first_bad(items: Sequence[T], is_good: Callable[[Sequence[T]], bool]) -> T | None:
    """The item with which a prefix of ``items`` turns bad, found in about log2(n) trials.

    Args:
        items: A sequence known to be bad as a whole.
        is_good: Whether running just this prefix gives a correct result.

    Returns:
        The guilty item, or ``None`` when even the empty prefix is bad, so that no item is to blame.
    """
    if not is_good(items[:0]):
        return None
    good, bad = 0, len(items)
    while bad - good > 1:
        middle = (good + bad) // 2
        if is_good(items[:middle]):
            good = middle
        else:
            bad = middle
    return items[bad - 1]
