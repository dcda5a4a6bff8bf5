"""Second moments of what layers read, and the columns of them that the units of a group are.

What :mod:`~graphopt.pruning.importance.obs` and :mod:`~graphopt.pruning.importance.swaps` work on.
"""

from __future__ import annotations

import collections
import dataclasses
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from graphopt.pruning.importance.evidence import Consumer, Evidence
from graphopt.pruning.layers import Layer
from graphopt.pruning.moments import Moments

__all__ = ["Piece", "by_group", "covered", "pieces"]

Array = npt.NDArray[Any]
Indices = npt.NDArray[np.int64]
Covariances = Mapping[tuple[Any, ...], Moments]

_MEMORY = 3 << 29
"""Bytes of covariances held at a time; a model with more is watched in several passes."""
_WIDEST = 8192
_ROWS_PER_COLUMN = 2
_FEWEST_ROWS = 4096
_DAMPING = 1e-2


@dataclasses.dataclass(frozen=True, eq=False)
class Piece:
    """Layers that read the same rows (one group of channels of them), and where a group's units are in these.

    Attributes:
        weight: ``(outputs, columns)`` of all these layers, scaled so that what each gives has the variance 1.
        covariance: ``(columns, columns)`` float64, damped.
        units: ``(units,)``, the numbers of the group's units that are here.
        columns: ``(units, width)``: those of each of them.
        owners: ``(columns,)``: the unit of each column, of other groups too; -1 for what stays anyway.
    """

    weight: Array
    covariance: Array
    units: Indices
    columns: Indices
    owners: Indices


def by_group(evidence: Evidence) -> dict[int, list[Consumer]]:
    """The layers that sum over the units of each group; those that are too wide left out."""
    found: dict[int, list[Consumer]] = collections.defaultdict(list)
    for consumer in evidence.consumers:
        if consumer.layer.columns <= _WIDEST:
            for group in np.unique(evidence.graph.group_of[consumer.units[consumer.units >= 0]]).tolist():
                found[group].append(consumer)
    return dict(found)


def covered(evidence: Evidence, consumers: Mapping[int, list[Consumer]]) -> Iterator[tuple[int, Covariances]]:
    """Each group with the covariances of its layers; as many groups at a time as fit into memory."""
    for groups in _bunches(consumers):
        layers = list(dict.fromkeys(consumer.layer for group in groups for consumer in consumers[group]))
        covariances = _covariances(evidence, layers)
        for group in groups:
            yield group, covariances


def _bunches(by_group: Mapping[int, list[Consumer]]) -> Iterator[list[int]]:
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


def pieces(consumers: Iterable[Consumer], covariances: Covariances, units: Indices) -> Iterator[Piece]:
    """The layers of a group whose units have these numbers, in pieces that read the same."""
    alike: dict[tuple[Any, ...], list[Consumer]] = collections.defaultdict(list)
    for consumer in consumers:
        alike[consumer.layer.rows_key].append(consumer)
    for key, own in alike.items():
        yield from _split(own, covariances[key], units)


def _split(consumers: Sequence[Consumer], moments: Moments, own: Indices) -> Iterator[Piece]:
    """Layers that read the same rows, by group of channels."""
    layer, every = consumers[0].layer, consumers[0].units
    matrices = [consumer.layer.matrix() for consumer in consumers]
    with np.errstate(over="ignore", invalid="ignore"):
        covariance = moments.covariance()
    each = len(every) // layer.groups
    for number in range(layer.groups):
        units = every[number * each : (number + 1) * each]
        channels = np.flatnonzero(np.isin(units, own))
        if not len(channels) or not np.isfinite(covariance[number]).all():
            continue  # what overflowed says nothing; the weights will
        present, counts = np.unique(units[channels], return_counts=True)
        if len(set(counts.tolist())) != 1:
            continue  # a unit with more lanes than another here: nothing that a table could hold
        channels = channels[np.argsort(units[channels], kind="stable")]
        columns = layer.columns_of(channels).reshape(len(present), -1)
        owners = np.full(layer.columns, -1, np.int64)
        owners[layer.columns_of(np.arange(each))] = units[:, None]
        weights = [_scaled(matrix[number], covariance[number]) for matrix in matrices]
        yield Piece(np.concatenate(weights), _damped(covariance[number]), present, columns, owners)


def _damped(covariance: Array) -> Array:
    damped: Array = covariance.astype(np.float64)  # float32 loses definiteness after some steps of elimination
    diagonal = np.einsum("cc->c", damped)  # a view
    diagonal += _DAMPING * max(float(diagonal.mean()), 1e-12)
    return damped


def _scaled(weight: Array, covariance: Array) -> Array:
    """A weight whose results have the variance 1 all together."""
    weight = weight.astype(np.float64)
    variance = float(np.einsum("oc,oc->", weight @ covariance, weight))
    scaled: Array = weight / np.sqrt(max(variance, 1e-12))
    return scaled
