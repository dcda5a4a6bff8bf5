"""How a benchmark looks in a terminal and in a notebook."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from graphopt.human import bar, byte_size, count, decimals, duration, energy, printable, shorten_all, times

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType

    from graphopt.benchmark.stats import Interval
    from graphopt.benchmark.table import BenchRow, BenchTable

__all__ = ["html", "terminal"]

_LONGEST_BAR = 40
_SHORTEST_BAR = 6
_LONGEST_NAME = 36
_MOST_FEEDS = 4
_HEADS = ("p50 ms", "p90", "p99", "speed-up", "")
_WEIGHTS: Mapping[str, Callable[[BenchRow], str]] = {
    "per second": lambda row: f"{row.throughput:,.{0 if row.throughput >= 100 else 2}f}",
    "session": lambda row: duration(row.session_ms),
    "memory": lambda row: byte_size(row.peak_bytes),
    "file": lambda row: byte_size(row.file_bytes),
    "nodes": lambda row: f"{row.nodes:,}",
    "params": lambda row: count(row.parameters),
    "energy": lambda row: energy(row.energy_mj),
}
"""What a model weighs: heads, and what stands below them."""


def terminal(table: BenchTable, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
    """Latencies with bars, then what each model weighs, then the verdict and the conditions."""
    ascii_only = options.ascii_only
    width = options.max_width
    yield _latencies(table, width, ascii_only)
    yield Text()
    yield _weights(table, width, ascii_only)
    yield Text()
    if table.verdict:
        yield Text(table.verdict, style="bold")
    for line in _conditions(table, ", " if ascii_only else " · "):
        yield Text(line, style="dim")


def _latencies(table: BenchTable, width: int, ascii_only: bool) -> Table:
    rows = table.rows
    cells = [(*percentiles, *_ratio(row.speedup)) for percentiles, row in zip(_times(rows), rows, strict=True)]
    names = _names(table, width, ascii_only)
    needs = [max(map(len, column)) for column in zip(*cells, _HEADS, strict=True)]
    space = width - max(5, *map(len, names)) - sum(needs) - 2 * (len(needs) + 1)
    bar_width = min(_LONGEST_BAR, space) if space >= _SHORTEST_BAR else 0
    slowest = max(row.latency.p50 for row in rows)
    grid = _grid("model", *([""] if bar_width else []))
    for head in _HEADS[:-1]:
        grid.add_column(head, justify="right", no_wrap=True)
    grid.add_column(_HEADS[-1], style="dim", no_wrap=True)
    for row, name, (p50, *others, ratio, interval) in zip(rows, names, cells, strict=True):
        drawn = bar(row.latency.p50 / slowest, bar_width, ascii_only=ascii_only).ljust(bar_width)
        style = _style(row)
        grid.add_row(
            name,
            *([Text(drawn, style=style or "blue")] if bar_width else []),
            Text(p50, style="bold"),
            *others,
            Text(ratio, style=style),
            interval,
        )
    return grid


def _weights(table: BenchTable, width: int, ascii_only: bool) -> Table:
    grid = _grid("model")
    heads = _weight_heads(table)
    for head in heads:
        grid.add_column(head, justify="right", no_wrap=True)
    for row, name in zip(table.rows, _names(table, width, ascii_only), strict=True):
        grid.add_row(name, *(_WEIGHTS[head](row) for head in heads))
    return grid


def _weight_heads(table: BenchTable) -> list[str]:
    """All but energy where that was not measured."""
    return [head for head in _WEIGHTS if head != "energy" or _has_energy(table)]


def _has_energy(table: BenchTable) -> bool:
    return any(row.energy_mj is not None for row in table.rows)


def _grid(*columns: str) -> Table:
    grid = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for column in columns:
        grid.add_column(column, no_wrap=True)
    return grid


def _names(table: BenchTable, width: int, ascii_only: bool) -> list[Text]:
    """Names that leave the figures their room: the widest figures take about 60 cells."""
    names = shorten_all([row.name for row in table.rows], min(_LONGEST_NAME, max(8, width - 62)))
    return [Text(printable(name.replace("…", "~") if ascii_only else name)) for name in names]


def _times(rows: Sequence[BenchRow]) -> list[tuple[str, str, str]]:
    """Percentiles with as many decimals as the fastest model needs, so that they line up."""
    digits = decimals(min(row.latency.p50 for row in rows))
    return [
        (f"{row.latency.p50:.{digits}f}", f"{row.latency.p90:.{digits}f}", f"{row.latency.p99:.{digits}f}")
        for row in rows
    ]


def _style(row: BenchRow) -> str:
    if row.speedup is None or not row.speedup.conclusive:
        return ""
    return "green" if row.speedup.value > 1 else "red"


def _ratio(speedup: Interval | None) -> tuple[str, str]:
    """The ratio to the first model, and its bounds."""
    if speedup is None:
        return times(1), ""
    if speedup.low is None or speedup.high is None:
        return times(speedup.value), ""
    return times(speedup.value), f"{times(speedup.low)} to {times(speedup.high)}"


def _conditions(table: BenchTable, separator: str) -> list[str]:
    settings, machine = table.settings, table.environment
    measured = [
        settings.provider.removesuffix("ExecutionProvider"),
        "default threads" if settings.threads is None else f"{settings.threads} threads",
        *([f"batch {settings.batch}"] if settings.batch is not None else []),
        *(["IO binding"] if settings.io_binding else []),
        f"{settings.rounds} interleaved rounds",
    ]
    where = [
        f"ONNX Runtime {machine.get('onnxruntime')}",
        f"{machine.get('processor')}",
        f"{machine.get('cores')} cores",
    ]
    feeds = [f"{name} {'x'.join(map(str, shape)) or 'scalar'}" for name, shape in settings.shapes.items()]
    if len(feeds) > _MOST_FEEDS:
        feeds[_MOST_FEEDS - 1 :] = [f"and {len(feeds) - _MOST_FEEDS + 1} more inputs"]
    return [separator.join(line) for line in (measured, where, _energy(table), feeds) if line]


def _energy(table: BenchTable) -> list[str]:
    """Whose energy it is, or why there is none."""
    told = table.settings.energy
    if not told:
        return []
    if _has_energy(table):
        return [f"energy of a run by the counters of {told}, whatever else they saw included"]
    return [f"energy is not measured: {told}"]


def html(table: BenchTable) -> str:
    """One HTML table, self-contained; every text from the models is escaped."""
    weights = _weight_heads(table)
    heads = ("model", "", *_HEADS[:-1], "95% interval", *weights)
    slowest = max(row.latency.p50 for row in table.rows)
    rows = "".join(
        _html_row(row, percentiles, slowest, weights)
        for row, percentiles in zip(table.rows, _times(table.rows), strict=True)
    )
    head = "".join(f"<th>{head}</th>" for head in heads)
    verdict = "".join(f"<p><b>{escape(line)}</b></p>" for line in table.verdict.splitlines())
    conditions = "<br>".join(map(escape, _conditions(table, " · ")))
    return (
        f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>{verdict}<p><small>{conditions}</small></p>"
    )


def _html_row(row: BenchRow, percentiles: tuple[str, str, str], slowest: float, weights: Sequence[str]) -> str:
    color = {"green": "#2a9d5c", "red": "#c8453b"}.get(_style(row), "#4c78a8")
    length = max(1, round(160 * row.latency.p50 / slowest))
    drawn = f'<div style="background:{color};height:0.8em;width:{length}px"></div>'
    texts = (*percentiles, *_ratio(row.speedup), *(_WEIGHTS[head](row) for head in weights))
    cells = "".join(f'<td style="text-align:right">{escape(text)}</td>' for text in texts)
    return f'<tr><td style="text-align:left">{escape(row.name)}</td><td>{drawn}</td>{cells}</tr>'
