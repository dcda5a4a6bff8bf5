"""Importance as the error that is left once what remains has been refitted.

For a layer with weight ``W`` over inputs of covariance ``H``, removing columns ``J`` and refitting the others costs
``tr(W_J [H^-1]_JJ^-1 W_J')`` of squared error: the Optimal Brain Surgeon (Hassibi and Stork, 1993) for blocks of
columns and a whole layer, as in ZipLM (Kurtic et al., arXiv 2302.04089). Units go one after the other, and ``H^-1``
and ``W`` follow (block elimination), so that two channels that stand in for each other do not both count as needless.
A unit that several layers read costs the sum of what it costs each of them, as a share of what that layer gives.
"""

from __future__ import annotations

import collections
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from graphopt.channels.units import Group
from graphopt.pruning.importance.activations import filled
from graphopt.pruning.importance.evidence import Consumer, Evidence, Ranking
from graphopt.pruning.inverse import inverse
from graphopt.pruning.layers import Layer
from graphopt.pruning.moments import Moments

__all__ = ["obs"]

Array = npt.NDArray[Any]
Indices = npt.NDArray[np.int64]

_MEMORY = 3 << 29
"""Bytes of covariances held at a time; a model with more is watched in several passes."""
_WIDEST = 8192
_ROWS_PER_COLUMN = 2
_FEWEST_ROWS = 4096
_ROUNDS = 64
"""Of elimination in a group; in each the same number of units goes."""
_DAMPING = 1e-2
_CROWDED = 0.8
"""Share of columns that are still there, below which the others are closed up."""


def obs(evidence: Evidence) -> list[Ranking]:
    """Error of the layers that read a unit, refitted without it (block OBS; arXiv 2302.04089).

    Groups that no layer sums over, or only too wide ones, are ranked by their weights.
    """
    by_group: dict[int, list[Consumer]] = collections.defaultdict(list)
    for consumer in evidence.consumers:
        if consumer.layer.columns <= _WIDEST:
            for group in np.unique(evidence.graph.group_of[consumer.units[consumer.units >= 0]]).tolist():
                by_group[group].append(consumer)
    rankings: dict[int, Ranking] = {}
    for groups in _bunches(by_group):
        layers = list(dict.fromkeys(consumer.layer for group in groups for consumer in by_group[group]))
        covariances = _covariances(evidence, layers)
        for group in groups:
            evidence.progress("rank", len(rankings) / len(by_group))
            rankings[group] = _Elimination(evidence, evidence.graph.groups[group], by_group[group], covariances).run()
    unknown = [
        Ranking(group, np.array([unit.index for unit in group.units]), np.full(len(group.units) + 1, np.nan))
        for group in evidence.graph.groups
    ]
    return filled(evidence, [rankings.get(one.group.index, one) for one in unknown])


def _bunches(by_group: dict[int, list[Consumer]]) -> Iterator[list[int]]:
    """Groups whose covariances fit into memory together."""
    bunch: list[int] = []
    inputs: dict[tuple[Any, ...], int] = {}
    for group, consumers in by_group.items():
        own = {one.layer.rows_key: 4 * one.layer.groups * one.layer.columns**2 for one in consumers}
        if bunch and sum((inputs | own).values()) > _MEMORY:
            yield bunch
            bunch, inputs = [], {}
        bunch.append(group)
        inputs |= own
    if bunch:
        yield bunch


def _covariances(evidence: Evidence, layers: list[Layer]) -> dict[tuple[Any, ...], Moments]:
    """The second moments of the rows of layers, watched on the original model."""
    kinds = {layer.rows_key: layer for layer in layers}
    moments = {key: Moments(one.groups, one.columns, dtype=np.float32) for key, one in kinds.items()}
    values = list(dict.fromkeys(value for one in kinds.values() for value in (one.input, one.output)))
    batches = len(evidence.batches)
    for batch, arrays in enumerate(evidence.observe(values)):
        evidence.progress("observe", batch / batches)
        found = dict(zip(values, arrays, strict=True))
        for number, (key, layer) in enumerate(kinds.items()):
            shape = found[layer.output].shape
            positions = layer.positions(shape)
            limit = math.ceil(max(_FEWEST_ROWS, _ROWS_PER_COLUMN * layer.columns) / batches)
            picks = None
            if positions > limit:
                random = np.random.default_rng([evidence.seed, number, batch])
                picks = np.sort(random.choice(positions, limit, replace=False))
            if positions:
                with np.errstate(over="ignore", invalid="ignore"):
                    moments[key].add(layer.rows(found[layer.input], shape, picks))
    return moments


class _Part:
    """One group of layers that read the same: what is left of their weights and of the inverse of their covariance.

    Attributes:
        units: The units that are left, by number.
    """

    def __init__(self, weight: Array, covariance: Array, columns: Array, units: Indices) -> None:
        """Args:
        weight: ``(outputs, columns)``, scaled so that what each layer gives has the variance 1.
        covariance: ``(columns, columns)``.
        columns: ``(units, width)``: those of each unit.
        units: Their numbers.
        """
        self.units = units
        self._columns = columns
        damped = covariance.astype(np.float64)  # float32 loses definiteness after some steps
        diagonal = np.einsum("cc->c", damped)  # a view
        diagonal += _DAMPING * max(float(diagonal.mean()), 1e-12)
        self._weight = weight
        self._inverse = inverse(damped)

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

    def __init__(
        self, evidence: Evidence, group: Group, consumers: list[Consumer], covariances: dict[tuple[Any, ...], Moments]
    ) -> None:
        self._group = group
        self._units = np.array([unit.index for unit in group.units], np.int64)
        alike: dict[tuple[Any, ...], list[Consumer]] = collections.defaultdict(list)
        for consumer in consumers:
            alike[consumer.layer.rows_key].append(consumer)
        self._parts = [part for key, own in alike.items() for part in self._split(own, covariances[key])]

    def _split(self, consumers: list[Consumer], moments: Moments) -> Iterator[_Part]:
        """The parts of consumers that read the same rows."""
        layer, every = consumers[0].layer, consumers[0].units
        matrices = [consumer.layer.matrix() for consumer in consumers]
        with np.errstate(over="ignore", invalid="ignore"):
            covariance = moments.covariance()
        each = len(every) // layer.groups
        for number in range(layer.groups):
            units = every[number * each : (number + 1) * each]
            channels = np.flatnonzero(np.isin(units, self._units))
            if not len(channels) or not np.isfinite(covariance[number]).all():
                continue  # what overflowed says nothing; the weights will
            present, counts = np.unique(units[channels], return_counts=True)
            if len(set(counts.tolist())) != 1:
                continue  # a unit with more lanes than another here: nothing that a table could hold
            channels = channels[np.argsort(units[channels], kind="stable")]
            columns = layer.columns_of(channels).reshape(len(present), -1)
            weights = [_scaled(matrix[number], covariance[number]) for matrix in matrices]
            yield _Part(np.concatenate(weights), covariance[number], columns, present)

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


def _scaled(weight: Array, covariance: Array) -> Array:
    """A weight whose results have the variance 1 all together."""
    weight = weight.astype(np.float64)
    variance = float(np.einsum("oc,oc->", weight @ covariance, weight))
    scaled: Array = weight / np.sqrt(max(variance, 1e-12))
    return scaled
