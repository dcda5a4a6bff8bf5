"""Importance that gradients tell; who computes them is not known here (:class:`Gradients`)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from graphopt.errors import UsageError
from graphopt.pruning.importance.evidence import Evidence, Ranking

__all__ = ["fisher", "taylor"]

Array = npt.NDArray[Any]


def taylor(evidence: Evidence) -> list[Ranking]:
    """Squared first-order change of the loss without the unit (Molchanov et al., arXiv 1906.10771)."""
    return evidence.rankings(_expected(evidence, lambda weight, gradient: weight * gradient), comparable=True)


def fisher(evidence: Evidence) -> list[Ranking]:
    """Second-order change, the Hessian taken for the squared gradient (Theis et al., arXiv 1801.05787)."""
    return evidence.rankings(
        _expected(evidence, lambda weight, gradient: gradient * weight, each=True), comparable=True
    )


def _expected(evidence: Evidence, product: Any, *, each: bool = False) -> Array:
    """Mean over batches of the squared sum (or the sum of squares if ``each``) of a product over a unit's weights."""
    if evidence.gradients is None:
        raise UsageError(
            "this importance needs gradients", hint="Give prune(gradients=...), or take an importance without, as obs."
        )
    weights = [(value.name or "", array, found) for value, array, found in evidence.weights()]
    total = np.zeros(len(evidence.graph.group_of))
    count = 0
    names = list(dict.fromkeys(name for name, _, _ in weights))
    for gradients in evidence.gradients(evidence.graph.model, names, evidence.batches):
        sums = []
        for name, array, found in weights:
            if name not in gradients:
                continue
            change = product(array.astype(np.float64), np.asarray(gradients[name], np.float64))
            change = np.square(change) if each else change
            for axis, units in found:
                others = tuple(place for place in range(array.ndim) if place != axis)
                sums.append((units, change.sum(axis=others)))
        batch = evidence.per_unit(sums)
        total += batch if each else np.square(batch)
        count += 1
    return total / max(1, count)
