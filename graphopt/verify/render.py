"""An :class:`~graphopt.verify.result.Equivalence` in a terminal and in a notebook."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from rich.console import RenderableType

    from graphopt.verify.result import Equivalence, OutputComparison

__all__ = ["to_html", "to_rich"]

_COLUMNS: Final = ("output", "type", "max abs", "max rel", "cosine", "argmax", "allowed", "")
_COLOURS: Final = {"equal": "green", "different": "red", "unproven": "yellow"}


def to_rich(result: Equivalence) -> RenderableType:
    """The verdict in a line, a row an output, then what else matters."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    colour = _COLOURS[result.status]
    parts: list[RenderableType] = [Text.assemble((result.status, f"bold {colour}"), f": {result.message}")]
    if result.outputs:
        table = Table(box=None, pad_edge=False, header_style="bold")
        for column in _COLUMNS:
            table.add_column(column, justify="right" if column in _COLUMNS[2:6] else "left", overflow="fold")
        for output in result.outputs:
            *cells, mark = row(output)
            table.add_row(*map(Text, cells), Text(mark, "green" if output.ok else "bold red"))
        parts.append(table)
    parts += [Text(line, "dim") for line in footnotes(result)]
    return Group(*parts)


def to_html(result: Equivalence) -> str:
    """The same as a table for notebooks."""
    colour = {"equal": "#2a7d2a", "different": "#b3261e", "unproven": "#8a6d00"}[result.status]
    head = f'<b style="color:{colour}">{result.status}</b>: {html.escape(result.message)}'
    rows = "".join(
        f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row(output))}</tr>" for output in result.outputs
    )
    names = "".join(f"<th>{column}</th>" for column in _COLUMNS)
    table = f"<table><tr>{names}</tr>{rows}</table>" if result.outputs else ""
    notes = "".join(f"<br><small>{html.escape(line)}</small>" for line in footnotes(result))
    return f"<div>{head}{table}{notes}</div>"


def row(output: OutputComparison) -> tuple[str, ...]:
    """The cells of an output."""
    shape = "" if output.shape is None else f"[{','.join(map(str, output.shape))}]"
    return (
        output.name,
        f"{output.dtype}{shape}",
        _number(output.max_abs),
        _number(output.max_rel),
        "–" if output.cosine is None else f"{output.cosine:.7f}",
        "–" if output.argmax_agreement is None else f"{output.argmax_agreement:.2%}",
        "same bits" if output.ok and output.identical else str(output.tolerance),
        "ok" if output.ok else output.note or "differs",
    )


def footnotes(result: Equivalence) -> list[str]:
    """Metric, provider, samples and notes, a line each."""
    lines = []
    if result.metric is not None:
        lines.append(f"{result.metric.name}: {result.metric.original:.6g} -> {result.metric.candidate:.6g}")
    if result.outputs:
        plural = "" if len(result.samples) == 1 else "s"
        lines.append(f"{len(result.samples)} sample{plural} on {result.provider.removesuffix('ExecutionProvider')}")
    return [*lines, *result.notes]


def _number(value: float | None) -> str:
    if value is None:
        return "–"
    return "0" if value == 0 else f"{value:.1e}"
