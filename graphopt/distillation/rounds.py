"""Pruning in rounds, with training between them: how far each of them goes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from graphopt.errors import UsageError
from graphopt.pruning.goal import Goal

__all__ = ["aims"]

Sizes = Mapping[str, float]
"""What a goal may limit, but for latency: ``macs``, ``params`` and ``bytes``."""

_LEAST: Final = 1.0  # of a size, so that ratios are numbers


def aims(goal: str, steps: int) -> Iterator[Aim]:
    """The aims of the rounds: equal shares, in logarithms, of the way to the goal.

    Args:
        goal: As ``macs=0.25``; see :class:`~graphopt.pruning.goal.Goal`.
        steps: Rounds.

    Raises:
        UsageError: The goal is none, or cannot be reached in so many steps.
    """
    limits = Goal.of(goal).limits
    if steps < 1:
        raise UsageError(f"prune-steps={steps} makes no sense", hint="Give 1 or more.")
    if steps > 1 and limits.get("latency", 0) > 1:
        raise UsageError("milliseconds are reached in one step", hint="Give a share: latency=0.5.")
    return (Aim(limits, step / steps, 1 / steps) for step in range(1, steps + 1))


class Aim:
    """What one round has to reach.

    Args:
        limits: Of the goal: up to 1 a share of the whole, above it a number.
        share: Of the way that is done after it.
        step: Of the way that it goes.
    """

    def __init__(self, limits: Sizes, share: float, step: float) -> None:
        self._limits = limits
        self._share = share
        self._step = step

    def of(self, whole: Sizes, now: Sizes) -> dict[str, float]:
        """The limits of this round, as shares of what the model is now.

        Args:
            whole: Of the model before the first round.
            now: Of the model before this one.
        """
        if self._step == 1:
            return dict(self._limits)
        return {
            name: limit**self._step if name == "latency" else self._of(limit, whole[name], now[name])
            for name, limit in self._limits.items()
        }

    def _of(self, limit: float, whole: float, now: float) -> float:
        last = limit if limit > 1 else limit * whole
        wanted: float = whole * (max(last, _LEAST) / max(whole, _LEAST)) ** self._share
        return min(1.0, wanted / max(now, _LEAST))
