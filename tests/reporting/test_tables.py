"""The tables of a report, and how numbers and names are told."""

from __future__ import annotations

import math

import pytest

from graphopt.reporting import tables
from graphopt.reporting.blocks import Bar, Table
from graphopt.reporting.content import content
from graphopt.reporting.schema import Check, Layer, Part, Report
from graphopt.reporting.wording import DASH, Scores, finite, name, names, plain, sentence, signed

ACCURACY, MAE = Scores("accuracy"), Scores("mae", is_share=False, is_better=-1)


def texts(table: Table) -> list[list[str]]:
    return [[column.name for column in table.columns], *([cell.text for cell in row] for row in table.rows)]


def test_gates() -> None:
    checks: list[Check] = [
        {
            "name": "accuracy",
            "before": 0.9,
            "after": 0.85,
            "harm": 5.0,
            "limit": 0.5,
            "passed": False,
            "unit": "points",
        },
        {"name": "flips", "before": 0.0, "after": 0.1, "harm": 0.1, "limit": 0.2, "passed": True, "unit": "share"},
        {"name": "mae", "before": 1.5, "after": 1.25, "harm": -0.25, "limit": None, "passed": True, "where": "night"},
        {"name": "noise", "harm": math.nan, "limit": 1.0, "passed": False},
    ]
    table = tables.gates(checks)
    assert texts(table) == [
        ["gate", "result", "harm", "limit", "original", "now", "where"],
        ["accuracy", "✗ failed", "+5.00", "0.5", "90.00%", "85.00%", ""],
        ["flips", "✓ passed", "10.00%", "20.00%", "0.00%", "10.00%", ""],
        ["mae", "not judged", "−0.25", DASH, "1.5", "1.25", "night"],
        ["noise", "✗ failed", DASH, "1", DASH, DASH, ""],
    ]
    assert [row[1].tone for row in table.rows] == ["bad", "good", "dim", "bad"]


def test_a_failed_gate_is_shown_however_many_there_are() -> None:
    checks: list[Check] = [{"name": str(n), "limit": 1.0, "harm": 0.0, "passed": n != 777} for n in range(900)]
    table = tables.gates(checks)
    assert [row[0].text for row in table.rows if row[1].tone == "bad"] == ["777"]
    assert len(table.rows) == 40
    assert "860 more" in table.more
    (section,) = content({"checks": checks}).sections
    assert section.text == "899 of 900 gates passed."


def test_kept() -> None:
    table = tables.kept([{"name": "a", "units": 8, "kept": 2}, {"name": "b", "units": 8}])
    assert texts(table)[1:] == [["a", "", "2", "8", "25%"], ["b", "", DASH, "8", DASH]]
    assert [row[1].bar for row in table.rows] == [Bar("kept", 25.0), None]


def test_the_slowest_layers_in_the_order_of_the_graph() -> None:
    layers: list[Layer] = [{"name": str(n), "before_ms": n / 10, "after_ms": n / 20} for n in range(100)]
    layers[3]["after_ms"] = 99.0
    table = tables.latencies(layers)
    assert [row[0].text for row in table.rows] == ["3", *map(str, range(61, 100))]
    assert table.rows[-1][1].bar == Bar("pair", 10.0, 5.0)
    assert texts(table)[-1][2:] == ["9.9", "4.95", "2.00x"]
    assert texts(table)[0] == ["layer", "", "original, ms", "now, ms", "faster"]


def test_classes() -> None:
    table = tables.parts("x", "class", [{"name": "a", "samples": 1200, "before": 0.9, "after": 0.8}], ACCURACY)
    assert texts(table)[1] == ["a", "", "−10.00", "90.00%", "80.00%", "1,200"]
    assert table.rows[0][1].bar == Bar("span", 100.0, 0.0)
    assert table.rows[0][2].tone == "bad"
    worse: list[Part] = [{"name": str(n), "before": 1.0, "after": 1.0 + n} for n in range(50)]
    table = tables.parts("x", "class", worse, MAE)
    assert [row[0].text for row in table.rows] == [str(n) for n in range(10, 50)]
    assert table.rows[0][2] == ("+10", "bad", None, "")


def test_samples_that_changed() -> None:
    table = tables.changed(
        [
            {"index": 3, "label": "7", "before": "7", "after": "9", "confidence_before": 0.6, "confidence_after": 0.0},
            {"index": 4, "label": "9", "before": "7", "after": "9"},
            {"index": 5, "label": "1", "before": "7", "after": "9"},
        ]
    )
    assert texts(table)[1:] == [
        ["3", "7 (60%)", "9 (0%)", "7", "now wrong"],
        ["4", "7", "9", "9", "now right"],
        ["5", "7", "9", "1", "wrong both times"],
    ]
    assert texts(tables.changed([{"index": 3, "before": "7", "after": "9"}]))[0] == ["sample", "original", "now"]


def test_a_column_that_says_nothing_is_left_out() -> None:
    assert texts(tables.stages([{"name": "prune", "seconds": 2.0}, {"name": "bench", "seconds": 0.0}])) == [
        ["stage", "time"],
        ["prune", "2.00 s"],
        ["bench", DASH],
    ]


def test_operators() -> None:
    report: Report = {"before": {"ops": {"Relu": 2, "Conv": 5}}, "after": {"ops": {"Conv": 5, "Gather": 1}}}
    table = tables.operators(report)
    assert table is not None
    assert texts(table)[1:] == [["Conv", "5", "5", "0"], ["Relu", "2", "0", "−2"], ["Gather", "0", "1", "+1"]]
    assert tables.operators({"before": {"ops": None}}) is None


def test_facts() -> None:
    nested = {"seed": 0, "none": None, "versions": {"onnx": "1", "deep": {"a": {"b": {"c": 1}}}}, "list": [1, "b"]}
    table = tables.facts(nested | {"command": "graphopt"})
    assert table is not None
    assert texts(table)[1:] == [
        ["seed", "0"],
        ["versions / onnx", "1"],
        ["versions / deep / a / b", "{'c': 1}"],
        ["list", "1, b"],
    ]
    assert tables.facts({"command": "graphopt"}) is None


@pytest.mark.parametrize(
    ("before", "after", "change", "tone"),
    [
        (100, 50, "2.00x smaller", "good"),
        (50, 100, "2.00x larger", "bad"),
        (1000, 1001, "the same", ""),
        (None, 7, "", ""),
        (0, 7, "", ""),
    ],
)
def test_tiles(before: int | None, after: int, change: str, tone: str) -> None:
    (tile,) = content({"before": {"bytes": before}, "after": {"bytes": after}}).tiles
    assert (tile.value, tile.change, tile.tone) == (f"{after} B" if after < 1000 else "1.00 kB", change, tone)


@pytest.mark.parametrize(("limit", "tone"), [("1 point", ""), ("0.5 points", "bad"), (None, "bad")])
def test_a_drop_that_is_allowed_is_not_marked(limit: str | None, tone: str) -> None:
    (tile,) = content({"before": {"score": 0.9}, "after": {"score": 0.89}, "max_drop": limit}).tiles
    assert tile == ("Score", "89.00%", "was 90.00%", "−1.00 points", tone)


def test_numbers() -> None:
    odd = (math.nan, math.inf, 10**400, 1e300, True, "1", None, 5e-324)
    assert [finite(one) for one in odd] == [None] * 7 + [0.0]
    assert [plain(one) for one in (0.012344, 1234.4, 12345678.0, 0, -1e-5)] == [
        "0.01234",
        "1,234",
        "1.235e+07",
        "0",
        "−1e-05",
    ]
    assert [signed(one) for one in (0.5, -0.5, -0.001)] == ["+0.50", "−0.50", "0.00"]


def test_names() -> None:
    assert name("a\u202eb\n") == ("a�b�", "", None, "")
    assert name(None).text == DASH
    assert name("x" * 70 + "end").text.endswith("xend")
    assert len(name("x" * 9000).full) == 400
    twins = names([f"{'x' * 80}{n}{'y' * 80}" for n in range(3)])
    assert len({one.text for one in twins}) == 3
    assert sentence(" a\n\tb ") == "a b"
