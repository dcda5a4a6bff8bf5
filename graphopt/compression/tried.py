"""What a search has tried so far, and what is good among it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from graphopt.compression.points import Point, Variant

__all__ = ["Tried"]

_ROUNDING: Final = 1e-9
_GAIN: Final = 1.02  # of the way: less than that is no gain that measuring could tell


class Tried:
    """Builds each variant once, and compares what came of them.

    Args:
        build: Builds, measures and judges variants, all of a list at once if it can.
        limits: The goal, as shares of the original.

    Attributes:
        limits: The same.
    """

    def __init__(self, build: Callable[[Sequence[Variant]], Sequence[Point]], limits: Mapping[str, float]) -> None:
        self._build = build
        self.limits = limits
        self._points: dict[Variant, Point] = {}

    def __call__(self, variants: Sequence[Variant]) -> list[Point]:
        """What comes of variants; only those are built that were not before."""
        new = [one for one in dict.fromkeys(variants) if one not in self._points]
        if new:
            self._points.update(zip(new, self._build(new), strict=True))
        return [self._points[one] for one in variants]

    @property
    def points(self) -> list[Point]:
        """All that was tried."""
        return list(self._points.values())

    @property
    def met(self) -> list[Point]:
        """What meets the goal."""
        return [one for one in self.points if one.meets(self.limits)]

    def way(self, point: Point) -> float:
        """How far a point is on the way to the goal: 1 meets it."""
        return point.way(self.limits)

    def bar(self, points: Sequence[Point]) -> float:
        """The score from which on a point is as good as the best one: a single sample decides nothing."""
        return max(one.score - one.grain for one in points) - _ROUNDING

    def best(self) -> Point | None:
        """The fastest of those that meet the goal, pass the gates, and are as accurate as any other of these."""
        passed = [one for one in self.met if not one.complaint]
        as_good = [one for one in passed if one.score >= self.bar(passed)]
        return max(as_good, key=lambda one: (self.way(one), one.score), default=None)

    def is_better(self, point: Point, than: Point) -> bool:
        """Whether it is, by more than measuring and sampling may be off."""
        gains = self.way(point) > self.way(than) * _GAIN
        if not than.meets(self.limits):
            return gains
        if not point.meets(self.limits):
            return False
        if bool(point.complaint) != bool(than.complaint):
            return not point.complaint
        bar = self.bar(self.met)
        if point.score >= bar:
            return than.score < bar or gains
        return point.score > than.score
