"""How results read: verdicts, terminal, notebook."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.cells import cell_len
from rich.console import Console

from graphopt.benchmark.stats import Interval, Latency
from graphopt.benchmark.table import BenchRow, BenchTable, Settings


def row(name: str, factor: float, speedup: Interval | None) -> BenchRow:
    latency = Latency(2.1 * factor, 2.25 * factor, 3.1 * factor, 2.0 * factor, 2.15 * factor, 0.1)
    return BenchRow(
        name, Path("/m", name), latency, 480, 475 / factor, speedup, 31.2, 21_000_000, 4_970_000, 105, 1_235_496
    )


def table(*rows: BenchRow) -> BenchTable:
    settings = Settings("CPUExecutionProvider", 2, 8, 0, 100, False, {f"input_{i}": [8, 3, 4] for i in range(6)})
    return BenchTable(rows, settings, {"onnxruntime": "1.2.3", "processor": "A processor", "cores": 2})


BEFORE = row("before", 1, None)
FASTER = row("after", 0.75, Interval(1.34, 1.33, 1.36))
SLOWER = row("slow", 1.25, Interval(0.8, 0.78, 0.82))
EQUAL = row("same", 1, Interval(1.002, 0.99, 1.01))
LONG = [
    row("a_very_long_name_of_a_model_exported_last_week_before_optimization", 400, None),
    row("a_very_long_name_of_a_model_exported_last_week_after_optimization", 0.75, Interval(534.1, 500.2, 600.4)),
]


def text(shown: BenchTable, width: int, encoding: str = "utf-8") -> list[str]:
    out = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    Console(width=width, file=out, legacy_windows=False).print(shown)
    out.seek(0)
    return [line.rstrip() for line in out.read().splitlines()]


@pytest.mark.parametrize("width", [60, 80, 120, 200])
@pytest.mark.parametrize("rows", [[BEFORE, FASTER, SLOWER, EQUAL], LONG, [BEFORE]])
def test_tables_keep_a_line_a_model(width: int, rows: list[BenchRow]) -> None:
    lines = text(table(*rows), width)
    assert all(cell_len(line) <= width for line in lines)
    assert lines[0].startswith("model")
    blank = lines.index("")
    assert blank == len(rows) + 1
    assert lines[blank + 1].startswith("model")
    assert lines[blank + 2 + len(rows)] == ""


def test_figures_are_all_there_at_80_columns() -> None:
    lines = text(table(BEFORE, FASTER), 80)
    assert lines[0].split() == ["model", "p50", "ms", "p90", "p99", "speed-up"]
    assert [part for part in lines[2].split() if "█" not in part] == [
        "after", "1.58", "1.69", "2.33", "1.34x", "1.33x", "to", "1.36x",
    ]  # fmt: skip
    assert lines[5].split() == ["before", "475", "31.2", "ms", "21.0", "MB", "4.97", "MB", "105", "1.24", "M"]
    assert "CPU · 2 threads · batch 8 · 100 interleaved rounds" in lines
    assert lines[-1].endswith("and 3 more inputs")


def test_bars_are_in_proportion() -> None:
    lines = text(table(BEFORE, row("half", 0.5, Interval(2.0, 1.9, 2.1))), 120)
    assert lines[1].count("█") == 40
    assert lines[2].count("█") == 20


def test_long_names_stay_different() -> None:
    lines = text(table(*LONG), 80)
    assert [line.split()[0] for line in lines[1:3]] == ["…before…", "…after…"]


def test_plain_ascii_where_the_terminal_has_nothing_else() -> None:
    lines = text(table(*LONG), 80, encoding="ascii")
    assert "".join(lines).isascii()
    assert "#####" in lines[1]


def test_verdicts() -> None:
    assert table(BEFORE).verdict == ""
    assert table(BEFORE, FASTER).verdict == "after is 1.34x faster than before (95% sure of 1.33 to 1.36)."
    assert table(BEFORE, SLOWER).verdict == "slow is 1.25x slower than before (95% sure of 1.22 to 1.28)."
    assert table(BEFORE, EQUAL).verdict == "same and before are equally fast as far as this can tell."


def test_html_escapes_names_and_is_one_table() -> None:
    html = table(row("<script>alert(1)</script>", 1, None), FASTER)._repr_html_()
    assert "<script>" not in html
    assert "&lt;script&gt;" in html
    assert html.count("<table>") == 1
    assert html.count("<tr>") == 3
    assert html.count("<th>") * 2 == html.count("<td")


def test_escapes_in_names_do_not_reach_the_terminal() -> None:
    assert "\x1b" not in "".join(text(table(row("evil\x1b[2J", 1, None), FASTER), 80))
