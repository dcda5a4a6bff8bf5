"""In which range activations lie: what calibration sees of them, and how much of that is worth representing."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from graphopt.pruning.stages import Feeds, observe

__all__ = ["METHODS", "Histogram", "Range", "collect"]

Array = npt.NDArray[Any]
Range = tuple[float, float]

_BINS = 2048
_PERCENTILE = 99.99
_LEVELS = 256
_THRESHOLDS = 64
"""Candidates that ``mse`` and ``entropy`` try, from all of the range down to little of it."""


class Histogram:
    """How often an activation takes which values; bins double in width when it leaves the range so far.

    Zeros are counted apart: they are many after a Relu, and integers hold them exactly whatever the range.
    """

    def __init__(self) -> None:
        self.low, self.high = math.inf, -math.inf
        self.is_finite = True
        self.zeros = 0
        self._bound = 0.0
        self._counts = np.zeros(_BINS, np.int64)

    def add(self, array: Array) -> None:
        """Counts the elements of an array."""
        if not array.size:
            return
        low, high = float(array.min()), float(array.max())
        if not (math.isfinite(low) and math.isfinite(high)):
            self.is_finite = False
            return
        self.low, self.high = min(self.low, low), max(self.high, high)
        self._widen(max(-low, high))
        if self._bound:
            others = array[array != 0]
            self.zeros += array.size - others.size
            counts, _ = np.histogram(others, _BINS, (-self._bound, self._bound))
            self._counts += counts
        else:
            self.zeros += array.size

    def _widen(self, bound: float) -> None:
        if bound <= self._bound or not bound:
            return
        if not self._bound:
            self._bound = bound
            return
        while self._bound < bound:
            pairs = self._counts.reshape(-1, 2).sum(1)
            self._counts = np.zeros(_BINS, np.int64)
            self._counts[_BINS // 4 : _BINS // 4 + _BINS // 2] = pairs
            self._bound *= 2

    @property
    def edges(self) -> Array:
        """The bounds of the bins."""
        return np.linspace(-self._bound, self._bound, _BINS + 1)

    @property
    def counts(self) -> Array:
        """Elements in each bin."""
        return self._counts

    def within(self, low: float, high: float) -> Range:
        """A range no wider than what was seen, with zero inside, as quantization needs it."""
        return min(0.0, max(low, self.low)), max(0.0, min(high, self.high))


def _minmax(seen: Histogram) -> Range:
    return seen.within(seen.low, seen.high)


def _percentile(seen: Histogram) -> Range:
    """Without the outermost elements on each side, 0.01 % in all."""
    counts = seen.counts
    cut = (100 - _PERCENTILE) / 200 * (int(counts.sum()) + seen.zeros)
    first = int(np.searchsorted(np.cumsum(counts), cut, "right"))
    last = int(np.searchsorted(np.cumsum(counts[::-1]), cut, "right"))
    return seen.within(float(seen.edges[min(first, _BINS)]), float(seen.edges[_BINS - min(last, _BINS)]))


def _mse(seen: Histogram) -> Range:
    """The range whose rounding and clipping errors are least in sum of squares."""
    return _best(seen, _squares)


def _entropy(seen: Histogram) -> Range:
    """The range whose quantized distribution diverges least from the original, after Kullback and Leibler.

    After Migacz, "8-bit inference with TensorRT" (2017).
    """
    return _best(seen, _divergence)


def _best(seen: Histogram, cost: Callable[[Histogram, Range], float]) -> Range:
    shares = np.linspace(1.0, 1.0 / _THRESHOLDS, _THRESHOLDS)
    ranges = [seen.within(float(seen.low * share), float(seen.high * share)) for share in shares]
    return min(ranges, key=lambda one: cost(seen, one))


def _squares(seen: Histogram, candidate: Range) -> float:
    centers = (seen.edges[:-1] + seen.edges[1:]) / 2
    low, high = candidate
    step = (high - low) / (_LEVELS - 1)
    outside = centers - np.clip(centers, low, high)
    errors = np.where(outside == 0, step**2 / 12, outside**2)
    return float((seen.counts * errors).sum())


def _divergence(seen: Histogram, candidate: Range) -> float:
    low, high = candidate
    centers = (seen.edges[:-1] + seen.edges[1:]) / 2
    inside = (centers >= low) & (centers <= high)
    counts = seen.counts[inside].astype(np.float64)
    if not counts.size or not counts.sum():
        return math.inf
    reference = counts.copy()
    reference[0] += seen.counts[centers < low].sum()
    reference[-1] += seen.counts[centers > high].sum()
    level = np.minimum((np.arange(counts.size) * _LEVELS) // counts.size, _LEVELS - 1)
    filled = np.bincount(level, counts > 0, _LEVELS)
    spread = np.bincount(level, counts, _LEVELS) / np.maximum(filled, 1)
    quantized = np.where(counts > 0, spread[level], 0.0)
    seen_at = reference > 0
    p, q = reference[seen_at] / reference.sum(), np.maximum(quantized[seen_at] / counts.sum(), 1e-12)
    return float((p * np.log(p / q)).sum())


METHODS: Mapping[str, Callable[[Histogram], Range]] = {
    "minmax": _minmax,
    "percentile": _percentile,
    "entropy": _entropy,
    "mse": _mse,
}
"""How a range is chosen from what was seen, by name."""


def collect(
    model: ir.Model,
    values: Sequence[ir.Value],
    batches: Iterable[Feeds],
    *,
    provider: str = "cpu",
    threads: int | None = None,
) -> dict[str, Histogram]:
    """Runs a model and counts what float values of its main graph hold, one batch at a time.

    Raises:
        ModelError: ONNX Runtime cannot run the model on the data.
    """
    found = {value.name or "": Histogram() for value in values}
    for arrays in observe(model, values, batches, provider=provider, threads=threads):
        for value, array in zip(values, arrays, strict=True):
            found[value.name or ""].add(np.asarray(array))
    return found
