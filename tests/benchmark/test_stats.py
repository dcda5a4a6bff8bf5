"""Percentiles and the paired ratio."""

from __future__ import annotations

import numpy as np
import pytest

from graphopt.benchmark.stats import Interval, paired_speedup, summarize


def test_percentiles_are_milliseconds() -> None:
    latency = summarize([1_000_000 * step for step in range(1, 101)])
    assert latency.p50 == pytest.approx(50.5)
    assert latency.p90 == pytest.approx(90.1)
    assert latency.p99 == pytest.approx(99.01)
    assert (latency.min, latency.mean) == (1.0, 50.5)


def test_interval_holds_the_true_ratio_despite_drift() -> None:
    random = np.random.default_rng(3)
    drift = np.linspace(1, 3, 80)  # the machine slows down threefold; pairs do not notice
    first = drift * 2.0 * random.lognormal(0, 0.05, 80)
    other = drift * 1.0 * random.lognormal(0, 0.05, 80)
    speedup = paired_speedup(list(first), list(other), seed=1)
    assert speedup.low is not None
    assert speedup.high is not None
    assert speedup.low < 2 < speedup.high
    assert speedup.high - speedup.low < 0.1
    assert speedup.conclusive


def test_interval_covers_as_often_as_it_says() -> None:
    random = np.random.default_rng(5)
    covered = 0
    for seed in range(200):
        speedup = paired_speedup(list(random.lognormal(0, 0.2, 40)), list(random.lognormal(0, 0.2, 40)), seed=seed)
        covered += not speedup.conclusive
    assert 0.90 <= covered / 200 <= 0.99


def test_same_seed_same_interval() -> None:
    times = list(np.random.default_rng(0).lognormal(0, 0.2, 30))
    assert paired_speedup(times, times[::-1], seed=4) == paired_speedup(times, times[::-1], seed=4)
    assert paired_speedup(times, times[::-1], seed=4) != paired_speedup(times, times[::-1], seed=5)


def test_few_rounds_have_no_interval() -> None:
    speedup = paired_speedup([2.0, 2.0, 2.0], [1.0, 1.0, 1.0])
    assert speedup == Interval(2.0)
    assert not speedup.conclusive
