"""Curves: training, and what it costs to remove channels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from graphopt.reporting.axes import Scale, line, round_scale, score_scale, tick_form
from graphopt.reporting.blocks import Chart, Line, Mark, Miniature, Miniatures
from graphopt.reporting.schema import Group, Report
from graphopt.reporting.wording import Scores, finite, most, names, plain, shown

__all__ = ["harm", "sensitivity", "training"]

_MINIATURES: Final = 24
_POINTS: Final = 100
_EPOCHS: Final = 500
_NAME: Final = 40
"""Small charts of a page, points of one, epochs of a curve, and characters of the name above a small chart."""
_LOG: Final = 20.0
"""From this ratio of the largest to the smallest loss on, the axis is logarithmic."""
_DECADES: Final = 4
"""Powers of ten below the most harm at which a curve touches the ground."""


def training(report: Report) -> list[Chart]:
    """The loss by epoch, and the score."""
    scores = Scores.of(report)
    history = report.get("history") or ()
    epochs = [(finite(one.get("epoch")), one) for one in history[:: math.ceil(len(history) / _EPOCHS) or 1]]
    losses = [(at, finite(one.get("loss"))) for at, one in epochs if at is not None]
    found = [(at, finite(one.get("score"))) for at, one in epochs if at is not None]
    return [
        chart for chart in (_curve("loss", losses, None), _curve(scores.metric, found, scores)) if chart is not None
    ]


def harm(groups: Sequence[Group]) -> Miniatures | None:
    """Estimated harm by the share of a group that is removed, all on one logarithmic axis."""
    known = [(group, [finite(one) for one in group.get("harm") or ()]) for group in groups]
    known = [(group, values) for group, values in known if any(one and one > 0 for one in values)]
    if not known:
        return None
    top = max(one for _, values in known for one in values if one)
    scale = Scale(top / 10**_DECADES, top, is_log=True)
    curves = []
    for group, values in known:
        units = max(1.0, finite(group.get("units")) or len(values) - 1.0)
        curves.append((group, [(number / units, one) for number, one in enumerate(values)]))
    note = f"From left to right: none to all units removed. Upwards: harm from {plain(scale.low)} to {plain(top)}, "
    return _miniatures(
        "Estimated harm of removal", note + "logarithmic; the diamond is what was chosen.", curves, scale
    )


def sensitivity(groups: Sequence[Group], scores: Scores) -> Miniatures | None:
    """The score by the share removed from one group alone."""
    curves = []
    for group in groups:
        pairs = [(finite(pair[0]), finite(pair[1])) for pair in group.get("sensitivity") or () if len(pair) == 2]
        curves.append((group, [(share, score) for share, score in pairs if share is not None]))
    curves = [(group, curve) for group, curve in curves if sum(score is not None for _, score in curve) > 1]
    if not curves:
        return None
    found = [score for _, curve in curves for _, score in curve if score is not None]
    scale = score_scale(found, scores)
    note = (
        f"From left to right: none to all units of this group alone removed. Upwards: {scores.metric} from "
        f"{scores.text(scale.low)} to {scores.text(scale.high)}; the diamond is what was chosen."
    )
    return _miniatures(f"Sensitivity: {scores.metric}", note, curves, scale)


def _curve(what: str, values: Sequence[tuple[float, float | None]], scores: Scores | None) -> Chart | None:
    """A number by epoch: scores, or a loss."""
    found = [value for _, value in values if value is not None]
    if len(found) < 2:
        return None
    form = plain if scores is None else scores.text
    is_log = scores is None and min(found) > 0 and max(found) / min(found) > _LOG
    y = Scale(min(found), max(found), is_log=True) if is_log else round_scale(found)
    y = y if scores is None else score_scale(found, scores)
    first, last = values[0][0], values[-1][0]
    x = Scale(first, last if last > first else first + 1)
    return Chart(
        f"The {what} over {len(found)} epochs: first {form(found[0])}, last {form(found[-1])}.",
        "epoch",
        f"{what}, logarithmic" if is_log else what,
        [tick for tick in x.ticks(plain) if "." not in tick.text],
        y.ticks(tick_form(scores, y)),
        [Line(path) for path in _paths([(x.at(at), None if v is None else y.up(v)) for at, v in values])],
    )


def _miniatures(
    label: str, note: str, curves: Sequence[tuple[Group, Sequence[tuple[float, float | None]]]], scale: Scale
) -> Miniatures:
    along = Scale(0, 1)
    shown_ones = most(curves, lambda one: _gone(one[0]), _MINIATURES)
    charts = []
    for (group, curve), called in zip(
        shown_ones, names([one.get("name") for one, _ in shown_ones], _NAME), strict=True
    ):
        at = _gone(group)
        value = min(((abs(share - at), one) for share, one in curve if one is not None), default=None)
        mark = Mark(along.at(at), scale.up(value[1]), "chosen") if at > 0 and value is not None else None
        thin = curve[:: math.ceil(len(curve) / _POINTS)]
        path = _paths([(along.at(share), None if one is None else scale.up(one)) for share, one in thin])
        kept = f"{shown(group.get('kept'), str)} of {shown(group.get('units'), str)} kept"
        charts.append(Miniature(called, kept, [Line(one) for one in path], mark))
    rest = len(curves) - len(charts)
    more = f"… and {rest:,} more groups that lost less; the JSON report has all." if rest else ""
    return Miniatures(label, note, charts, more)


def _gone(group: Group) -> float:
    """The share of a group that was removed."""
    units, kept = finite(group.get("units")), finite(group.get("kept"))
    return 1 - kept / units if units and kept is not None else 0.0


def _paths(points: Sequence[tuple[float, float | None]]) -> list[str]:
    """Lines through what is known, broken where a number is missing."""
    runs: list[list[tuple[float, float]]] = [[]]
    for x, y in points:
        if y is not None:
            runs[-1].append((x, y))
        elif runs[-1]:
            runs.append([])
    return [line(run) for run in runs if len(run) > 1]
