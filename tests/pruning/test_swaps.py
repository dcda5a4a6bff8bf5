"""Swaps: a choice of as many units that does less harm, found by sweeps."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest
from harness import parse

import graphopt
from graphopt.channels.analysis import analyze
from graphopt.pruning.importance import covariances
from graphopt.pruning.importance.covariances import Piece
from graphopt.pruning.importance.evidence import Evidence
from graphopt.pruning.importance.swaps import _Sweep, swapped

Array = npt.NDArray[np.float64]

_CHAIN = "agraph (float[N,6] x) => (float[N,3] y) { a = MatMul (x, w1)\n b = Relu (a)\n y = MatMul (b, w2) }"


def _chain(seed: int, width: int = 8) -> tuple[Evidence, Array, Array]:
    """A model, and what its second layer reads and gives, less their means."""
    random = np.random.default_rng(seed)
    base = random.standard_normal((6, width)).astype(np.float32)
    w1 = base + 0.7 * np.roll(base, 1, axis=1)  # neighbours stand in for each other
    w2 = random.standard_normal((width, 3)).astype(np.float32)
    x = random.standard_normal((400, 6)).astype(np.float32)
    hidden = np.maximum(x @ w1, 0).astype(np.float64)
    hidden -= hidden.mean(0)
    return Evidence(analyze(parse(_CHAIN, {"w1": w1, "w2": w2})), [{"x": x}]), hidden, hidden @ w2


def _error(hidden: Array, wanted: Array, gone: Sequence[int]) -> float:
    left = np.delete(hidden, list(gone), axis=1)
    return float(np.square(wanted - left @ np.linalg.lstsq(left, wanted, rcond=None)[0]).sum())


@pytest.mark.parametrize("seed", range(6))
def test_no_swap_of_a_pair_is_better_and_most_choices_are_the_best_of_all(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(covariances, "_DAMPING", 1e-9)
    evidence, hidden, wanted = _chain(seed)
    (group,) = evidence.graph.groups
    first = group.units[0].index
    start = [0, 1, 2, 3]
    found = [unit - first for unit in swapped(evidence, [first + place for place in start])]
    assert len(found) == len(start)
    error = _error(hidden, wanted, found)
    stay = [place for place in range(8) if place not in found]
    others = [_error(hidden, wanted, [*(set(found) - {a}), b]) for a in found for b in stay]
    assert error <= min(others) * (1 + 2e-3)
    best = min(_error(hidden, wanted, gone) for gone in itertools.combinations(range(8), 4))
    assert error <= 1.25 * best
    assert error <= _error(hidden, wanted, start)


def test_the_worth_of_a_unit_is_what_least_squares_says_it_is() -> None:
    random = np.random.default_rng(0)
    rows = random.standard_normal((200, 10)) @ random.standard_normal((10, 10))
    weight = random.standard_normal((4, 10))
    columns = np.arange(10).reshape(5, 2)
    piece = Piece(weight, rows.T @ rows, np.arange(5), columns, np.repeat(np.arange(5), 2))
    sweep = _Sweep(piece, np.array([True, False, False, True, False]))
    wanted = rows @ weight.T

    def error(gone: set[int]) -> float:
        return _error(rows, wanted, columns[sorted(gone)].reshape(-1).tolist()) if gone else 0.0

    gone = {0, 3}
    for place in (None, 3, 1, 0, 1, 4):  # there and back again
        if place is not None:
            sweep.flip(place)
            gone ^= {place}
        expected = [abs(error(gone ^ {unit}) - error(gone)) for unit in range(5)]
        np.testing.assert_allclose(sweep.worth(), expected, rtol=1e-6, atol=1e-8)


def test_segments_keep_their_last_unit() -> None:
    evidence, hidden, wanted = _chain(3)
    (group,) = evidence.graph.groups
    first = group.units[0].index
    free = {unit - first for unit in swapped(evidence, [first, first + 1, first + 2, first + 3])}
    needed = frozenset(first + place for place in sorted(free)[:2])  # both would go
    evidence.graph.groups[0] = dataclasses.replace(group, segments=(needed,))
    start = [unit.index for unit in group.units if unit.index != min(needed)][:4]
    found = swapped(evidence, start)
    assert not needed <= set(found)
    before, after = ([unit - first for unit in gone] for gone in (start, found))
    assert _error(hidden, wanted, after) <= _error(hidden, wanted, before)


def test_prune_with_swaps_leaves_less_error_than_elimination() -> None:
    def missed(importance: str) -> float:
        total = 0.0
        for seed in range(6):
            evidence, _, _ = _chain(seed, 12)
            _, report = graphopt.prune(
                evidence.graph.model,
                "macs=0.5",
                evidence.batches,
                importance=importance,
                multiple=1,
                seed=seed,
                with_report=True,
            )
            total += sum(refit.after for refit in report.refits)
        return total

    assert missed("obs-swap") <= missed("obs")
