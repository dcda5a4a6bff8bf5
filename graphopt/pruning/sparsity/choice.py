"""Which weights of one layer become zero, and what the others become."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from graphopt.pruning.sparsity.patterns import Pattern
from graphopt.pruning.sparsity.sparsegpt import sparsegpt
from graphopt.pruning.sparsity.statistics import Statistics
from graphopt.pruning.sparsity.support import refit

if TYPE_CHECKING:
    from graphopt.pruning.sparsity.settings import Settings

__all__ = ["Keep", "choose", "magnitudes"]

Array = npt.NDArray[Any]
Keep = Callable[[Array], Array]
"""Tells which places of a matrix ``(groups, outputs, columns)`` stay by its magnitudes alone."""


def magnitudes(dense: Array, pattern: Pattern) -> Array:
    """The places of the largest magnitudes of a layer, ``(groups, outputs, columns)``."""
    width = dense.shape[2] if pattern.is_grouped else dense.size
    return pattern.keep(np.abs(dense).reshape(-1, width)).reshape(dense.shape)


def choose(
    dense: Array, found: Statistics | None, settings: Settings, places: Keep, *, centred: bool
) -> tuple[Array, Array]:
    """Makes a matrix sparse.

    Args:
        dense: ``(groups, outputs, columns)``.
        found: What is known of its rows; only for magnitudes nothing need be.
        settings: How.
        places: What chooses by magnitude.
        centred: Whether a bias makes up for the mean of what is lost.

    Returns:
        The adapted matrix, and the places of it that stay: of the same shape each.
    """
    weight = dense
    if settings.method == "sparsegpt":
        assert found is not None
        weight, keep = np.empty(dense.shape), np.empty(dense.shape, bool)
        for at, products in _parts(found, centred):
            weight[at], keep[at] = sparsegpt(dense[at], products, settings.pattern)
    elif settings.method == "wanda":
        assert found is not None
        scores = np.abs(dense) * found.norms[:, None, :]
        keep = settings.pattern.keep(scores.reshape(-1, dense.shape[2])).reshape(dense.shape)
    else:
        keep = places(dense)
    if settings.reconstruct and found is not None:
        fitted = np.empty(dense.shape)
        for at, products in _parts(found, centred):
            fitted[at] = refit(dense[at], weight[at], keep[at], products)
        weight = fitted
    return weight, keep


def _parts(found: Statistics, centred: bool) -> Iterator[tuple[tuple[int, slice, slice], Array]]:
    """Each block of columns of each group, with the products of its rows."""
    for number, block in enumerate(found.blocks):
        for group, products in enumerate(found.products(number, centred=centred)):
            yield (group, slice(None), block), products
