"""Looks for the compressed model to take: how much goes, in which precision, and whether training makes up for it.

A *variant* is how far a model is compressed, and how; whoever searches gives variants to be built, measured and judged,
and gets *points* back. How units are shared out over groups of channels for so much of the way is decided before, by
:mod:`graphopt.compression.choosing`; here only few numbers are left to be found, each at the cost of a measurement.
Residual blocks may go as a whole: what dropping some of them does is measured for itself, and the best of these are
then narrowed like the model with all of its blocks. Single steps at last give single groups other sizes, as long as
what is measured gets better.

Ways are logarithmic: 0 removes nothing, 1 is predicted to meet the goal, 2 to leave the square of the share that the
goal leaves. What is measured instead of what was predicted is a point's :meth:`Point.way`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from graphopt.compression.points import Point, Variant
from graphopt.compression.reaching import reach
from graphopt.compression.refining import Look, go_beyond, refine
from graphopt.compression.tried import Tried

__all__ = ["HOPELESS", "Choice", "Search"]

_RUNGS: Final = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)  # numbers of blocks that are dropped, besides all of them
_SHALLOWER: Final = 2  # of them that are narrowed, too
_RECOVERED: Final = 0.75  # of what was lost comes back by training, mostly more
_TRAINED: Final = 4  # variants that meet the goal and are trained, before none is said to do
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
        blocks: How many residual blocks may go as a whole.
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
        blocks: int = 0,
        look: Look | None = None,
        hopeless: float = HOPELESS,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._tried = Tried(evaluate, limits)
        self._precisions = precisions
        self._prune = prune
        self._train = train
        self._rungs = sorted({*(one for one in _RUNGS if one < blocks), blocks} - {0})
        self._look = look
        self._hopeless = hopeless
        self._say = say

    def run(self) -> Choice:
        """Searches."""
        self._tried([Variant(0.0, precision) for precision in self._precisions])
        return self._meet() if self._tried.limits else self._go_far()

    def _choice(self, point: Point | None, best: Point | None, reason: str) -> Choice:
        return Choice(point, best, reason, self._tried.points)

    # -- with a goal -------------------------------------------------------------------------------------------------

    def _meet(self) -> Choice:
        """The most accurate one that meets the goal."""
        tried = self._tried
        reached = self._reach(0)
        reached += [one for blocks in self._shallower(reached) for one in self._reach(blocks)]
        if not reached:
            return self._choice(None, self._nearest(), "nothing comes down to the goal")
        self._improve(reached)
        if (best := tried.best()) is not None:
            return self._taken(best)
        met = tried.met
        worst = max(met, key=lambda one: one.score)
        self._say(f"all that meet the goal do harm ({worst.complaint}): looking for the fastest that does not")
        fallback = self._fastest(max(one.variant.way for one in met)) or worst
        if (best := tried.best()) is not None:
            return self._taken(best)
        return self._choice(None, fallback, f"what meets the goal does too much harm: {worst.complaint}")

    def _nearest(self) -> Point:
        """What comes nearest to a goal that nothing meets: within the gates if possible, and trained if that helps."""
        tried = self._tried
        farthest = max(tried.points, key=tried.way)
        if farthest.complaint:
            return self._fastest(farthest.variant.way) or farthest
        nearest = max([one for one in tried.points if one.lost < self._hopeless] or tried.points, key=tried.way)
        if not self._train or nearest.variant.is_whole:
            return nearest
        (trained,) = tried([dataclasses.replace(nearest.variant, trained=True)])
        return max(nearest, trained, key=lambda one: (not one.complaint, one.score))

    def _taken(self, best: Point) -> Choice:
        reason = f"{best.variant.name} is the fastest of those that are as good as the best of {len(self._tried.met)}"
        return self._choice(best, best, f"{reason} that meet the goal")

    def _reach(self, blocks: int) -> list[Point]:
        return reach(self._tried, self._precisions, blocks, prune=self._prune)

    def _shallower(self, reached: Sequence[Point]) -> list[int]:
        """How many blocks to drop before what is left is narrowed: where least harm is to be expected at the goal.

        What narrowing does to the model with all blocks is expected of the others, too, for what they are short of.
        """
        widest = max(reached, key=lambda one: one.score, default=None)
        lost = self._hopeless if widest is None else widest.lost

        def expected(one: Point) -> tuple[float, float]:
            way = self._tried.way(one)
            return max(one.grain, one.lost + lost * max(0.0, 1 - way) ** 2), -way

        hopeful = self._hopeful(self._precisions[0] if widest is None else widest.variant.precision)
        return [one.variant.blocks for one in sorted(hopeful, key=expected)[:_SHALLOWER]]

    def _hopeful(self, precision: str) -> list[Point]:
        """What is left after some blocks went, and nothing else, as far as there is hope for it."""
        found = self._tried([Variant(0.0, precision, blocks=blocks) for blocks in self._rungs])
        return [one for one in found if one.lost < self._hopeless]

    def _improve(self, reached: Sequence[Point]) -> None:
        """Looks for better than what just meets the goal, by measuring and by training."""
        tried = self._tried
        if max(reached, key=lambda one: one.score).variant.is_whole:
            return
        bar = tried.bar(reached)
        for one in _first_of_kinds(sorted(reached, key=lambda one: -one.score)):
            if one.score >= bar:
                go_beyond(tried, one, self._rungs)
        if self._look is not None:
            refine(tried, self._look, self._say)
        if self._train:
            self._train_best()

    def _train_best(self) -> None:
        """Trains the fastest of those that are as good as any, and the fastest that training may make as good.

        Where none of what meets the goal passes the gates then, the most accurate ones are trained, too.
        """
        tried = self._tried
        passed = [one for one in tried.met if not one.complaint] or tried.met
        bar = tried.bar(passed)
        base = max(one.score for one in tried.points if one.variant.is_whole)
        cut = sorted((one for one in tried.met if not one.variant.is_whole), key=lambda one: -one.score)
        as_good = [one for one in cut if one.score >= bar]
        hopeful = [one for one in cut if one.score + _RECOVERED * (base - one.score) >= bar]
        fastest = [max(own, key=tried.way) for own in (as_good, hopeful) if own]
        first = list(dict.fromkeys(one.variant for one in fastest))
        self._say(f"training {' and '.join(one.name for one in first)}")
        tried([dataclasses.replace(one, trained=True) for one in first])
        others = [one.variant for one in _first_of_kinds(cut) if one.variant not in first]
        for one in others[: _TRAINED - len(first)]:
            if tried.best() is not None:
                break
            tried([dataclasses.replace(one, trained=True)])

    # -- without one -------------------------------------------------------------------------------------------------

    def _go_far(self) -> Choice:
        """The fastest one that passes the gates."""
        point = self._fastest(float(_FARTHEST))
        if point is None:
            best = max(self._tried.points, key=lambda one: one.score)
            return self._choice(None, best, f"even the least compression does too much harm: {best.complaint}")
        return self._choice(point, point, f"{point.variant.name} is the fastest that passes all gates")

    def _fastest(self, farthest: float) -> Point | None:
        """The fastest that passes the gates, no farther than a way; None if none does."""
        if self._prune and farthest > 0:
            for blocks in (0, *self._deepest()):
                self._gallop(farthest, blocks)
        passed = [one for one in self._tried.points if not one.complaint]
        return min(passed, key=lambda one: (one.left["latency"], -one.score), default=None)

    def _deepest(self) -> list[int]:
        """The most blocks that can go without harm, if any can."""
        hopeful = [one.variant.blocks for one in self._hopeful(self._precisions[0])]
        return next(([blocks] for blocks in reversed(hopeful) if self._passes(0.0, blocks)), [])

    def _gallop(self, farthest: float, blocks: int) -> None:
        """Goes farther in equal steps as long as it does no harm, or back until it does none; then halves the step."""
        ways = [round(farthest * number / _FARTHEST, 3) for number in range(1, _FARTHEST + 1)]
        raw = self._tried([Variant(way, self._precisions[0], blocks=blocks) for way in ways])
        end = next((number for number, one in enumerate(raw) if one.is_last), len(raw)) + 1
        ways, raw = ways[:end], raw[:end]
        hopeful = [number for number, one in enumerate(raw) if one.lost < self._hopeless]
        at = hopeful[-1] if self._train and hopeful else 0
        good, bad = 0.0, math.inf
        while 0 <= at < len(ways) and good < ways[at] < bad:
            if self._passes(ways[at], blocks):
                good, at = ways[at], at + 1
            else:
                bad, at = ways[at], at - 1
        if math.isinf(bad):
            return
        for _ in range(_BISECTIONS):
            middle = round((good + bad) / 2, 3)
            good, bad = (middle, bad) if self._passes(middle, blocks) else (good, middle)

    def _passes(self, way: float, blocks: int) -> bool:
        """Whether any precision passes the gates there; trained only where none does without."""
        for trained in (False, True) if self._train else (False,):
            found = self._tried([Variant(way, one, trained, blocks=blocks) for one in self._precisions])
            if any(not point.complaint for point in found):
                return True
        return False


def _first_of_kinds(points: Sequence[Point]) -> list[Point]:
    """The first of each precision and number of blocks."""
    found: dict[tuple[str, int], Point] = {}
    for point in points:
        found.setdefault((point.variant.precision, point.variant.blocks), point)
    return list(found.values())
