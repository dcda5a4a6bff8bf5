"""Axes of charts: where each thing stands, in percent, so that a template can draw it at any width."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

from graphopt.reporting.blocks import Tick
from graphopt.reporting.wording import Scores, plain

__all__ = ["Scale", "line", "round_scale", "score_scale", "tick_form"]

_TICKS: Final = 5


@dataclasses.dataclass(frozen=True, slots=True)
class Scale:
    """From numbers to percent of an axis; what lies beyond is put on its end."""

    low: float
    high: float
    is_log: bool = False

    def at(self, value: float) -> float:
        """Where a number stands."""
        if self.is_log:
            low, high, value = math.log(self.low), math.log(self.high), math.log(max(value, self.low))
        else:
            low, high = self.low, self.high
        return round(100 * min(1.0, max(0.0, (value - low) / (high - low))), 2)

    def up(self, value: float) -> float:
        """Where a number stands on an axis that goes up, as pictures count: from above."""
        return round(100 - self.at(value), 2)

    def ticks(self, form: Callable[[float], str]) -> list[Tick]:
        """Round numbers along it, by distance from its low end; none whose text says the same as the one before."""
        found: dict[str, Tick] = {}
        for value in self._powers() if self.is_log else self._steps():
            text = form(value)
            found.setdefault(text, Tick(self.at(value), text))
        return list(found.values())

    def _steps(self) -> Iterator[float]:
        step = _round_step((self.high - self.low) / _TICKS)
        first = math.ceil(self.low / step - 1e-9)
        for index in range(_TICKS * 3):
            if (value := (first + index) * step) > self.high + 1e-9 * step:
                return
            yield float(f"{value:.12g}")

    def _powers(self) -> Iterator[float]:
        first, last = math.ceil(math.log10(self.low) - 1e-9), math.floor(math.log10(self.high) + 1e-9)
        for power in range(first, last + 1, max(1, math.ceil((last - first + 1) / _TICKS))):
            yield 10.0**power


def round_scale(values: Iterable[float]) -> Scale:
    """One that holds all values, and begins and ends at a round number."""
    found = list(values)
    low, high = min(found), max(found)
    if high - low < 1e-9 * max(1.0, abs(high)):
        low, high = low - 0.05 * max(abs(low), 0.1), high + 0.05 * max(abs(high), 0.1)
    step = _round_step((high - low) / _TICKS)
    return Scale(math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step)


def score_scale(values: Iterable[float], scores: Scores) -> Scale:
    """A round scale that does not show shares which there cannot be."""
    found = list(values)
    scale = round_scale(found)
    if not scores.is_share or min(found) < 0 or max(found) > 1:
        return scale
    return Scale(max(scale.low, 0.0), min(scale.high, 1.0))


def tick_form(scores: Scores | None, scale: Scale) -> Callable[[float], str]:
    """As few decimals as tell the ticks apart."""
    is_share = scores is not None and scores.is_share
    step = _round_step((scale.high - scale.low) / _TICKS) * (100 if is_share else 1)
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    if scale.is_log or digits > 6 or abs(scale.high) >= 1e6:
        return plain
    return lambda value: f"{value:,.{digits}{'%' if is_share else 'f'}}"


def line(points: Sequence[tuple[float, float]]) -> str:
    """Points as SVG writes them."""
    return " ".join(f"{x:g},{y:g}" for x, y in points)


def _round_step(step: float) -> float:
    """The next of 1, 2 and 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= step * (1 - 1e-9))
