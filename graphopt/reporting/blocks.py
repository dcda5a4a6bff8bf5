"""What a report is made of, before it is HTML or Markdown: sections of tables and charts, their text ready to show."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal, NamedTuple, TypeAlias

__all__ = [
    "Bar",
    "Cell",
    "Chart",
    "Code",
    "Column",
    "Line",
    "Mark",
    "Miniature",
    "Miniatures",
    "Part",
    "Prose",
    "Rule",
    "Section",
    "Table",
    "Tick",
    "Tile",
    "Tone",
]

Tone: TypeAlias = Literal["", "good", "bad", "dim"]


class Bar(NamedTuple):
    """A bar in a cell: ``kept`` is one of a whole, ``pair`` two below each other, ``span`` the way from one place to
    another. Percent of the cell's width."""

    kind: Literal["kept", "pair", "span"]
    first: float
    second: float = 0.0


class Cell(NamedTuple):
    """A cell of a table; ``full`` is the whole text where ``text`` is short for it."""

    text: str
    tone: Tone = ""
    bar: Bar | None = None
    full: str = ""


class Column(NamedTuple):
    """A column of a table; ``bar`` ones are pictures of numbers that stand in other columns."""

    name: str
    kind: Literal["name", "text", "number", "bar"] = "number"


@dataclasses.dataclass(frozen=True, slots=True)
class Table:
    """A table; the first column names the rows.

    Attributes:
        label: What it shows.
        columns: Its columns.
        rows: A cell a column.
        more: What was left out.
        folded: Whether it only repeats a picture in numbers.
        titled: Whether the label stands above it.
        picture: How to read the bars.
    """

    label: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    more: str = ""
    folded: bool = False
    titled: bool = False
    picture: str = ""

    @property
    def is_narrow(self) -> bool:
        """Whether it is better not drawn out to the width of a page."""
        return all(column.kind in ("name", "number") for column in self.columns)


class Tick(NamedTuple):
    """A number at an axis; percent of its length."""

    at: float
    text: str


class Line(NamedTuple):
    """A line through ``x,y`` in percent, y downwards."""

    points: str


class Mark(NamedTuple):
    """A point, in percent, y downwards; ``title`` tells all about it, ``label`` stands beside it."""

    x: float
    y: float
    kind: Literal["dot", "front", "chosen", "original", "below"]
    title: str = ""
    label: str = ""


class Rule(NamedTuple):
    """A limit, across the chart at a place of one axis."""

    axis: Literal["x", "y"]
    at: float
    text: str


@dataclasses.dataclass(frozen=True, slots=True)
class Chart:
    """A chart.

    Attributes:
        label: What it shows, in a sentence, for those who cannot see it.
        x_name: Of the axis.
        y_name: Of the axis.
        x_ticks: Along the axis.
        y_ticks: Along the axis.
        lines: Drawn first.
        marks: Points, the last one on top.
        rules: Limits.
        legend: Kinds of marks, and what they mean.
        note: What else a reader must know.
    """

    label: str
    x_name: str
    y_name: str
    x_ticks: Sequence[Tick]
    y_ticks: Sequence[Tick]
    lines: Sequence[Line] = ()
    marks: Sequence[Mark] = ()
    rules: Sequence[Rule] = ()
    legend: Sequence[tuple[str, str]] = ()
    note: str = ""


class Miniature(NamedTuple):
    """A small chart without axes."""

    name: Cell
    note: str
    lines: Sequence[Line]
    mark: Mark | None


@dataclasses.dataclass(frozen=True, slots=True)
class Miniatures:
    """Small charts side by side, on the same axes.

    Attributes:
        label: What they show.
        note: What the axes are.
        charts: The charts.
        more: What was left out.
    """

    label: str
    note: str
    charts: Sequence[Miniature]
    more: str = ""


class Prose(NamedTuple):
    """A list of sentences."""

    lines: Sequence[str]


class Code(NamedTuple):
    """Text to be copied."""

    label: str
    text: str


Part: TypeAlias = Table | Chart | Miniatures | Prose | Code


@dataclasses.dataclass(frozen=True, slots=True)
class Section:
    """A section.

    Attributes:
        key: Its anchor.
        title: Its heading.
        text: What it shows, in a sentence or two.
        parts: In order.
    """

    key: str
    title: str
    text: str
    parts: Sequence[Part]


class Tile(NamedTuple):
    """A figure of the summary: what it is now, what it was, and how the two compare."""

    label: str
    value: str
    was: str = ""
    change: str = ""
    tone: Tone = ""
