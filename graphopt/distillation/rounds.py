"""Pruning in rounds, with training between them: how far each of them goes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from graphopt.errors import UsageError
from graphopt.pruning.goal import Goal, Limit

__all__ = ["aims"]

Sizes = Mapping[str, float]
"""What a goal may limit and training can count: ``macs``, ``params`` and ``bytes``."""

_UNCOUNTED: Final = ("latency", "memory")  # known of each model by itself only, so rounds go by shares of that
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
    for name in _UNCOUNTED:
        if steps > 1 and name in limits and not limits[name].is_share:
            raise UsageError(
                f"{name}={limits[name]} can be reached in one step only", hint=f"Give a share, as {name}=0.5."
            )
    return (Aim(limits, step / steps, 1 / steps) for step in range(1, steps + 1))


class Aim:
    """What one round has to reach.

    Args:
        limits: Of the goal.
        share: Of the way that is done after it.
        step: Of the way that it goes.
    """

    def __init__(self, limits: Mapping[str, Limit], share: float, step: float) -> None:
        self._limits = limits
        self._share = share
        self._step = step

    def of(self, whole: Sizes, now: Sizes) -> dict[str, Any]:
        """The limits of this round: of a single one the goal's, else shares of what the model is now.

        Args:
            whole: Of the model before the first round.
            now: Of the model before this one.
        """
        if self._step == 1:
            return dict(self._limits)
        return {
            name: limit.number**self._step if name in _UNCOUNTED else self._of(limit, whole[name], now[name])
            for name, limit in self._limits.items()
        }

    def _of(self, limit: Limit, whole: float, now: float) -> float:
        wanted: float = whole * (max(limit.amount(whole), _LEAST) / max(whole, _LEAST)) ** self._share
        return min(1.0, wanted / max(now, _LEAST))
