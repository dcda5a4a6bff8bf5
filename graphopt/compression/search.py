"""Looks for the compressed model to take: how much goes, in which precision, and whether training makes up for it.

A *variant* is how far a model is compressed, and how; whoever searches gives variants to be built, measured and judged,
and gets *points* back. How units are shared out over groups of channels for so much of the way is decided before, by
:mod:`graphopt.compression.choosing`; here only few numbers are left to be found, each at the cost of a measurement.

Ways are logarithmic: 0 removes nothing, 1 is predicted to meet the goal, 2 to leave the square of the share that the
goal leaves. What is measured instead of what was predicted is a point's :meth:`Point.way`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Final

__all__ = ["Choice", "Point", "Search", "Variant", "front"]

_TRIES: Final = 5  # measurements that correct a prediction
_MARGIN: Final = 0.98  # of a limit is aimed for: what is just met may be just missed in the next measurement
_CLOSE: Final = 0.95  # of a limit is close enough to it
_OFF: Final = 1.01  # of a limit counts as met: what measuring may be off by
_BEYOND: Final = (1.25, 1.6)  # times the way that met the goal: as good and faster still, with luck
_TRAINED: Final = 2  # variants that meet the goal and are trained
_SLOPES: Final = (0.3, 3.0)  # ways predicted for a way measured: what lies beyond is noise
_FARTHEST: Final = 6  # halvings of the latency, where there is no goal
_BISECTIONS: Final = 2
_HOPELESS: Final = 0.5  # of the score gone before training: nothing to begin with, whatever is allowed


@dataclasses.dataclass(frozen=True, order=True)
class Variant:
    """A way to compress the model.

    Attributes:
        way: How far, as predicted.
        precision: A key of :data:`graphopt.compression.settings.PRECISIONS`.
        trained: Whether it is distilled.
    """

    way: float
    precision: str
    trained: bool = False

    @property
    def name(self) -> str:
        """For people and files."""
        return f"{self.way:.3f}-{self.precision}{'-trained' if self.trained else ''}"


@dataclasses.dataclass(frozen=True)
class Point:
    """A variant that was built.

    Attributes:
        variant: Which.
        left: What is left of the original, as shares by measure; latency is measured.
        score: On the samples to choose by; more is better.
        lost: Of the original's score, as a share of it.
        drop: The same, in percentage points, or in the metric's own unit.
        complaint: The gate that it failed on these samples; empty if it passed them all.
        is_last: Whether nothing more could be removed.
    """

    variant: Variant
    left: Mapping[str, float]
    score: float
    lost: float = 0.0
    drop: float = 0.0
    complaint: str = ""
    is_last: bool = False

    @property
    def is_broken(self) -> bool:
        """Whether it could not be built, so that nothing was measured."""
        return any(map(math.isinf, self.left.values()))

    def way(self, limits: Mapping[str, float]) -> float:
        """How far towards limits it has got, in logarithms: 1 meets the one that is farthest, just."""
        return min((_logarithm(self.left[name], limit) for name, limit in limits.items()), default=math.inf)

    def meets(self, limits: Mapping[str, float]) -> bool:
        """Whether it is within all limits."""
        return all(self.left[name] <= limit * (_OFF if name == "latency" else 1) for name, limit in limits.items())


def _logarithm(left: float, limit: float) -> float:
    if limit >= 1:
        return math.inf if left <= limit else 0.0
    return math.log(max(left, 1e-9)) / math.log(limit)


@dataclasses.dataclass(frozen=True)
class Choice:
    """What the search ends with.

    Attributes:
        point: What is taken; None if nothing meets the goal and passes the gates.
        best: The best that can be had where nothing does: within the gates if possible.
        reason: Why, in a sentence.
        points: All that were measured.
    """

    point: Point | None
    best: Point | None
    reason: str
    points: Sequence[Point]


def front(points: Sequence[Point]) -> list[Point]:
    """Those that no other one beats in latency and score both, fastest first."""
    found: list[Point] = []
    for point in sorted(points, key=lambda one: (one.left["latency"], -one.score)):
        if not found or point.score > found[-1].score:
            found.append(point)
    return found


class Search:
    """One search.

    Args:
        evaluate: Builds, measures and judges variants, all of a list at once if it can.
        limits: The goal, as shares of the original; empty for the fastest model that passes the gates.
        precisions: Which may be chosen.
        prune: Whether anything can be removed.
        train: Whether training is allowed.
        hopeless: Share of the score gone before training from which it is not expected to come back far enough.
        say: Told what is done and why.
    """

    def __init__(
        self,
        evaluate: Callable[[Sequence[Variant]], Sequence[Point]],
        limits: Mapping[str, float],
        precisions: Sequence[str],
        *,
        prune: bool = True,
        train: bool = True,
        hopeless: float = _HOPELESS,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._build = evaluate
        self._limits = limits
        self._precisions = precisions
        self._prune = prune
        self._train = train
        self._hopeless = hopeless
        self._say = say
        self._points: dict[Variant, Point] = {}

    def run(self) -> Choice:
        """Searches."""
        self._evaluate([Variant(0.0, precision) for precision in self._precisions])
        return self._meet() if self._limits else self._go_far()

    def _evaluate(self, variants: Sequence[Variant]) -> list[Point]:
        new = [one for one in dict.fromkeys(variants) if one not in self._points]
        if new:
            self._points.update(zip(new, self._build(new), strict=True))
        return [self._points[one] for one in variants]

    @property
    def _all(self) -> list[Point]:
        return list(self._points.values())

    # -- with a goal -------------------------------------------------------------------------------------------------

    def _meet(self) -> Choice:
        """The most accurate one that meets the goal."""
        reached = self._reach()
        if not reached:
            nearest = max(self._all, key=lambda one: one.way(self._limits))
            if nearest.complaint:
                nearest = self._fastest(nearest.variant.way) or nearest
            return Choice(None, nearest, "nothing comes down to the goal", self._all)
        ranked = sorted(reached, key=lambda one: -one.score)
        if self._prune and ranked[0].variant.way > 0:
            first = ranked[0].variant
            self._evaluate([dataclasses.replace(first, way=round(first.way * times, 3)) for times in _BEYOND])
        if self._train and not all(one.variant.way == 0 for one in ranked[:1]):
            chosen = [one for one in ranked if one.variant.way > 0][:_TRAINED]
            self._say(f"training {' and '.join(one.variant.name for one in chosen)}, the best that meet the goal")
            self._evaluate([dataclasses.replace(one.variant, trained=True) for one in chosen])
        if (best := self._best()) is not None:
            return self._taken(best)
        met = [one for one in self._all if one.meets(self._limits)]
        worst = max(met, key=lambda one: one.score)
        self._say(f"all that meet the goal do harm ({worst.complaint}): looking for the fastest that does not")
        fallback = self._fastest(max(one.variant.way for one in met)) or worst
        if (best := self._best()) is not None:
            return self._taken(best)
        return Choice(None, fallback, f"what meets the goal does too much harm: {worst.complaint}", self._all)

    def _best(self) -> Point | None:
        """The most accurate one that meets the goal and passes the gates."""
        passed = [one for one in self._all if one.meets(self._limits) and not one.complaint]
        return max(passed, key=lambda one: (one.score, -one.left["latency"]), default=None)

    def _taken(self, best: Point) -> Choice:
        met = sum(one.meets(self._limits) for one in self._all)
        return Choice(best, best, f"{best.variant.name} has the best score of {met} that meet the goal", self._all)

    def _reach(self) -> list[Point]:
        """For each precision the variant that meets the goal and is closest to it; whatever meets it at way 0."""
        open_ = {one: [self._points[Variant(0.0, one)]] for one in self._precisions}
        for _ in range(_TRIES if self._prune else 0):
            asked = {one: way for one, tried in open_.items() if (way := self._next(tried)) is not None}
            if not asked:
                break
            for point in self._evaluate([Variant(way, one) for one, way in asked.items()]):
                open_[point.variant.precision].append(point)
        met = [[one for one in tried if one.meets(self._limits)] for tried in open_.values()]
        return [min(own, key=lambda one: (one.variant.way, -one.score)) for own in met if own]

    def _next(self, tried: Sequence[Point]) -> float | None:
        """The way to try next, by the secant through the last two; None if there is nothing to gain."""
        last = tried[-1]
        farthest = max(tried, key=lambda one: one.variant.way)
        if (
            tried[0].meets(self._limits)
            or last.is_broken
            or self._is_close(last)
            or (farthest.is_last and not farthest.meets(self._limits))
        ):
            return None
        ways = [one.way(self._limits) for one in tried]
        slope = 1.0
        if len(tried) > 1 and ways[-1] != ways[-2]:
            slope = (last.variant.way - tried[-2].variant.way) / (ways[-1] - ways[-2])
            slope = min(max(slope, _SLOPES[0]), _SLOPES[1])
        wanted = 1.0 + self._margin()
        return round(max(0.0, last.variant.way + (wanted - ways[-1]) * slope), 3)

    def _margin(self) -> float:
        return max((math.log(_MARGIN) / math.log(limit) for limit in self._limits.values() if limit < 1), default=0.0)

    def _is_close(self, point: Point) -> bool:
        """Whether it meets the goal and is not much below it."""
        near = {name: limit * _CLOSE for name, limit in self._limits.items()}
        return point.meets(self._limits) and not all(point.left[name] < limit for name, limit in near.items())

    # -- without one -------------------------------------------------------------------------------------------------

    def _go_far(self) -> Choice:
        """The fastest one that passes the gates."""
        point = self._fastest(float(_FARTHEST))
        if point is None:
            best = max(self._all, key=lambda one: one.score)
            return Choice(None, best, f"even the least compression does too much harm: {best.complaint}", self._all)
        return Choice(point, point, f"{point.variant.name} is the fastest that passes all gates", self._all)

    def _fastest(self, farthest: float) -> Point | None:
        """The fastest that passes the gates, no farther than a way; None if none does."""
        if self._prune and farthest > 0:
            self._gallop(farthest)
        passed = [one for one in self._all if not one.complaint]
        return min(passed, key=lambda one: (one.left["latency"], -one.score), default=None)

    def _gallop(self, farthest: float) -> None:
        """Goes farther in equal steps as long as it does no harm, or back until it does none; then halves the step."""
        steps = [round(farthest * number / _FARTHEST, 3) for number in range(1, _FARTHEST + 1)]
        first = self._precisions[0]
        raw = self._evaluate([Variant(way, first) for way in steps])
        ends = [number for number, one in enumerate(raw) if one.is_last]
        steps, raw = steps[: (ends or [len(raw)])[0] + 1], raw[: (ends or [len(raw)])[0] + 1]
        at = (
            max((number for number, one in enumerate(raw) if one.lost < self._hopeless), default=0)
            if self._train
            else 0
        )
        good, bad = 0.0, math.inf
        while 0 <= at < len(steps) and good < steps[at] < bad:
            if self._passes(steps[at]):
                good, at = steps[at], at + 1
            else:
                bad, at = steps[at], at - 1
        if math.isinf(bad):
            return
        for _ in range(_BISECTIONS):
            middle = round((good + bad) / 2, 3)
            good, bad = (middle, bad) if self._passes(middle) else (good, middle)

    def _passes(self, way: float) -> bool:
        """Whether any precision passes the gates there; trained only where none does without."""
        for trained in (False, True) if self._train else (False,):
            found = self._evaluate([Variant(way, precision, trained) for precision in self._precisions])
            if any(not point.complaint for point in found):
                return True
        return False
