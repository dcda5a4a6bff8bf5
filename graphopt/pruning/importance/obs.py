"""Importance as the error that is left once what remains has been refitted.

For a layer with weight ``W`` over inputs of covariance ``H``, removing columns ``J`` and refitting the others costs
``tr(W_J [H^-1]_JJ^-1 W_J')`` of squared error: the Optimal Brain Surgeon (Hassibi and Stork, 1993) for blocks of
columns and a whole layer, as in ZipLM (Kurtic et al., arXiv 2302.04089). Units go one after the other, and ``H^-1``
and ``W`` follow (block elimination), so that two channels that stand in for each other do not both count as needless.
A unit that several layers read costs the sum of what it costs each of them, as a share of what that layer gives.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from graphopt.channels.units import Group
from graphopt.pruning.importance.activations import filled
from graphopt.pruning.importance.covariances import Piece, by_group, covered, pieces
from graphopt.pruning.importance.evidence import Evidence, Ranking
from graphopt.pruning.inverse import inverse

__all__ = ["obs"]

Array = npt.NDArray[Any]
Indices = npt.NDArray[np.int64]

_ROUNDS = 64
"""Of elimination in a group; in each the same number of units goes."""
_CROWDED = 0.8
"""Share of columns that are still there, below which the others are closed up."""


def obs(evidence: Evidence) -> list[Ranking]:
    """Error of the layers that read a unit, refitted without it (block OBS; arXiv 2302.04089).

    Groups that no layer sums over, or only too wide ones, are ranked by their weights.
    """
    consumers = by_group(evidence)
    rankings: dict[int, Ranking] = {}
    for number, covariances in covered(evidence, consumers):
        evidence.progress("rank", len(rankings) / len(consumers))
        group = evidence.graph.groups[number]
        units = np.array([unit.index for unit in group.units], np.int64)
        rankings[number] = _Elimination(group, units, pieces(consumers[number], covariances, units)).run()
    unknown = [
        Ranking(group, np.array([unit.index for unit in group.units]), np.full(len(group.units) + 1, np.nan))
        for group in evidence.graph.groups
    ]
    return filled(evidence, [rankings.get(one.group.index, one) for one in unknown])


class _Part:
    """One group of layers that read the same: what is left of their weights and of the inverse of their covariance.

    Attributes:
        units: The units that are left, by number.
    """

    def __init__(self, piece: Piece) -> None:
        self.units = piece.units
        self._columns = piece.columns
        self._weight = piece.weight.copy()
        self._inverse = inverse(piece.covariance)

    def costs(self) -> Array:
        """What each unit costs, as a share of what the layer gives: ``(units,)``."""
        blocks = self._inverse[self._columns[:, :, None], self._columns[:, None, :]]
        weights = self._weight[:, self._columns].transpose(1, 2, 0)  # (units, width, outputs)
        solved = np.linalg.solve(blocks, weights)
        costs: Array = np.einsum("uwo,uwo->u", weights, solved)
        return costs

    def remove(self, places: Indices) -> float:
        """Takes units (by place in ``units``) out; what they cost together."""
        gone = self._columns[places].reshape(-1)
        rows = self._inverse[gone]
        weight = self._weight[:, gone]
        through = np.linalg.solve(rows[:, gone], rows)
        solved = np.linalg.solve(rows[:, gone], weight.T)
        self._weight -= weight @ through
        self._inverse -= rows.T @ through
        self.units = np.delete(self.units, places)
        self._columns = np.delete(self._columns, places, axis=0)
        self._forget(gone)
        return float(np.einsum("jo,oj->", solved, weight))

    def _forget(self, gone: Indices) -> None:
        """Columns that are gone stay where they are until they are many: moving the others costs as much as a step."""
        self._weight[:, gone] = 0
        self._inverse[gone] = 0
        self._inverse[:, gone] = 0
        kept = np.flatnonzero(np.einsum("cc->c", self._inverse))
        if len(kept) > _CROWDED * len(self._inverse):
            return
        self._weight = self._weight[:, kept]
        self._inverse = self._inverse[np.ix_(kept, kept)]
        self._columns = np.searchsorted(kept, self._columns)


class _Elimination:
    """The units of one group, taken away one round after the other."""

    def __init__(self, group: Group, units: Indices, own: Iterable[Piece]) -> None:
        self._group = group
        self._units = units
        self._parts = [_Part(piece) for piece in own]

    def run(self) -> Ranking:
        """The order in which the units go, and the error after each."""
        size = len(self._units)
        if not self._parts:
            return Ranking(self._group, self._units, np.full(size + 1, np.nan))
        place = np.argsort(self._units)  # to find a unit's place by its number
        alive = np.ones(size, bool)
        order: list[int] = []
        harm = [0.0]
        step = max(1, size // _ROUNDS)
        while alive.any():
            costs = np.zeros(size)
            where = [place[np.searchsorted(self._units, part.units, sorter=place)] for part in self._parts]
            for part, at in zip(self._parts, where, strict=True):
                costs[at] += part.costs()
            left = np.flatnonzero(alive)
            chosen = left[np.argsort(costs[left], kind="stable")[:step]]
            alive[chosen] = False
            if alive.any():
                gone = [np.flatnonzero(np.isin(at, chosen)) for at in where]
                total = sum(part.remove(own) for part, own in zip(self._parts, gone, strict=True) if len(own))
            else:
                total = float(costs[chosen].sum())
            share = costs[chosen] / max(float(costs[chosen].sum()), 1e-30)
            harm.extend((harm[-1] + np.cumsum(share) * max(total, 0.0)).tolist())
            order.extend(chosen.tolist())
        return Ranking(self._group, self._units[order], np.array(harm))
