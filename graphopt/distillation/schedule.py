"""Learning rates over a run: pure functions of the step, so that a resumed run goes on exactly."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Final

from graphopt.errors import UsageError

__all__ = ["SHAPES", "Schedule"]


@dataclasses.dataclass(frozen=True, slots=True)
class Schedule:
    """What share of the highest learning rate a step gets.

    It rises in a straight line during the warm-up, then follows its shape down to the floor.

    Attributes:
        shape: A name of :data:`SHAPES`: ``cosine`` (arXiv 1608.03983, without restarts), ``linear``, ``step`` or
            ``constant``.
        warmup: Share of the run, 0 to 1 (exclusive).
        floor: The least share of the learning rate that the shape goes down to, 0 to 1.
        drops: For ``step``: shares of the run, warm-up included, at which the rate drops.
        factor: For ``step``: what a drop multiplies it by.

    Raises:
        UsageError: An unknown shape, or a number outside its range.
    """

    shape: str = "cosine"
    warmup: float = 0.0
    floor: float = 0.0
    drops: tuple[float, ...] = (0.5, 0.75)
    factor: float = 0.1

    def __post_init__(self) -> None:
        if self.shape not in SHAPES:
            raise UsageError(f"there is no schedule '{self.shape}'", hint=f"There are: {', '.join(SHAPES)}.")
        if not (0 <= self.warmup < 1 and 0 <= self.floor <= 1 and 0 < self.factor <= 1):
            raise UsageError(
                f"no schedule has warmup={self.warmup:g}, floor={self.floor:g} and factor={self.factor:g}",
                hint="They are shares: warmup below 1, floor from 0 to 1, factor above 0 and up to 1.",
            )

    def __call__(self, step: int, steps: int) -> float:
        """The share in step ``step`` (from 0) of ``steps``."""
        warm = round(self.warmup * steps)
        if step < warm:
            return (step + 1) / (warm + 1)
        level = SHAPES[self.shape](self, (step - warm) / max(1, steps - warm), step / steps)
        return self.floor + (1 - self.floor) * level


def _drops(schedule: Schedule, _: float, share: float) -> float:
    return schedule.factor ** sum(share >= drop for drop in schedule.drops)


SHAPES: Final[Mapping[str, Callable[[Schedule, float, float], float]]] = {
    "cosine": lambda _, since, __: 0.5 * (1 + math.cos(math.pi * since)),
    "linear": lambda _, since, __: 1 - since,
    "step": _drops,
    "constant": lambda *_: 1.0,
}
"""From the share of the run since the warm-up, and of the whole run, to a number from 1 down to 0."""
