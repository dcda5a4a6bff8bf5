"""Importance that the inputs of layers tell, watched on calibration data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from graphopt.pruning.importance.evidence import Consumer, Evidence, Ranking
from graphopt.pruning.importance.weights import l2

__all__ = ["apoz", "filled", "mean_activation", "wanda"]

Array = npt.NDArray[Any]


def wanda(evidence: Evidence) -> list[Ranking]:
    """Magnitude of the weights times the norm of what they are multiplied with (Sun et al., arXiv 2306.11695)."""

    def scores(consumer: Consumer, squares: Array) -> Array:
        layer = consumer.layer
        weight = np.abs(layer.matrix()).sum(axis=1).reshape(layer.groups, layer.window, -1).sum(axis=1).reshape(-1)
        found: Array = np.sqrt(squares) * weight
        return found

    return _watched(evidence, np.square, scores)


def apoz(evidence: Evidence) -> list[Ranking]:
    """Share of positions at which a channel is not zero (Hu et al., *Network Trimming*, arXiv 1607.03250)."""
    return _watched(evidence, lambda x: x != 0, lambda consumer, share: share)


def mean_activation(evidence: Evidence) -> list[Ranking]:
    """Mean magnitude of a channel (Molchanov et al., arXiv 1611.06440)."""
    return _watched(evidence, np.abs, lambda consumer, mean: mean)


def _watched(
    evidence: Evidence, measure: Callable[[Array], Array], score: Callable[[Consumer, Array], Array]
) -> list[Ranking]:
    """Rankings by a mean over positions of what each consumer reads; units that no layer sums over go by weights."""
    consumers = evidence.consumers
    values = list(dict.fromkeys(consumer.layer.input for consumer in consumers))
    sums: dict[Any, Array] = {}
    counts = dict.fromkeys(values, 0)
    for step, arrays in enumerate(evidence.observe(values)):
        evidence.progress("observe", step / len(evidence.batches))
        for value, array in zip(values, arrays, strict=True):
            axis = next(one.layer.input_axis for one in consumers if one.layer.input is value) % array.ndim
            others = tuple(place for place in range(array.ndim) if place != axis)
            sums[value] = sums.get(value, 0) + measure(array).sum(axis=others, dtype=np.float64)
            counts[value] += array.size // array.shape[axis]
    pairs, known = [], []
    for consumer in consumers:
        mean = sums[consumer.layer.input] / max(1, counts[consumer.layer.input])
        pairs.append((consumer.units, score(consumer, mean)))
        known.append((consumer.units, np.ones(len(consumer.units))))
    has = evidence.per_unit(known)
    scores = np.where(has > 0, evidence.per_unit(pairs) / np.maximum(has, 1), np.nan)
    return filled(evidence, evidence.rankings(scores, comparable=False))


def filled(evidence: Evidence, rankings: list[Ranking]) -> list[Ranking]:
    """Rankings in which groups that could not be watched are ranked by their weights."""
    if all(np.isfinite(ranking.harm).all() for ranking in rankings):
        return rankings
    by_weights = l2(evidence)
    typical = [ranking.harm[-1] / (len(ranking.harm) - 1) for ranking in rankings if np.isfinite(ranking.harm).all()]
    scale = float(np.mean(typical)) if typical else 1.0
    return [
        ranking if np.isfinite(ranking.harm).all() else Ranking(ranking.group, other.order, other.harm * scale)
        for ranking, other in zip(rankings, by_weights, strict=True)
    ]
