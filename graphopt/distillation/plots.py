"""Pictures of a distillation: how loss and accuracy went, epoch by epoch.

matplotlib draws them; it comes with the extra ``graphopt[report]`` and is imported when a picture is wanted.
"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from graphopt.human import printable, shorten
from graphopt.reporting.pictures import INK, KINDS, check, drawn, open_sides

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from graphopt.distillation.report import DistillReport

__all__ = ["KINDS", "check", "image", "plot"]

_Curve = tuple[str, Sequence[float], Mapping[str, Any]]
"""What it is called, its values by epoch, how it is drawn."""

_COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
"""Okabe and Ito's, which all eyes tell apart."""
_GREY, _GRID = "#8a8f98", "#eeeeee"
_NAME = 40
"""Characters of a curve's name."""
_FEW = 30
"""Epochs up to which each has a dot of its own."""
_RANGE = 20.0
"""From this ratio of largest to smallest loss on, the axis is logarithmic."""


def plot(report: DistillReport, path: str | os.PathLike[str]) -> None:
    """Draws the loss, its parts and what held-out samples say, by epoch.

    The epoch whose weights stayed is marked; so is where a round of pruning began.

    Args:
        report: What a distillation did.
        path: An SVG, PNG or PDF file by its ending; the same report gives the same file, byte for byte.

    Raises:
        UsageError: The ending is another.
        EnvironmentProblem: matplotlib cannot be imported.
        SaveError: The file cannot be written; what was there before is untouched.
    """
    from graphopt.io import staged

    with staged(path, image(report, check(path))):
        pass


def image(report: DistillReport, kind: str) -> bytes:
    """The picture, as the contents of a file.

    Args:
        report: What a distillation did.
        kind: One of :data:`KINDS`.
    """
    return drawn(lambda: _figure(report), kind)


def _figure(report: DistillReport) -> Figure:
    from matplotlib.figure import Figure

    scores = list(_scores(report))
    figure = Figure(figsize=(10 if scores else 6, 3.6), layout="constrained")
    room = round(12 * figure.get_figwidth())
    figure.suptitle(_title(report, room), fontsize=10, color=INK, parse_math=False)
    panels = [("loss", list(_losses(report))), *([("held-out samples", scores)] if scores else [])]
    for place, (label, curves) in enumerate(panels, 1):
        axes = figure.add_subplot(1, len(panels), place)
        _draw(axes, curves, report)
        axes.set_ylabel(label)
        if curves is scores:
            _show_teachers(axes, report)
            axes.yaxis.set_major_formatter(lambda share, _: f"{share:.1%}".replace(".0%", "%"))
        elif _is_wide(curves):
            axes.set_yscale("log")
        _show_legend(axes)
    return figure


def _title(report: DistillReport, room: int) -> str:
    epochs = len(report.records)
    return f"{shorten(printable(report.loss), room - 12)}: {epochs} {'epoch' if epochs == 1 else 'epochs'}"


def _losses(report: DistillReport) -> Iterator[_Curve]:
    """The loss, on held-out samples too, and its parts where it has several."""
    records = report.records
    yield "loss", [one.loss for one in records], {"color": INK, "linewidth": 2}
    held_out = [one.evaluation.get("loss", math.nan) for one in records]
    if not all(map(math.isnan, held_out)):
        yield "on held-out samples", held_out, {"color": INK, "linewidth": 1.2, "linestyle": (0, (4, 2))}
    parts = list(records[0].parts) if records else []
    for number, name in enumerate(parts if len(parts) > 1 else ()):
        values = [one.parts.get(name, math.nan) for one in records]
        yield f"{name}, unweighted", values, {"color": _COLORS[number % len(_COLORS)], "linewidth": 1.2}


def _scores(report: DistillReport) -> Iterator[_Curve]:
    """Each metric on held-out samples."""
    names = [name for name in (report.records[0].evaluation if report.records else ()) if name != "loss"]
    for number, name in enumerate(names):
        values = [one.evaluation.get(name, math.nan) for one in report.records]
        yield name, values, {"color": _COLORS[number % len(_COLORS)], "linewidth": 1.8}


def _is_wide(curves: Sequence[_Curve]) -> bool:
    """Whether the values need a logarithmic axis, and can be on one."""
    values = [value for _, ordinates, _ in curves for value in ordinates if math.isfinite(value)]
    return bool(values) and min(values) > 0 and max(values) / min(values) > _RANGE


def _draw(axes: Axes, curves: Sequence[_Curve], report: DistillReport) -> None:
    from matplotlib.ticker import MaxNLocator

    epochs = range(1, len(report.records) + 1)
    dots: dict[str, Any] = {"marker": "o", "markersize": 2.5} if len(epochs) <= _FEW else {}
    for name, values, style in curves:
        bounds = [0, *report.rounds[1:], len(values)]
        for number, (start, end) in enumerate(itertools.pairwise(bounds)):
            label = None if number else shorten(printable(name), _NAME)
            axes.plot(epochs[start:end], values[start:end], label=label, **dots, **style)
    for start in report.rounds[1:]:
        is_first = start == report.rounds[1]
        axes.axvline(start + 0.5, color=_GREY, linewidth=0.8, label="pruned" if is_first else None, zorder=1)
    if report.records and report.best is not None:
        _, values, style = curves[0] if curves[0][0] != "loss" or len(curves) == 1 else curves[_held_out(curves)]
        best = report.records[report.best].epoch + 1
        ring: dict[str, Any] = {"marker": "o", "markersize": 7, "markerfacecolor": "none", "markeredgewidth": 1.4}
        ring |= {"linestyle": "none", "zorder": 5, "label": f"what stayed: epoch {best}"}
        axes.plot([best], [values[best - 1]], color=style["color"], **ring)
    axes.set_xlabel("epoch")
    axes.set_xlim(0.5, max(1, len(epochs)) + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.grid(visible=True, color=_GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    open_sides(axes)


def _held_out(curves: Sequence[_Curve]) -> int:
    """The curve that the best epoch is marked on: the loss on held-out samples, if it is there."""
    return next((number for number, (name, _, _) in enumerate(curves) if name == "on held-out samples"), 0)


def _show_teachers(axes: Axes, report: DistillReport) -> None:
    """A line for how good each teacher is, by its first score."""
    for model in report.contenders:
        if model.name.startswith("teacher") and model.scores:
            score = next(iter(model.scores.values()))
            axes.axhline(score, color=_GREY, linewidth=1, linestyle=(0, (1, 1.5)), label=f"{model.name}: {score:.2%}")


def _show_legend(axes: Axes) -> None:
    """Above the curves, so that it hides none."""
    legend = axes.legend(
        frameon=False, fontsize=7, loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0.2, handlelength=2.4
    )
    for text in legend.get_texts():
        text.set_parse_math(False)
