"""Importance that the weights alone tell."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from graphopt.errors import UsageError
from graphopt.pruning.importance.evidence import Evidence, Ranking

__all__ = ["batchnorm_scale", "fpgm", "l1", "l2", "lamp", "random"]

Array = npt.NDArray[Any]


def l1(evidence: Evidence) -> list[Ranking]:
    """Sum of the magnitudes of all weights of a unit (Li et al., *Pruning Filters*, arXiv 1608.08710)."""
    return evidence.rankings(_norms(evidence, 1), comparable=False)


def l2(evidence: Evidence) -> list[Ranking]:
    """Euclidean norm of all weights of a unit, the slices of all coupled tensors together (arXiv 2301.12900)."""
    return evidence.rankings(np.sqrt(_norms(evidence, 2)), comparable=False)


def random(evidence: Evidence) -> list[Ranking]:
    """Numbers drawn from the seed: what every criterion has to beat."""
    scores = np.random.default_rng(evidence.seed).random(len(evidence.graph.group_of))
    return evidence.rankings(scores, comparable=False)


def lamp(evidence: Evidence) -> list[Ranking]:
    """A unit's share of the squared weights of those that outlive it (Lee et al., *LAMP*, arXiv 2010.07611)."""
    squares = _norms(evidence, 2)
    scores = np.empty_like(squares)
    for group in evidence.graph.groups:
        units = np.array([unit.index for unit in group.units])
        order = units[np.argsort(squares[units], kind="stable")]
        left = np.cumsum(squares[order][::-1])[::-1]
        scores[order] = squares[order] / np.maximum(left, 1e-30)
    return evidence.rankings(scores, comparable=True)


def fpgm(evidence: Evidence) -> list[Ranking]:
    """Distance to all other units of the group: those near the median can be replaced (He et al., arXiv 1811.00250)."""
    graph = evidence.graph
    position = np.empty(len(graph.group_of), np.int64)
    squares = []
    for group in graph.groups:
        position[[unit.index for unit in group.units]] = np.arange(len(group.units))
        squares.append(np.zeros((len(group.units), len(group.units))))
    for _, array, found in evidence.weights():
        for axis, units in found:
            rows = np.moveaxis(array, axis, 0).reshape(len(units), -1).astype(np.float32)
            for group in np.unique(graph.group_of[units[units >= 0]]).tolist():
                own = np.flatnonzero((units >= 0) & (graph.group_of[units] == group))
                _add_distances(squares[group], position[units[own]], rows[own])
    scores = np.empty(len(graph.group_of))
    for group, square in zip(graph.groups, squares, strict=True):
        scores[[unit.index for unit in group.units]] = np.sqrt(np.maximum(square, 0)).sum(axis=1)
    return evidence.rankings(scores, comparable=False)


def _add_distances(square: Array, units: Array, rows: Array) -> None:
    """Adds the squared distances of rows to those of the units they belong to; a unit has equally many, in order."""
    counts = np.bincount(units, minlength=len(square))
    present = np.flatnonzero(counts)
    if len(set(counts[present].tolist())) != 1:
        return
    flat = rows[np.argsort(units, kind="stable")].reshape(len(present), -1)
    norms = np.square(flat).sum(axis=1)
    square[np.ix_(present, present)] += norms[:, None] + norms[None, :] - 2 * flat @ flat.T


def batchnorm_scale(evidence: Evidence) -> list[Ranking]:
    """Magnitude of a BatchNormalization's scale (Liu et al., *Network Slimming*, arXiv 1708.06519).

    Groups without one are ranked by :func:`l2`.

    Raises:
        UsageError: No group has any.
    """
    graph = evidence.graph
    own = {value for node in graph.linker.nodes if node.op_type == "BatchNormalization" for value in node.inputs[1:2]}
    sums = [(units, np.abs(array)) for value, array, found in evidence.weights() if value in own for _, units in found]
    if not sums:
        raise UsageError(
            "the model has no BatchNormalization over channels that can go, so their scale says nothing",
            hint="They are folded into convolutions; take another importance, or export without folding.",
        )
    scores = evidence.per_unit(sums)
    has = evidence.per_unit([(units, np.ones(len(units))) for units, _ in sums]) > 0
    others = np.sqrt(_norms(evidence, 2))
    return evidence.rankings(np.where(has, scores, others), comparable=False)


def _norms(evidence: Evidence, power: int) -> Array:
    sums = []
    for _, array, found in evidence.weights():
        magnitudes = np.abs(array, dtype=np.float32) if power == 1 else np.square(array, dtype=np.float32)
        for axis, units in found:
            others = tuple(place for place in range(array.ndim) if place != axis)
            sums.append((units, magnitudes.sum(axis=others, dtype=np.float64)))
    return evidence.per_unit(sums)
