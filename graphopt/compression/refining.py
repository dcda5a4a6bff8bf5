"""Better than what just meets a goal: farther along the same way, and single groups a size smaller or larger."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

from graphopt.compression.points import Point, Step, Variant
from graphopt.compression.tried import Tried

__all__ = ["Look", "go_beyond", "refine"]

Look: TypeAlias = Callable[[Variant], Sequence[Step]]
"""Single steps that lead on from a variant."""

_BEYOND: Final = (1.25, 1.6)  # times the farthest way that did no harm: as good and faster still, with luck
_FIRST: Final = 0.2  # of the way is gone at least, where one goes on
_NEAR: Final = 1.15  # of a limit: a step or two more may be all that it takes
_STEPS: Final = 12  # that are tried at most from each start
_ASKED: Final = 3  # of them in either direction from one point


def go_beyond(tried: Tried, start: Point, rungs: Sequence[int]) -> None:
    """Goes on along the same way, or drops more blocks, for as long as that does no harm that could be told.

    Args:
        tried: Builds variants, and knows the goal.
        start: Meets the goal.
        rungs: Numbers of blocks that may go, ascending.
    """
    best = start
    while True:
        own = best.variant
        ways = [round(max(own.way, _FIRST) * times, 3) for times in _BEYOND if not best.is_last]
        further = [dataclasses.replace(own, way=way) for way in ways]
        further += [dataclasses.replace(own, blocks=blocks) for blocks in rungs if blocks > own.blocks][:1]
        better = [one for one in tried(further) if tried.is_better(one, best)]
        if not better:
            break
        best = max(better, key=tried.way)


def refine(tried: Tried, look: Look, say: Callable[[str], None]) -> None:
    """Takes single steps, as long as each makes it better.

    They start from the best point, from the best with other blocks, and from a better one
    that all but meets the goal.

    Args:
        tried: Builds variants, and knows the goal, which some meet.
        look: Says which steps there are.
        say: Told what is done.
    """
    best = tried.best() or max(tried.met, key=lambda one: one.score)
    others = [one for one in tried.met if one.variant.blocks != best.variant.blocks]
    missed = [
        one
        for one in tried.points
        if not one.meets(tried.limits)
        and one.score > best.score
        and all(one.left[name] <= _NEAR * limit for name, limit in tried.limits.items())
    ]
    for start in (best, *(max(own, key=lambda one: one.score, default=None) for own in (others, missed))):
        current = start
        end = len(tried.points) + _STEPS
        while current is not None and not current.variant.is_whole and len(tried.points) < end:
            say(f"single steps from {current.variant.name}")
            current = _stepped(tried, current, look(current.variant))


def _stepped(tried: Tried, current: Point, steps: Sequence[Step]) -> Point | None:
    """The best of the variants that promising steps lead to, if it is better."""
    room = tried.way(current) - 1
    shrinking = sorted((one for one in steps if one.harm >= 0 < one.gain), key=lambda one: one.harm / one.gain)
    asked: list[tuple[Step, ...]] = [(one,) for one in shrinking[:_ASKED]]
    if current.meets(tried.limits):
        growing = [one for one in steps if one.harm < 0]
        pairs = [(less, more) for less in shrinking for more in growing if less.group != more.group]
        kinds: Sequence[Sequence[tuple[Step, ...]]] = ([(one,) for one in growing], pairs)
        for kind in kinds:
            fitting = [own for own in kind if _harm(own) < 0 <= room + sum(one.gain for one in own)]
            asked += sorted(fitting, key=_harm)[:_ASKED]
    found = tried([current.variant.resized(own) for own in asked])
    better = [one for one in found if tried.is_better(one, current)]
    return max(better, key=lambda one: (one.score, tried.way(one)), default=None)


def _harm(steps: Sequence[Step]) -> float:
    return sum(one.harm for one in steps)
