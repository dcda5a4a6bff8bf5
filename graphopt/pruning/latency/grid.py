"""The points at which an operator is measured, and what its time is between them."""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from graphopt.pruning.latency.products import Counts, Factor, Site

__all__ = ["DEEPEST", "Curve", "levels", "off_points", "points"]

_FRACTIONS = (
    (1.0,),
    (0.125, 0.5, 1.0),
    (0.125, 0.25, 0.5, 0.75, 1.0),
    (0.0625, 0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1.0),
)
DEEPEST = len(_FRACTIONS) - 1
_MANY_FACTORS = 3
"""With so many factors the grid is one level coarser."""
_ALMOST = 1.08
"""An operator that is off its multiple and takes no longer than this times the next multiple is padded to that."""


def levels(factor: Factor, depth: int) -> list[int]:
    """The counts of a factor at which operators are measured, ascending; each depth has those of the one before."""
    found = {factor.size}
    for fraction in _FRACTIONS[depth]:
        count = math.ceil(fraction * factor.size / factor.step) * factor.step
        found.add(max(1, min(factor.size, count)))
    return sorted(found)


def points(site: Site, depth: int) -> Iterator[dict[int, int]]:
    """The combinations of counts at a depth, by the number of the factor; the full size first."""
    depth = depth - 1 if len(site.factors) >= _MANY_FACTORS and depth > 1 else depth
    each = [reversed(levels(factor, depth)) for factor in site.factors]
    for counts in itertools.product(*each):
        yield {factor.number: count for factor, count in zip(site.factors, counts, strict=True)}


def off_points(site: Site) -> Iterator[tuple[int, dict[int, int]]]:
    """A point on the multiples (of class 0), and for each smaller power of two one that is a multiple of no larger."""
    base = {factor.number: _base(factor) for factor in site.factors}
    coarsest = max((factor.step for factor in site.factors), default=1)
    if coarsest == 1:
        return
    yield 0, base
    gap = coarsest // 2
    while gap:
        yield (
            gap,
            {
                factor.number: base[factor.number] - (gap if gap < factor.step and factor.size > factor.step else 0)
                for factor in site.factors
            },
        )
        gap //= 2


def _base(factor: Factor) -> int:
    if factor.size <= factor.step:
        return factor.size
    return max(factor.step, math.floor(0.625 * factor.size / factor.step) * factor.step)


class Curve:
    """The time of one site at any counts, from what was measured of it.

    Between measured counts it is linear in each; below the least it goes on as between the two least. A count that is
    off the multiple takes what the next multiple takes where the kernel pads, and else a factor more than its share.

    Args:
        site: The site.
        time: What was measured at counts: milliseconds, or ``None``.
        depth: How fine a grid may be.
    """

    def __init__(self, site: Site, time: Callable[[Counts], float | None], depth: int = DEEPEST) -> None:
        self._factors = site.factors
        self._memo: dict[tuple[int, ...], float] = {}
        grid = next((found for found in (_grid(site, time, at) for at in range(depth, -1, -1)) if found), None)
        self.measured = grid is not None
        self._levels, self._times = grid or ([[factor.size] for factor in site.factors], np.zeros(1))
        self._shape = self._times.shape if site.factors else ()
        self._flat: list[float] = self._times.reshape(-1).tolist()
        self._padded: dict[int, bool] = {}
        self._penalty: dict[int, float] = {}
        if self.measured:
            self._learn_penalties(site, time)

    def _learn_penalties(self, site: Site, time: Callable[[Counts], float | None]) -> None:
        measured = [(gap, counts, time(counts)) for gap, counts in off_points(site)]
        aligned = next((taken for gap, _, taken in measured if gap == 0), None)
        for gap, counts, taken in measured:
            if not gap or not taken or not aligned:
                continue
            self._padded[gap] = taken <= _ALMOST * aligned
            smooth = self._between([counts[factor.number] for factor in self._factors])
            base = aligned if self._padded[gap] else smooth
            self._penalty[gap] = max(1.0, taken / base) if base > 0 else 1.0

    def at(self, counts: Sequence[int]) -> float:
        """Milliseconds at the counts of :attr:`Site.factors`."""
        key = tuple(counts)
        known = self._memo.get(key)
        if known is None:
            known = self._memo[key] = self._at(key)
        return known

    def _at(self, counts: tuple[int, ...]) -> float:
        gap = 0
        for factor, count in zip(self._factors, counts, strict=True):
            if count < factor.size and count % factor.step:
                own = math.gcd(count, factor.step)
                gap = min(gap or own, own)
        if not gap:
            return self._between(counts)
        if not self._padded.get(gap, True):
            return self._between(counts) * self._penalty[gap]
        rounded = [
            min(factor.size, math.ceil(count / factor.step) * factor.step)
            for factor, count in zip(self._factors, counts, strict=True)
        ]
        return self._between(rounded) * self._penalty.get(gap, 1.0)

    def _between(self, counts: Sequence[int]) -> float:
        """Linear in each count."""
        corners = [(0, 1.0)]
        for levels, extent, count in zip(self._levels, self._shape, counts, strict=True):
            if extent == 1:
                corners = [(at * extent, weight) for at, weight in corners]
                continue
            upper = min(max(1, bisect.bisect_left(levels, count)), extent - 1)
            low, high = levels[upper - 1], levels[upper]
            share = (count - low) / (high - low)
            corners = [
                (at * extent + place, weight * part)
                for at, weight in corners
                for place, part in ((upper - 1, 1 - share), (upper, share))
            ]
        value = sum(self._flat[at] * weight for at, weight in corners)
        # below the least of all, at least half of what its share of that would be
        shares = (min(1.0, count / levels[0]) for levels, count in zip(self._levels, counts, strict=True))
        return max(value, 0.5 * self._flat[0] * math.prod(shares))


def _grid(
    site: Site, time: Callable[[Counts], float | None], depth: int
) -> tuple[list[list[int]], npt.NDArray[np.float64]] | None:
    """The levels and times of a depth; ``None`` unless all of its points were measured."""
    found: dict[tuple[int, ...], float] = {}
    for counts in points(site, depth):
        taken = time(counts)
        if taken is None:
            return None
        found[tuple(counts.values())] = taken
    axes = [sorted({key[place] for key in found}) for place in range(len(site.factors))]
    times = np.array([found[key] for key in itertools.product(*axes)]).reshape([len(axis) for axis in axes] or [1])
    # All noise makes things slower: what takes more channels takes no less time.
    for place in range(len(axes)):
        times = np.flip(np.minimum.accumulate(np.flip(times, place), place), place)
    return axes, times
