"""The best weights on given places: least squares, for all outputs at once.

Each row of a weight has its own places, so that an exact solution would factor a matrix for each row. Conjugate
gradients with a diagonal preconditioner need one product with H a step for all rows together (Hestenes and Stiefel,
1952); stopping early keeps weights near where they began.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from graphopt.pruning.sparsity.sparsegpt import damped

__all__ = ["refit"]

Array = npt.NDArray[Any]

_STEPS: Final = 20
_ENOUGH: Final = 1e-4  # of the first residual, in the preconditioner's norm


def refit(dense: Array, start: Array, keep: Array, products: Array) -> Array:
    """The weights on ``keep`` whose results come closest to the dense ones.

    Args:
        dense: The weight to be approximated, ``(outputs, columns)``.
        start: Where to begin.
        keep: The places that may be other than zero.
        products: H of the rows, ``(columns, columns)``.

    Returns:
        ``(outputs, columns)``.
    """
    hessian = damped(products)
    scale = 1 / np.diagonal(hessian)
    weight = np.where(keep, start, 0).astype(hessian.dtype)
    residual = np.where(keep, (dense.astype(hessian.dtype) - weight) @ hessian, 0)
    direction = residual * scale
    size = np.einsum("oc,oc->o", residual, direction)
    enough = _ENOUGH**2 * size
    for _ in range(_STEPS):
        if (size <= enough).all():
            break
        curved = np.where(keep, direction @ hessian, 0)
        step = _ratio(size, np.einsum("oc,oc->o", direction, curved))
        weight += step * direction
        residual -= step * curved
        scaled = residual * scale
        before, size = size, np.einsum("oc,oc->o", residual, scaled)
        direction = scaled + _ratio(size, before) * direction
    return weight


def _ratio(above: Array, below: Array) -> Array:
    """A quotient for each row, zero where a row is done: ``(rows, 1)``."""
    quotient: Array = np.divide(above, below, out=np.zeros_like(above), where=below > 0)[:, None]
    return quotient
