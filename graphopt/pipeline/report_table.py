"""The terminal form of a report."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from graphopt.human import shorten

if TYPE_CHECKING:
    from graphopt.pipeline.report import Report

__all__ = ["render"]

_STYLE = {"proven": "green", "unproven": "yellow", "unverified": "dim"}
_LONGEST_EXAMPLE = 28


def render(report: Report) -> RenderableType:
    """Sizes before and after, the passes that fired, and what has been proven."""
    parts: list[RenderableType] = [_sizes(report)]
    if report.changed:
        parts += [Text(), _fired(report)]
    else:
        parts.append(Text("Nothing to do: no pass found anything to change.", style="dim"))
    parts += [Text.assemble(("dropped ", "red"), one.name, (f"  {one.reason}", "dim")) for one in report.dropped]
    if report.misses:
        parts += [Text(), _misses(report)]
    parts += [Text(note, style="yellow") for note in report.notes]
    parts += [Text(), Text(report.proof(), style=_STYLE[report.status]), _seconds(report)]
    return Group(*parts)


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index == 0 else "right", overflow="fold")
    return table


def _sizes(report: Report) -> Table:
    table = _table("", "before", "after", "change")
    for label, before, after, change in report.rows():
        total = label in ("nodes", "initializers", "weights")
        color = "green" if change.startswith("-") else "yellow" if change not in ("", "~0%") else ""
        table.add_row(Text(label, style="bold" if total else "dim"), before, after, Text(change, style=color))
    return table


def _fired(report: Report) -> Table:
    table = _table("pass", "changes")
    table.add_column("safety")
    for one in report.passes:
        if one.count:
            table.add_row(one.name, str(one.count), Text(one.safety, style="dim"))
    return table


def _misses(report: Report) -> Table:
    table = _table("did not apply", "times")
    table.add_column("why")
    table.add_column("for example", no_wrap=True, style="dim")
    for name, reasons in report.misses.items():
        for reason, (count, node) in reasons.items():
            table.add_row(name, str(count), reason, shorten(node, _LONGEST_EXAMPLE))
    return table


def _seconds(report: Report) -> Text:
    steps = ", ".join(f"{step} {seconds:.2f} s" for step, seconds in report.seconds.items())
    return Text(steps, style="dim")
