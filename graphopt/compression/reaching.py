"""How far to go so that a goal is just met: predicted, measured, and corrected by what was measured."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from graphopt.compression.points import Point, Variant
from graphopt.compression.tried import Tried

__all__ = ["reach"]

_TRIES: Final = 5  # measurements that correct a prediction
_MARGIN: Final = 0.98  # of a limit is aimed for: what is just met may be just missed in the next measurement
_CLOSE: Final = 0.95  # of a limit is close enough to it
_SLOPES: Final = (0.3, 3.0)  # ways predicted for a way measured: what lies beyond is noise


def reach(tried: Tried, precisions: Sequence[str], blocks: int, *, prune: bool) -> list[Point]:
    """For each precision the variant that meets the goal and is closest to it; whatever meets it at way 0.

    Args:
        tried: Builds variants, and knows the goal.
        precisions: Which may be chosen.
        blocks: How many go as a whole.
        prune: Whether channels may go, too.
    """
    starts = tried([Variant(0.0, one, blocks=blocks) for one in precisions])
    open_ = {one.variant.precision: [one] for one in starts}
    for _ in range(_TRIES if prune else 0):
        asked = {one: way for one, own in open_.items() if (way := _next(tried, own)) is not None}
        if not asked:
            break
        for point in tried([Variant(way, one, blocks=blocks) for one, way in asked.items()]):
            open_[point.variant.precision].append(point)
    met = [[one for one in own if one.meets(tried.limits)] for own in open_.values()]
    return [min(own, key=lambda one: (one.variant.way, -one.score)) for own in met if own]


def _next(tried: Tried, own: Sequence[Point]) -> float | None:
    """The way to try next, by the secant through the last two; None if there is nothing to gain."""
    last = own[-1]
    farthest = max(own, key=lambda one: one.variant.way)
    if (
        own[0].meets(tried.limits)
        or last.is_broken
        or _is_close(tried, last)
        or (farthest.is_last and not farthest.meets(tried.limits))
    ):
        return None
    ways = [tried.way(one) for one in own]
    slope = 1.0
    if len(own) > 1 and ways[-1] != ways[-2]:
        slope = (last.variant.way - own[-2].variant.way) / (ways[-1] - ways[-2])
        slope = min(max(slope, _SLOPES[0]), _SLOPES[1])
    margin = max((math.log(_MARGIN) / math.log(limit) for limit in tried.limits.values() if limit < 1), default=0.0)
    return round(max(0.0, last.variant.way + (1 + margin - ways[-1]) * slope), 3)


def _is_close(tried: Tried, point: Point) -> bool:
    """Whether it meets the goal and is not much below it."""
    near = {name: limit * _CLOSE for name, limit in tried.limits.items()}
    return point.meets(tried.limits) and not all(point.left[name] < limit for name, limit in near.items())
