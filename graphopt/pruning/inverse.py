"""Inverses of large covariances, by matrix products."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["inverse"]

Array = npt.NDArray[Any]

_SMALL = 384


def inverse(matrix: Array) -> Array:
    """The inverse of symmetric positive definite matrices ``(..., n, n)``, in their own dtype.

    By halves, with the Schur complement of the first: all the work is in matrix products, which are several times as
    fast as NumPy's solver, and in float32 twice as fast again (NumPy's solver has no float32).
    """
    size = matrix.shape[-1]
    if size <= _SMALL:
        return np.linalg.inv(matrix).astype(matrix.dtype)
    half = size // 2
    a, b, d = matrix[..., :half, :half], matrix[..., :half, half:], matrix[..., half:, half:]
    first = inverse(a)
    through = first @ b
    second = inverse(d - b.swapaxes(-1, -2) @ through)
    across = through @ second
    result = np.empty_like(matrix)
    result[..., :half, :half] = first + across @ through.swapaxes(-1, -2)
    result[..., :half, half:] = -across
    result[..., half:, :half] = -across.swapaxes(-1, -2)
    result[..., half:, half:] = second
    return result
