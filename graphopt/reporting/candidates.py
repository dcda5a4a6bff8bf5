"""The chart of candidates: how fast and how good each is, and what was asked for."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Final, TypeAlias

from graphopt.human import percent
from graphopt.reporting.axes import Scale, line, round_scale, score_scale, tick_form
from graphopt.reporting.blocks import Chart, Line, Mark, Rule
from graphopt.reporting.schema import Point, Report
from graphopt.reporting.wording import Scores, finite, most, name

__all__ = ["allowed_drop", "chart", "latency_goal"]

_Placed: TypeAlias = tuple[Point, float, float]
"""A candidate, its latency and its score."""
_MARKS: Final = 300
_SLOWEST: Final = 1.5
"""How much slower than the original a candidate may be to still have a place of its own."""
_REACH: Final = 2.5
"""How many times the allowed drop the chart goes down."""
_LEGEND: Final = {
    "chosen": "chosen",
    "front": "best for its latency",
    "dot": "another is better and faster",
    "original": "original",
    "below": "beyond the edge",
}
"""What the marks mean."""


def chart(report: Report) -> Chart | None:
    """Candidates by latency and score, the best of them joined; the original, the chosen one, and the limits."""
    points = report.get("points") or ()
    known = _placed(points)
    if not known:
        return None
    scores, goal, original = Scores.of(report), latency_goal(report), finite((report.get("before") or {}).get("score"))
    x = round_scale([0.0, 1.0, goal or 0.0, min(_SLOWEST, max(latency for _, latency, _ in known))])
    y = _score_axis(known, scores, original, allowed_drop(report))
    placed = [(point, _mark(point, latency, score, x, y, scores)) for point, latency, score in known]
    front = sorted((mark.x, mark.y) for point, mark in placed if point.get("on_front") and mark.kind != "below")
    marks = sorted((mark for _, mark in placed), key=lambda mark: ("below", "dot", "front", "chosen").index(mark.kind))
    outside = sum(mark.kind == "below" for mark in marks)
    if original is not None:
        marks.insert(0, Mark(x.at(1), y.up(original), "original", f"original: {scores.text(original)}", "original"))
    return Chart(
        f"{scores.metric} against latency of {len(points)} candidates.{_told(known, scores)}",
        "latency, share of the original",
        scores.metric,
        x.ticks("{:.0%}".format),
        y.ticks(tick_form(scores, y)),
        [Line(line(front))] if len(front) > 1 else [],
        marks,
        _rules(report, x, y, scores, original),
        [(kind, text) for kind, text in _LEGEND.items() if any(mark.kind == kind for mark in marks)],
        f"{outside} more lie beyond the edge: see the table." if outside else "",
    )


def latency_goal(report: Report) -> float | None:
    """The latency that was to be reached, as a share of the original's, if the goal says one and that is no more."""
    found = re.search(r"latency\s*<?=\s*([\d.]+)\s*(ms|us|s)?(?=$|[\s,])", report.get("goal") or "")
    value = _number(found.group(1)) if found else None
    if found is None or value is None:
        return None
    if found.group(2) is not None:
        before = finite((report.get("before") or {}).get("latency_ms"))
        value = value * {"ms": 1.0, "us": 1e-3, "s": 1e3}[found.group(2)] / before if before else math.inf
    return value if value <= 1 else None


def allowed_drop(report: Report) -> float | None:
    """What the score might lose, in its own unit, if the limit is a number."""
    limit, scores = (report.get("max_drop") or "").strip(), Scores.of(report)
    found = re.fullmatch(r"(rel:)?\s*([\d.]+)\s*(%|points?)?", limit)
    value = _number(found.group(2)) if found else None
    if found is None or value is None:
        return None
    if not found.group(1):
        return value / scores.scale
    before = finite((report.get("before") or {}).get("score"))
    return None if before is None else abs(before) * value / (100 if found.group(3) else 1)


def _number(text: str) -> float | None:
    try:
        return finite(float(text))
    except ValueError:
        return None


def _placed(points: Sequence[Point]) -> list[_Placed]:
    known = [
        (point, latency, score)
        for point in points
        if (latency := finite(point.get("latency"))) is not None and (score := finite(point.get("score"))) is not None
    ]
    return most(known, lambda one: 2.0 * bool(one[0].get("chosen")) + bool(one[0].get("on_front")), _MARKS)


def _rules(report: Report, x: Scale, y: Scale, scores: Scores, original: float | None) -> list[Rule]:
    goal, drop = latency_goal(report), allowed_drop(report)
    found = [Rule("x", x.at(goal), f"goal {percent(goal)}")] if goal else []
    if drop is not None and original is not None:
        limit = original - scores.is_better * drop
        found.append(Rule("y", y.up(limit), f"limit {scores.text(limit)}"))
    return found


def _score_axis(known: Sequence[_Placed], scores: Scores, original: float | None, drop: float | None) -> Scale:
    """An axis of scores. Where a drop is allowed, hopeless candidates do not squeeze all others together."""
    found = [score for _, _, score in known]
    if original is None or not drop:
        return score_scale([*found, *([original] if original is not None else [])], scores)
    edge, limit = (original - scores.is_better * drop * factor for factor in (_REACH, 1.0))
    near = [score for score in found if (score - edge) * scores.is_better >= 0]
    return score_scale([*near, original, limit, *(score for one, _, score in known if one.get("chosen"))], scores)


def _mark(point: Point, latency: float, score: float, x: Scale, y: Scale, scores: Scores) -> Mark:
    title = f"{name(point.get('name')).text}: {latency:.1%} of the latency, {scores.text(score)}"
    at, up = x.at(latency), y.up(score)
    if point.get("chosen"):
        return Mark(at, up, "chosen", title, "chosen")
    if not y.low - 1e-9 <= score <= y.high + 1e-9 or latency > x.high + 1e-9:
        return Mark(at, up, "below", title)
    return Mark(at, up, "front" if point.get("on_front") else "dot", title)


def _told(known: Sequence[_Placed], scores: Scores) -> str:
    return "".join(
        f" Chosen: {name(point.get('name')).text}, at {latency:.1%} of the latency with {scores.text(score)}."
        for point, latency, score in known
        if point.get("chosen")
    )
