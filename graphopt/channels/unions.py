"""Connected components of very many elements, on arrays."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

__all__ = ["components"]

Indices = npt.NDArray[np.int64]


def components(count: int, pairs: Sequence[tuple[Indices, Indices]]) -> Indices:
    """The smallest element of the component of each element.

    Args:
        count: How many elements there are.
        pairs: Pairs of elements that are connected, as two arrays of the same length.

    Returns:
        ``(count,)``. Hooks roots onto smaller ones and shortens all paths until nothing changes; a handful of rounds.
    """
    parent = np.arange(count, dtype=np.int64)
    if not pairs:
        return parent
    a = np.concatenate([one for one, _ in pairs])
    b = np.concatenate([other for _, other in pairs])
    while True:
        left, right = parent[a], parent[b]
        apart = left != right
        if not apart.any():
            return parent
        a, b, left, right = a[apart], b[apart], left[apart], right[apart]
        np.minimum.at(parent, np.maximum(left, right), np.minimum(left, right))
        while True:
            shorter = parent[parent]
            if np.array_equal(shorter, parent):
                break
            parent = shorter
