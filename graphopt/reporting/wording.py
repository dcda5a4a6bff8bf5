"""Numbers, names and scores of a report, as people read them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

from graphopt.human import printable, shorten, shorten_all
from graphopt.reporting.blocks import Cell, Tone
from graphopt.reporting.schema import Report

__all__ = [
    "DASH",
    "Scores",
    "finite",
    "lines",
    "many",
    "more",
    "most",
    "name",
    "names",
    "plain",
    "sentence",
    "shown",
    "signed",
]

T = TypeVar("T")

DASH: Final = "–"
_LARGEST: Final = 1e100
_NAME: Final = 64
_FULL: Final = 400
_SENTENCE: Final = 600
"""Characters that a page shows of a name, of the same name where a pointer rests on it, and of a sentence."""


def finite(value: object) -> float | None:
    """A number as a float; ``None`` for what is none, or beyond all measure, and 0 for what is next to it."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    if not abs(number) < _LARGEST:  # nor is NaN
        return None
    return number if abs(number) * _LARGEST > 1 else 0.0


def shown(value: object, form: Callable[[Any], str]) -> str:
    """A number in the words of ``form``, a dash without one."""
    number = finite(value)
    return DASH if number is None else form(int(number) if number.is_integer() else number)


def plain(number: float) -> str:
    """Four significant digits: ``0.01234``, ``1,235``, ``1.2e+09``."""
    text = f"{number:,.0f}" if 1000 <= abs(number) < 1e6 else f"{number:.4g}"
    return f"−{text[1:]}" if number < 0 else text


def signed(number: float, digits: int = 2) -> str:
    """``+0.25``, ``−0.25``, ``0.00``."""
    text = f"{number:+.{digits}f}"
    return text[1:] if not float(text) else text.replace("-", "−")


def name(value: object, missing: str = DASH) -> Cell:
    """A name of any origin."""
    text = printable(_text(value)) or missing
    short = shorten(text, _NAME)
    return Cell(short, full="" if short == text else shorten(text, _FULL))


def names(values: Sequence[object], width: int = _NAME) -> list[Cell]:
    """Names of any origin in ``width`` characters, those that differ told apart where that can be helped."""
    texts = [printable(_text(value)) or DASH for value in values]
    short = shorten_all(texts, width)
    return [Cell(one, full="" if one == text else shorten(text, _FULL)) for one, text in zip(short, texts, strict=True)]


def sentence(value: object, width: int = _SENTENCE) -> str:
    """Prose on one line, of ``width`` characters at most."""
    return shorten(printable(" ".join(_text(value).split())), width)


def lines(value: object) -> str:
    """Text whose lines stay lines."""
    return "\n".join(printable(line.expandtabs()) for line in _text(value).strip().splitlines())


def most(items: Sequence[T], weight: Callable[[T], float | None], limit: int) -> list[T]:
    """The ``limit`` heaviest items, in the order in which they came."""
    order = sorted(range(len(items)), key=lambda index: -(weight(items[index]) or 0.0))
    return [items[index] for index in sorted(order[:limit])]


def many(number: int, what: str) -> str:
    """``1 layer``, ``1,200 layers``."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def more(total: int, limit: int, why: str) -> str:
    """What is said of those beyond the limit; empty if there are none."""
    return f"… and {total - limit:,} more, {why}; the JSON report has all." if total > limit else ""


def _text(value: object) -> str:
    return "" if value is None else str(value)


@dataclasses.dataclass(frozen=True, slots=True)
class Scores:
    """How a metric is told.

    Attributes:
        metric: Its name.
        is_share: Whether it lies between 0 and 1: then it is told in percent, and changes in percentage points.
        is_better: 1 if more is better, -1 if less is.
    """

    metric: str
    is_share: bool = True
    is_better: int = 1

    @classmethod
    def of(cls, report: Report) -> Scores:
        """As the report has it."""
        return cls(
            name(report.get("metric"), "score").text,
            report.get("metric_is_share") is not False,
            -1 if report.get("higher_is_better") is False else 1,
        )

    @property
    def unit(self) -> str:
        """Of changes, with a space before it."""
        return " points" if self.is_share else ""

    @property
    def scale(self) -> float:
        """What turns a difference of scores into that unit."""
        return 100.0 if self.is_share else 1.0

    def text(self, score: float) -> str:
        """A score."""
        return f"{score:.2%}" if self.is_share else plain(score)

    def difference(self, change: float) -> str:
        """A change, in the unit of changes: above 0 is more."""
        return signed(change) if self.is_share else ("+" if change > 0 else "") + plain(change)

    def change(self, before: object, after: object) -> Cell:
        """What became of a score."""
        old, new = finite(before), finite(after)
        if old is None or new is None:
            return Cell(DASH, "dim")
        difference = (new - old) * self.scale
        return Cell(self.difference(difference), self.tone(difference))

    def tone(self, change: float) -> Tone:
        """Whether a change, in the unit of changes, is for the better."""
        worth = change * self.is_better
        return "" if (abs(change) < 0.005 and self.is_share) or not change else "good" if worth > 0 else "bad"
