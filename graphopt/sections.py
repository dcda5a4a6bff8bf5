"""Tables of a report: with rich in a terminal, as HTML in a notebook."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from html import escape
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from graphopt.human import bar, printable, shorten_all

if TYPE_CHECKING:
    from rich.console import ConsoleOptions, RenderableType

__all__ = ["NARROW", "Section", "html_table", "page", "plain", "table"]

NARROW = 100
"""Below this many columns tables leave their bars out."""

_BAR = 16


@dataclasses.dataclass(frozen=True, slots=True)
class Section:
    """A table. The first ``texts`` columns are names, the first of which gives way when room is short;
    ``share`` (0 to 1) is drawn as a bar where there is room."""

    heads: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    shares: Sequence[float] = ()
    texts: int = 1
    more: str = ""


def table(section: Section, width: int, ascii_only: bool) -> Table:
    """For a terminal of that many columns."""
    grid = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    columns = list(zip(section.heads, *section.rows, strict=True))
    taken = sum(max(map(len, column)) for column in columns[1:]) + 2 * len(columns)
    bars = bool(section.shares) and width >= NARROW
    room = max(12, width - taken - (_BAR + 2 if bars else 0))
    for index, head in enumerate(section.heads):
        grid.add_column(head, justify="left" if index < section.texts else "right", no_wrap=True)
        if bars and head == "share":
            grid.add_column("", width=_BAR, no_wrap=True)
    names = shorten_all([row[0] for row in section.rows], room)
    for number, (name, (_, *others)) in enumerate(zip(names, section.rows, strict=True)):
        cells = []
        for head, text in zip(section.heads, (name, *others), strict=True):
            cells.append(Text(plain(text, ascii_only)))
            if bars and head == "share":
                cells.append(Text(bar(section.shares[number], _BAR, ascii_only=ascii_only), style="blue"))
        grid.add_row(*cells)
    return grid


def page(
    title: str, facts: Iterable[tuple[str, str]], sections: Iterable[Section], options: ConsoleOptions
) -> Iterator[RenderableType]:
    """A title, facts beneath each other, and the sections that have rows."""
    yield Text(title, style="bold", overflow="fold")
    yield Text()
    summary = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    summary.add_column(no_wrap=True, style="dim")
    summary.add_column(overflow="fold")
    for name, text in facts:
        summary.add_row(name, plain(text, options.ascii_only))
    yield summary
    for section in sections:
        if section.rows:
            yield Text()
            yield table(section, options.max_width, options.ascii_only)
            if section.more:
                yield Text(section.more, style="dim")


def plain(text: str, ascii_only: bool) -> str:
    """Text for a terminal that may know no more than ASCII."""
    return text.replace("…", "~") if ascii_only else text


def html_table(section: Section) -> str:
    """For a notebook; every text is escaped."""
    heads = "".join(f"<th>{escape(head)}</th>" for head in section.heads)
    rows = "".join(
        "<tr>"
        + "".join(
            f'<td style="text-align:{"left" if index < section.texts else "right"}">{escape(printable(text))}</td>'
            for index, text in enumerate(row)
        )
        + "</tr>"
        for row in section.rows
    )
    more = f"<p><small>{escape(section.more)}</small></p>" if section.more else ""
    return f"<table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>{more}"
