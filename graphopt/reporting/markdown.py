"""The report of a compression as Markdown, for a pull request or a wiki: the page without its pictures."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, cast

from graphopt.reporting.blocks import Code, Prose, Section, Table
from graphopt.reporting.content import Content, content

if TYPE_CHECKING:
    from graphopt.reporting.schema import Report

__all__ = ["markdown"]

_SPECIAL: Final = re.compile(r"[\\`*_\[\]<>|~&$]")
_BEGINNING: Final = re.compile(r"(\d*)([-+=#.)])(?![\d.])")
"""What means something anywhere on a line, and what only where it begins: lists, headings, underlines of headings."""
_VERDICTS: Final = {True: "✅ Goal met", False: "❌ Goal not met"}


def markdown(report: Mapping[str, Any]) -> str:
    """Shows a compression as Markdown with tables as GitHub has them; the same report gives the same text.

    Args:
        report: What :class:`graphopt.reporting.schema.Report` describes.
    """
    return "\n".join(_document(content(cast("Report", report)))) + "\n"


def _document(found: Content) -> Iterator[str]:
    yield f"# {_escaped(found.title) or 'Compression report'}"
    said = [f"**{_VERDICTS[found.met]}**"] if found.met is not None else []
    said += [_line(found.verdict)] if found.verdict else []
    if said:
        yield from ("", ": ".join(said))
    if found.reasons:
        yield from ("", *(f"- {_line(reason)}" for reason in found.reasons))
    if found.terms:
        yield from ("", "; ".join(f"{term}: {_escaped(value)}" for term, value in found.terms))
    if found.tiles:
        rows = [(tile.label, tile.value, tile.was.removeprefix("was "), tile.change) for tile in found.tiles]
        yield from ("", *_grid(("", "now", "original", "change"), rows, ("text", "number", "number", "number")))
    for section in found.sections:
        yield from _section(section)


def _section(section: Section) -> Iterator[str]:
    body = [line for part in section.parts for line in _part(part)]
    if section.parts and not body:  # nothing but pictures
        return
    yield from ("", f"## {_escaped(section.title)}")
    if section.text:
        yield from ("", _line(section.text))
    yield from body


def _part(part: object) -> Iterator[str]:
    if isinstance(part, Table):
        yield from _table(part)
    elif isinstance(part, Prose):
        yield from ("", *(f"- {_line(line)}" for line in part.lines))
    elif isinstance(part, Code):
        fence = "`" * max(3, 1 + max(map(len, re.findall("`+", part.text)), default=0))
        yield from ("", f"{part.label}:", "", f"{fence}sh", part.text, fence)


def _table(table: Table) -> Iterator[str]:
    columns = [(index, column) for index, column in enumerate(table.columns) if column.kind != "bar"]
    rows = [[row[index].text for index, _ in columns] for row in table.rows]
    if table.titled:
        yield from ("", f"### {_escaped(table.label)}")
    yield from ("", *_grid([column.name for _, column in columns], rows, [column.kind for _, column in columns]))
    if table.more:
        yield from ("", _line(table.more))


def _grid(heads: Sequence[str], rows: Sequence[Sequence[str]], kinds: Sequence[str]) -> Iterator[str]:
    yield _row(map(_escaped, heads))
    yield _row("---:" if kind == "number" else "---" for kind in kinds)
    yield from (_row(map(_escaped, row)) for row in rows)


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _escaped(text: str) -> str:
    """Text that means nothing to Markdown."""
    return _SPECIAL.sub(r"\\\g<0>", text)


def _line(text: str) -> str:
    """The same where a line begins with it."""
    return _BEGINNING.sub(r"\1\\\2", _escaped(text), count=1) if _BEGINNING.match(text) else _escaped(text)
