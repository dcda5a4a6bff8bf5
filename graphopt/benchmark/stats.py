"""Latency percentiles, and a paired ratio with a bootstrap confidence interval."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

__all__ = ["Interval", "Latency", "paired_speedup", "summarize"]

_CONFIDENCE = 0.95
_RESAMPLES = 2000
_FEWEST_PAIRS = 5
"""Below this an interval would be decoration: the bootstrap cannot see a tail in four numbers."""


@dataclasses.dataclass(frozen=True, slots=True)
class Latency:
    """The distribution of one model's run times, in milliseconds."""

    p50: float
    p90: float
    p99: float
    min: float
    mean: float
    std: float


@dataclasses.dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with its confidence bounds; the bounds are ``None`` when there were too few samples for any."""

    value: float
    low: float | None = None
    high: float | None = None
    confidence: float = _CONFIDENCE

    @property
    def conclusive(self) -> bool:
        """Whether the interval excludes 1, so that the two sides really differ."""
        return self.low is not None and self.high is not None and not self.low <= 1 <= self.high


def summarize(nanoseconds: Sequence[int]) -> Latency:
    """Percentiles of run times in nanoseconds, as milliseconds."""
    times = np.asarray(nanoseconds, np.float64) / 1e6
    p50, p90, p99 = np.percentile(times, (50, 90, 99))
    return Latency(float(p50), float(p90), float(p99), float(times.min()), float(times.mean()), float(times.std()))


def paired_speedup(first: Sequence[float], other: Sequence[float], *, seed: int = 0) -> Interval:
    """How many times faster ``other`` is than ``first``: the median of the ratios of each pair.

    Pairs are measured in the same round, so that slow drifts (heat, other processes) cancel. The bounds are the
    percentile bootstrap of that median, seeded (Efron and Tibshirani, *An Introduction to the Bootstrap*, 1993).
    """
    ratios = np.asarray(first, np.float64) / np.asarray(other, np.float64)
    estimate = float(np.median(ratios))
    if ratios.size < _FEWEST_PAIRS:
        return Interval(estimate)
    picks = np.random.default_rng(seed).integers(0, ratios.size, (_RESAMPLES, ratios.size))
    tail = 50 * (1 - _CONFIDENCE)
    low, high = np.percentile(np.median(ratios[picks], axis=1), (tail, 100 - tail))
    return Interval(estimate, float(low), float(high))
