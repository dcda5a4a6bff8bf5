"""SparseGPT (Frantar and Alistarh, arXiv 2301.00774): zeros chosen, and what is left adapted, column by column.

With ``H = X'X`` of the rows and ``U`` the upper Cholesky factor of ``H^-1`` (``U'U = H^-1``), row ``j`` of ``U`` holds
what of ``H^-1`` is left once the columns before ``j`` are fixed. Setting ``w_j`` to zero costs ``(w_j / U_jj)^2``, and
is made up for by ``w -= w_j / U_jj * U_j`` in the columns that come later.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from graphopt.pruning.sparsity.patterns import Pattern

__all__ = ["DAMPING", "damped", "inverse_factor", "sparsegpt"]

Array = npt.NDArray[Any]

DAMPING: Final = 0.01
"""Added to the diagonal of H, as a share of its mean."""

_BLOCK: Final = 128  # columns whose mask is chosen together, and whose updates reach the others at once
_PRECISE: Final = 4096  # columns up to which everything is computed in float64
_ATTEMPTS: Final = 6


def damped(products: Array, share: float = DAMPING) -> Array:
    """A copy of H ``(columns, columns)`` with something on its diagonal; float64 unless it is large."""
    result: Array = products.astype(np.float64 if len(products) <= _PRECISE else np.float32)
    diagonal = np.einsum("cc->c", result)  # a view
    diagonal += share * float(diagonal.mean()) or 1.0
    return result


def inverse_factor(products: Array) -> Array:
    """The upper ``U`` with ``U'U = (H + damping)^-1``, for H ``(columns, columns)``.

    The Cholesky factor of H with its columns in reverse order gives it without H's inverse, which would cost digits.

    Raises:
        numpy.linalg.LinAlgError: H is not the sum of squares of finite numbers.
    """
    share = DAMPING
    for attempt in range(_ATTEMPTS):
        try:
            lower = np.linalg.cholesky(damped(products, share)[::-1, ::-1])
            break
        except np.linalg.LinAlgError:
            if attempt == _ATTEMPTS - 1:
                raise
            share *= 10  # float32 has rounded a small eigenvalue below zero
    factor: Array = np.triu(np.linalg.inv(lower)[::-1, ::-1])
    return np.ascontiguousarray(factor)


def sparsegpt(weight: Array, products: Array, pattern: Pattern) -> tuple[Array, Array]:
    """Makes a matrix sparse.

    Args:
        weight: ``(outputs, columns)``.
        products: H, ``(columns, columns)``.
        pattern: N:M runs along the columns, whose number is a multiple of M; else the share holds in each block of
            128 columns.

    Returns:
        The adapted weight, zero where it does not stay, and the places that stay: ``(outputs, columns)`` each.
    """
    factor = inverse_factor(products)
    weight = weight.astype(factor.dtype)
    keep = np.ones(weight.shape, bool)
    width = max(pattern.of, _BLOCK // pattern.of * pattern.of)
    for start in range(0, weight.shape[1], width):
        block = slice(start, min(start + width, weight.shape[1]))
        errors = _block(weight[:, block], factor[block, block], keep[:, block], pattern)
        weight[:, block.stop :] -= errors @ factor[block, block.stop :]
    return weight, keep


def _block(weight: Array, factor: Array, keep: Array, pattern: Pattern) -> Array:
    """Works on the columns of one block in place; what columns to the right must make up for."""
    diagonal = np.diagonal(factor)
    if not pattern.is_grouped:
        scores = np.square(weight / diagonal)
        keep[...] = pattern.keep(scores.reshape(1, -1)).reshape(keep.shape)
    errors = np.zeros_like(weight)
    for column in range(weight.shape[1]):
        if pattern.is_grouped and column % pattern.of == 0:
            group = slice(column, column + pattern.of)
            keep[:, group] = pattern.keep(np.square(weight[:, group] / diagonal[group]))
        gone = ~keep[:, column]
        errors[gone, column] = weight[gone, column] / diagonal[column]
        weight[:, column + 1 :] -= errors[:, column, None] * factor[column, column + 1 :]
        weight[gone, column] = 0
    return errors
