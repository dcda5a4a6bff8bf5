"""Importance that gradients tell; who computes them is not known here (:class:`Gradients`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from graphopt.errors import UsageError
from graphopt.pruning.importance.evidence import Evidence, Ranking

__all__ = ["fisher", "hessian", "taylor"]

Array = npt.NDArray[Any]


def taylor(evidence: Evidence) -> list[Ranking]:
    """Squared first-order change of the loss without the unit (Molchanov et al., arXiv 1906.10771)."""
    scores = _expected(evidence, lambda weight, gradient: weight * gradient, finish=np.square)
    return evidence.rankings(scores, comparable=True)


def fisher(evidence: Evidence) -> list[Ranking]:
    """Second-order change, the Hessian taken for the squared gradient (Theis et al., arXiv 1801.05787)."""
    scores = _expected(evidence, lambda weight, gradient: np.square(weight * gradient))
    return evidence.rankings(scores, comparable=True)


def hessian(evidence: Evidence) -> list[Ranking]:
    """Second-order change by the Hessian's own diagonal: half of it times the squared weight (OBD; LeCun et al., 1989).

    Far from a minimum the loss may bend downwards; it is the size of the change that counts, as it is in ``taylor``.
    """
    scores = _expected(evidence, lambda weight, curvature: 0.5 * curvature * np.square(weight), order=2)
    return evidence.rankings(np.abs(scores), comparable=True)


def _expected(
    evidence: Evidence,
    change: Callable[[Array, Array], Array],
    *,
    finish: Callable[[Array], Array] = np.asarray,
    order: Literal[1, 2] = 1,
) -> Array:
    """``(units,)``: the mean over batches of a function of a unit's sum of what its weights and gradients give."""
    if evidence.gradients is None:
        raise UsageError(
            "this importance needs gradients", hint="Give prune(gradients=...), or take an importance without, as obs."
        )
    weights = [(value.name or "", array, found) for value, array, found in evidence.weights()]
    total = np.zeros(len(evidence.graph.group_of))
    count = 0
    names = list(dict.fromkeys(name for name, _, _ in weights))
    asked: dict[str, Any] = {"order": order} if order > 1 else {}
    for gradients in evidence.gradients(evidence.graph.model, names, evidence.batches, **asked):
        sums = []
        for name, array, found in weights:
            if name not in gradients:
                continue
            changes = change(array.astype(np.float64), np.asarray(gradients[name], np.float64))
            for axis, units in found:
                others = tuple(place for place in range(array.ndim) if place != axis)
                sums.append((units, changes.sum(axis=others)))
        total += finish(evidence.per_unit(sums))
        count += 1
    return total / max(1, count)
