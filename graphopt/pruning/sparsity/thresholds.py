"""One threshold for the magnitudes of many weights, found without holding them all in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

import numpy as np
import numpy.typing as npt

__all__ = ["Threshold"]

Array = npt.NDArray[Any]

_BINS: Final = 1 << 16


class Threshold:
    """The magnitude below which a share of all weights lies, exactly.

    The bits of positive floats sort as the floats do, so that two histograms of 16 bits each find any rank.

    Args:
        weights: Gives all weights, one array after another; called twice.
        sparsity: The share that goes.
    """

    def __init__(self, weights: Callable[[], Iterable[Array]], sparsity: float) -> None:
        upper = np.zeros(_BINS, np.int64)
        for array in weights():
            upper += np.bincount(_bits(array) >> 16, minlength=_BINS)
        count = round(sparsity * int(upper.sum()))
        head, before = _find(upper, count)
        lower = np.zeros(_BINS, np.int64)
        for array in weights():
            bits = _bits(array)
            lower += np.bincount(bits[bits >> 16 == head] & (_BINS - 1), minlength=_BINS)
        tail, within = _find(lower, count - before)
        self._bits = head << 16 | tail
        self._ties = count - before - within

    def keep(self, weight: Array) -> Array:
        """The places of a weight that stay; weights are asked for in one order, and of equal ones the first go."""
        bits = _bits(weight)
        equal = bits == self._bits
        gone = (bits < self._bits) | (equal & (np.cumsum(equal, dtype=np.int64) <= self._ties))
        self._ties = max(0, self._ties - int(equal.sum()))
        kept: Array = ~gone.reshape(weight.shape)
        return kept


def _bits(array: Array) -> npt.NDArray[np.int64]:
    return np.abs(array.astype(np.float32)).reshape(-1).view(np.uint32).astype(np.int64)


def _find(histogram: Array, rank: int) -> tuple[int, int]:
    """The bin that holds the entry of a rank (from 1), and how many entries come before the bin."""
    total = np.cumsum(histogram)
    place = min(int(np.searchsorted(total, max(1, rank))), _BINS - 1)
    return place, int(total[place - 1]) if place else 0
