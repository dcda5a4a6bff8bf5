"""An :class:`~graphopt.verify.result.Equivalence` in a terminal and in a notebook."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Final

from graphopt.human import printable, shorten_all

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import RenderableType

    from graphopt.verify.result import Equivalence, OutputComparison, Tolerance

__all__ = ["terminal", "to_html"]

_COLUMNS: Final = ("output", "type", "max abs", "max rel", "cosine", "argmax", "rtol, atol", "")
_LEFT_OUT: Final = ("max rel", "cosine")
"""In a table of fewer than ``_NARROW`` columns."""

_NARROW: Final = 100
_SHORTEST_NAME: Final = 12
_LONGEST_MARK: Final = 12
_COLOURS: Final = {"equal": "green", "different": "red", "unproven": "yellow"}


def terminal(result: Equivalence, width: int) -> Iterator[RenderableType]:
    """The verdict in a line, a row an output, then what else matters; ``width`` in columns."""
    from rich.text import Text

    colour = _COLOURS[result.status]
    yield Text.assemble((result.status, f"bold {colour}"), f": {printable(result.message)}")
    if result.outputs:
        yield _table(result, width)
    for line in footnotes(result):
        yield Text(line, "dim")


def _table(result: Equivalence, width: int) -> RenderableType:
    from rich.table import Table
    from rich.text import Text

    shown = [place for place, column in enumerate(_COLUMNS) if width >= _NARROW or column not in _LEFT_OUT]
    rows = [row(output) for output in result.outputs]
    others = [max(len(_COLUMNS[place]), *(len(cells[place]) for cells in rows)) + 2 for place in shown[1:-1]]
    marks = min(_LONGEST_MARK, max(len(cells[-1]) for cells in rows))
    names = shorten_all([printable(cells[0]) for cells in rows], max(_SHORTEST_NAME, width - sum(others) - marks - 2))
    table = Table(box=None, pad_edge=False, header_style="bold")
    for place in shown:
        right = 2 <= place < 6
        table.add_column(_COLUMNS[place], justify="right" if right else "left", no_wrap=place < 6, overflow="fold")
    for output, name, cells in zip(result.outputs, names, rows, strict=True):
        mark = Text(cells[-1], "green" if output.ok else "bold red")
        table.add_row(name, *(cells[place] for place in shown[1:-1]), mark)
    return table


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
        "same bits" if output.ok and output.identical else _allowed(output.tolerance),
        "ok" if output.ok else output.note or "differs",
    )


def _allowed(tolerance: Tolerance) -> str:
    if tolerance.kind in ("exact", "random"):
        return tolerance.kind
    return f"{tolerance.rtol:.0e}, {tolerance.atol:.1e}{'*' if tolerance.kind == 'calibrated' else ''}"


def footnotes(result: Equivalence) -> list[str]:
    """Metric, provider, samples and notes, a line each."""
    lines = []
    if result.metric is not None:
        lines.append(f"{result.metric.name}: {result.metric.original:.6g} -> {result.metric.candidate:.6g}")
    if result.outputs:
        plural = "" if len(result.samples) == 1 else "s"
        lines.append(f"{len(result.samples)} sample{plural} on {result.provider.removesuffix('ExecutionProvider')}")
    if any(output.tolerance.kind == "calibrated" for output in result.outputs):
        lines.append("* widened to what ONNX Runtime's own optimizations change on the original")
    return [*lines, *result.notes]


def _number(value: float | None) -> str:
    if value is None:
        return "–"
    return "0" if value == 0 else f"{value:.1e}"
