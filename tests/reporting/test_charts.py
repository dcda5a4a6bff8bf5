"""Where things stand in the charts of a report."""

from __future__ import annotations

from typing import cast

import pytest
from reporting.samples import digits

from graphopt.reporting import candidates, curves
from graphopt.reporting.axes import Scale, round_scale, score_scale, tick_form
from graphopt.reporting.schema import Group, Point, Report
from graphopt.reporting.wording import Scores

ACCURACY, MAE = Scores("accuracy"), Scores("mae", is_share=False, is_better=-1)


def test_scale() -> None:
    scale = round_scale([0.03, 0.97])
    assert [scale.low, scale.high] == pytest.approx([0, 1])
    assert (scale.at(0.25), scale.up(0.25), scale.at(7), scale.at(-7)) == (25, 75, 100, 0)
    assert [(tick.at, tick.text) for tick in Scale(0, 1).ticks("{:.0%}".format)] == [
        (0, "0%"), (20, "20%"), (40, "40%"), (60, "60%"), (80, "80%"), (100, "100%"),
    ]  # fmt: skip


def test_logarithmic_scale() -> None:
    scale = Scale(0.01, 100, is_log=True)
    assert (scale.at(1), scale.at(0.1), scale.at(0), scale.at(-3)) == (50, 25, 0, 0)
    assert [tick.text for tick in scale.ticks("{:g}".format)] == ["0.01", "0.1", "1", "10", "100"]


def test_one_value_has_a_scale_of_its_own() -> None:
    assert round_scale([5.0]).at(5.0) == pytest.approx(50, abs=20)
    flat = score_scale([1.0, 1.0], ACCURACY)
    assert flat.high == 1
    assert flat.at(1.0) == 100


def test_ticks_are_told_apart() -> None:
    scale = Scale(0.985, 0.9965)
    assert [tick.text for tick in scale.ticks(tick_form(ACCURACY, scale))] == ["98.5%", "99.0%", "99.5%"]
    scale = Scale(0, 0.12)
    assert [tick.text for tick in scale.ticks(tick_form(MAE, scale))] == ["0.00", "0.05", "0.10"]


@pytest.mark.parametrize(
    ("goal", "found"),
    [
        ("latency=0.5", 0.5),
        ("macs=0.4, latency<=0.25", 0.25),
        ("latency=3ms", 0.3),
        ("latency=2000us,macs=0.5", 0.2),
        ("latency=5", None),
        ("latency=1000s", None),
        ("macs=0.5", None),
        ("latency=0.5.5", None),
        ("latency=0.5x", None),
        (None, None),
    ],
)
def test_latency_goal(goal: str | None, found: float | None) -> None:
    assert candidates.latency_goal({"goal": goal, "before": {"latency_ms": 10.0}}) == pytest.approx(found)


@pytest.mark.parametrize(
    ("limit", "found"),
    [
        ("0.5 points", 0.005),
        ("0.5", 0.005),
        ("1 point", 0.01),
        ("rel:2%", 0.016),
        ("rel:0.02", 0.016),
        ("none", None),
        (None, None),
    ],
)
def test_allowed_drop(limit: str | None, found: float | None) -> None:
    assert candidates.allowed_drop({"max_drop": limit, "before": {"score": 0.8}}) == pytest.approx(found)


def test_allowed_drop_of_what_is_no_share() -> None:
    assert candidates.allowed_drop({"max_drop": "0.5", "metric_is_share": False}) == 0.5


def points(*scores: float) -> list[Point]:
    return [{"name": str(n), "latency": (n + 1) / 10, "score": score, "drop": 0.0} for n, score in enumerate(scores)]


def test_candidates() -> None:
    chart = candidates.chart(cast("Report", digits()))
    assert chart is not None
    assert [(rule.axis, rule.text) for rule in chart.rules] == [("x", "goal 50%"), ("y", "limit 99.26%")]
    assert chart.rules[0].at == 50
    (chosen,) = (mark for mark in chart.marks if mark.kind == "chosen")
    assert chart.marks[-1] is chosen, "on top"
    assert chosen.x < 50
    assert chosen.y < chart.rules[1].at
    (original,) = (mark for mark in chart.marks if mark.kind == "original")
    assert (original.x, original.label) == (100, "original")
    assert "Chosen: latency=0.45, distilled, at 45.4% of the latency with 99.30%." in chart.label
    assert sum(mark.kind == "below" for mark in chart.marks) == 5
    assert chart.note.startswith("5 more")


def test_hopeless_candidates_do_not_squeeze_the_others() -> None:
    report: Report = {"points": points(0.1, 0.895, 0.9), "before": {"score": 0.9}, "max_drop": "1 point"}
    chart = candidates.chart(report)
    assert chart is not None
    assert [mark.kind for mark in chart.marks] == ["original", "below", "dot", "dot"]
    assert chart.marks[1].y == 100
    assert chart.marks[2].y - chart.marks[3].y > 15
    report["points"] = [*points(0.895, 0.9), {"latency": 0.1, "score": 0.1, "chosen": True}]
    assert (chart := candidates.chart(report)) is not None
    assert chart.marks[-1].kind == "chosen", "what was chosen is always in sight"


def test_less_is_better() -> None:
    report: Report = {"points": points(9.0, 1.05, 1.0), "before": {"score": 1.0}, "max_drop": "0.1"}
    report |= {"metric": "mae", "metric_is_share": False, "higher_is_better": False}
    chart = candidates.chart(report)
    assert chart is not None
    assert [mark.kind for mark in chart.marks] == ["original", "below", "dot", "dot"]
    assert chart.marks[1].y == 0, "worse is up"
    assert chart.rules[0].text == "limit 1.1"
    assert chart.rules[0].at < chart.marks[2].y


def test_slow_candidates_do_not_squeeze_the_others() -> None:
    report: Report = {"points": [*points(0.9), {"name": "slow", "latency": 40.0, "score": 0.9}]}
    assert (chart := candidates.chart(report)) is not None
    assert [(mark.kind, mark.x) for mark in chart.marks] == [("below", 100), ("dot", pytest.approx(6.67, abs=0.1))]


def test_training_is_broken_where_a_number_is_missing() -> None:
    losses = [8.0, 4.0, None, 3.0, float("nan"), 2.0, 1.0]
    (loss,) = curves.training({"history": [{"epoch": n, "loss": one} for n, one in enumerate(losses)]})
    assert [line.points.count(",") for line in loss.lines] == [2, 2]
    assert loss.y_name == "loss"
    assert curves.training({"history": [{"epoch": 0, "loss": 1.0}]}) == []
    steep = curves.training({"history": [{"epoch": n, "loss": 10.0**-n} for n in range(4)]})
    assert steep[0].y_name == "loss, logarithmic"
    assert steep[0].lines[0].points == "0,0 33.33,33.33 66.67,66.67 100,100"


def test_harm_is_on_one_scale() -> None:
    groups: list[Group] = [
        {"name": "a", "units": 2, "kept": 1, "harm": [0.0, 0.1, 10.0]},
        {"name": "b", "units": 2, "kept": 2, "harm": [0.0, 0.001, 0.1]},
        {"name": "flat", "units": 2, "kept": 1, "harm": [0.0, 0.0, 0.0]},
    ]
    found = curves.harm(groups)
    assert found is not None
    assert [one.name.text for one in found.charts] == ["a", "b"]
    assert [one.lines[0].points for one in found.charts] == ["0,100 50,50 100,0", "0,100 50,100 100,50"]
    assert (found.charts[0].mark, found.charts[1].mark) == ((50, 50, "chosen", "", ""), None)
    assert curves.harm(groups[2:]) is None


def test_sensitivity() -> None:
    group: Group = {"name": "a", "units": 4, "kept": 1, "sensitivity": [[0, 0.9], [0.5, 0.8], [0.75, 0.4], [1, None]]}
    found = curves.sensitivity([group, {"name": "b"}], ACCURACY)
    assert found is not None
    (chart,) = found.charts
    assert chart.mark is not None
    assert (chart.mark.x, chart.mark.y) == (75, 100)
    assert chart.note == "1 of 4 kept"
    assert curves.sensitivity([{"name": "b", "sensitivity": []}], MAE) is None


def test_many_groups() -> None:
    harm = [0.0, *[1.0] * 99]
    groups: list[Group] = [{"name": str(n), "units": 100, "kept": 100 - n, "harm": harm} for n in range(90)]
    found = curves.harm(groups)
    assert found is not None
    assert [one.name.text for one in found.charts] == [str(n) for n in range(66, 90)]
    assert found.more.startswith("… and 66 more")
