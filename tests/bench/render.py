"""The tables of :mod:`bench.peers`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from bench.peers import Row

__all__ = ["progress", "show"]

_CONSOLE = Console()
if not _CONSOLE.is_terminal:
    _CONSOLE = Console(width=150)  # a file has no width of its own
_SHOWN = 70  # characters of what went wrong


def progress(rows: Sequence[Row]) -> None:
    """One line for a model that is done."""
    times = "  ".join(f"{row.tool} {row.seconds:.3f}" if row.seconds is not None else f"{row.tool} -" for row in rows)
    Console(stderr=True).print(f"{rows[0].model}: {times}", highlight=False, style="dim")


def show(rows: Sequence[Row], figures: Mapping[str, Any]) -> None:
    """All rows, one block a model, then the summary."""
    table = Table(box=None, pad_edge=False)
    for column in ("model", "tool", "nodes", "seconds", "peak MB", "equivalence"):
        numeric = column in ("nodes", "seconds", "peak MB")
        table.add_column(column, justify="right" if numeric else "left", no_wrap=True)
    last = ""
    for row in rows:
        if row.model != last and last:
            table.add_section()
        style = "bold" if row.tool == "graphopt" else ("red" if row.verdict not in ("equal", "not compared") else "")
        table.add_row(
            row.model if row.model != last else "",
            row.tool,
            f"{row.nodes_before} > {row.nodes}" if row.nodes is not None else "",
            f"{row.seconds:.3f}" if row.seconds is not None else "",
            f"{row.peak / 1e6:.0f}" if row.seconds is not None else "",
            row.verdict if len(row.verdict) <= _SHOWN else f"{row.verdict[:_SHOWN]}…",
            style=style,
        )
        last = row.model
    _CONSOLE.print(table)
    _CONSOLE.print()
    _summary(figures)


def _summary(figures: Mapping[str, Any]) -> None:
    for model, ratio in figures["ratio"].items():
        over = " (rival over 1 s)" if model in figures["rival_over_1s"] else ""
        _CONSOLE.print(f"time ratio {model}: {ratio:.2f}{over}", highlight=False)
    if figures["geometric_mean"] is not None:
        _CONSOLE.print(
            f"time ratio, geometric mean over {len(figures['ratio'])} models: {figures['geometric_mean']:.3f}",
            highlight=False,
            style="bold",
        )
    for tool, steps in figures["growth"].items():
        if steps:
            shown = ", ".join(f"{step:.1f}x" for step in steps)
            _CONSOLE.print(f"time growth per step of size, {tool}: {shown}", highlight=False)
    for name, ratio in figures["memory"].items():
        _CONSOLE.print(f"peak memory over model size, {name}: {ratio:.2f}", highlight=False)
