"""Looks for the compressed model to take: how much goes, in which precision, and whether training makes up for it.

A *variant* is how far a model is compressed, and how; whoever searches gives variants to be built, measured and judged,
and gets *points* back. How units are shared out over groups of channels for so much of the way is decided before, by
:mod:`graphopt.compression.choosing`; here only few numbers are left to be found, each at the cost of a measurement.
Single steps then give single groups other sizes, as long as what is measured gets better.

Ways are logarithmic: 0 removes nothing, 1 is predicted to meet the goal, 2 to leave the square of the share that the
goal leaves. What is measured instead of what was predicted is a point's :meth:`Point.way`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeAlias

from graphopt.compression.points import Point, Step, Variant

__all__ = ["HOPELESS", "Choice", "Search"]

Look: TypeAlias = Callable[[Variant], Sequence[Step]]
"""Single steps that lead on from a variant."""

_TRIES: Final = 5  # measurements that correct a prediction
_MARGIN: Final = 0.98  # of a limit is aimed for: what is just met may be just missed in the next measurement
_CLOSE: Final = 0.95  # of a limit is close enough to it
_BEYOND: Final = (1.25, 1.6)  # times the farthest way that did no harm: as good and faster still, with luck
_NEAR: Final = 1.15  # of a limit: a step or two more may be all that it takes
_STEPS: Final = 18  # that are tried at most
_ASKED: Final = 3  # of them in either direction from one point
_ROUNDING: Final = 1e-9
_GAIN: Final = 1.02  # of the way: less than that is no gain that measuring could tell
_TRAINED: Final = 2  # variants that meet the goal and are trained
_SLOPES: Final = (0.3, 3.0)  # ways predicted for a way measured: what lies beyond is noise
_FARTHEST: Final = 6  # halvings of the latency, where there is no goal
_BISECTIONS: Final = 2
HOPELESS: Final = 0.5  # of the score gone before training: nothing to begin with, whatever is allowed


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


class Search:
    """One search.

    Args:
        evaluate: Builds, measures and judges variants, all of a list at once if it can.
        limits: The goal, as shares of the original; empty for the fastest model that passes the gates.
        precisions: Which may be chosen.
        prune: Whether anything can be removed.
        train: Whether training is allowed.
        look: Says which single steps lead on from a variant; None to take none.
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
        look: Look | None = None,
        hopeless: float = HOPELESS,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._build = evaluate
        self._limits = limits
        self._precisions = precisions
        self._prune = prune
        self._train = train
        self._look = look
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
        first = max(reached, key=lambda one: one.score)
        if first.variant.way > 0:
            self._go_beyond(first)
            self._refine()
            if self._train:
                self._train_best()
        if (best := self._best()) is not None:
            return self._taken(best)
        met = self._met
        worst = max(met, key=lambda one: one.score)
        self._say(f"all that meet the goal do harm ({worst.complaint}): looking for the fastest that does not")
        fallback = self._fastest(max(one.variant.way for one in met)) or worst
        if (best := self._best()) is not None:
            return self._taken(best)
        return Choice(None, fallback, f"what meets the goal does too much harm: {worst.complaint}", self._all)

    @property
    def _met(self) -> list[Point]:
        return [one for one in self._all if one.meets(self._limits)]

    def _bar(self, points: Sequence[Point]) -> float:
        """The score from which on a point is as good as the best one: a single sample decides nothing."""
        return max(one.score - one.grain for one in points) - _ROUNDING

    def _best(self) -> Point | None:
        """The fastest of those that meet the goal, pass the gates, and are as accurate as any other of these."""
        passed = [one for one in self._met if not one.complaint]
        as_good = [one for one in passed if one.score >= self._bar(passed)]
        return max(as_good, key=lambda one: (one.way(self._limits), one.score), default=None)

    def _train_best(self) -> None:
        """Trains the fastest of those that are as good as any, and the best of all."""
        met = [one for one in self._met if not one.complaint] or self._met
        as_good = [one for one in met if one.score >= self._bar(met)]
        fastest = max(as_good, key=lambda one: one.way(self._limits))
        ranked = [fastest, *sorted(met, key=lambda one: (-one.score, -one.way(self._limits)))]
        chosen = [one for one in dict.fromkeys(one.variant for one in ranked) if one.way > 0][:_TRAINED]
        self._say(f"training {' and '.join(one.name for one in chosen)}, the best that meet the goal")
        self._evaluate([dataclasses.replace(one, trained=True) for one in chosen])

    def _go_beyond(self, point: Point) -> None:
        """Goes on along the same way for as long as that does no harm that could be told."""
        best = point
        while not best.is_last:
            ways = [round(best.variant.way * times, 3) for times in _BEYOND]
            found = self._evaluate([dataclasses.replace(best.variant, way=way) for way in ways])
            better = [one for one in found if self._is_better(one, best)]
            if not better:
                break
            best = max(better, key=lambda one: one.variant.way)

    def _refine(self) -> None:
        """Takes single steps, as long as each makes it better, from the best point and from one that all but meets."""
        if self._look is None:
            return
        limits = self._limits.items()
        near = [one for one in self._all if all(one.left[name] <= _NEAR * limit for name, limit in limits)]
        missed = max((one for one in near if not one.meets(self._limits)), key=lambda one: one.score, default=None)
        best = self._best() or max(self._met, key=lambda one: one.score)
        end = len(self._points) + _STEPS
        for start in (best, missed):
            current = start
            while current is not None and current.variant.way > 0 and len(self._points) < end:
                self._say(f"single steps from {current.variant.name}")
                current = self._stepped(current, self._look(current.variant))

    def _stepped(self, current: Point, steps: Sequence[Step]) -> Point | None:
        """The best of the variants that promising steps lead to, if it is better."""
        room = current.way(self._limits) - 1
        shrinking = sorted((one for one in steps if one.harm >= 0 < one.gain), key=lambda one: one.harm / one.gain)
        asked: list[tuple[Step, ...]] = [(one,) for one in shrinking[:_ASKED]]
        if current.meets(self._limits):
            growing = [one for one in steps if one.harm < 0]
            pairs = [(less, more) for less in shrinking for more in growing if less.group != more.group]
            kinds: Sequence[Sequence[tuple[Step, ...]]] = ([(one,) for one in growing], pairs)
            for kind in kinds:
                fitting = [own for own in kind if _harm(own) < 0 <= room + sum(one.gain for one in own)]
                asked += sorted(fitting, key=_harm)[:_ASKED]
        found = self._evaluate([current.variant.resized(own) for own in asked])
        better = [one for one in found if self._is_better(one, current)]
        return max(better, key=lambda one: (one.score, one.way(self._limits)), default=None)

    def _is_better(self, point: Point, than: Point) -> bool:
        """Whether it is, by more than measuring and sampling may be off."""
        gains = point.way(self._limits) > than.way(self._limits) * _GAIN
        if not than.meets(self._limits):
            return gains
        if not point.meets(self._limits):
            return False
        if bool(point.complaint) != bool(than.complaint):
            return not point.complaint
        bar = self._bar(self._met)
        if point.score >= bar:
            return than.score < bar or gains
        return point.score > than.score

    def _taken(self, best: Point) -> Choice:
        reason = f"{best.variant.name} is the fastest of those that are as good as the best of {len(self._met)}"
        return Choice(best, best, f"{reason} that meet the goal", self._all)

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
        ways = [round(farthest * number / _FARTHEST, 3) for number in range(1, _FARTHEST + 1)]
        raw = self._evaluate([Variant(way, self._precisions[0]) for way in ways])
        end = next((number for number, one in enumerate(raw) if one.is_last), len(raw)) + 1
        ways, raw = ways[:end], raw[:end]
        hopeful = [number for number, one in enumerate(raw) if one.lost < self._hopeless]
        at = hopeful[-1] if self._train and hopeful else 0
        good, bad = 0.0, math.inf
        while 0 <= at < len(ways) and good < ways[at] < bad:
            if self._passes(ways[at]):
                good, at = ways[at], at + 1
            else:
                bad, at = ways[at], at - 1
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


def _harm(steps: Sequence[Step]) -> float:
    return sum(one.harm for one in steps)
