"""Pictures of a pruning: what went from where, and what it was estimated to cost.

matplotlib draws them; it comes with the extra ``graphopt[report]`` and is imported when a picture is wanted.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from graphopt.human import percent, shorten_all
from graphopt.pruning.render import brief
from graphopt.reporting.pictures import INK, KINDS, check, drawn, open_sides

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from graphopt.pruning.report import GroupOutcome, PruneReport

__all__ = ["KINDS", "check", "image", "plot"]

Array = npt.NDArray[Any]

_GONE = "#dcdfe3"
_NAME = 34
"""Characters of a group's name."""
_TALLEST = 4.0
"""Inches of the curves, however many bars there are beside them."""


def plot(report: PruneReport, path: str | os.PathLike[str]) -> None:
    """Draws kept channels by group, in the order of the graph, and the estimated harm against the share removed.

    Args:
        report: What a pruning did.
        path: An SVG, PNG or PDF file by its ending; the same report gives the same SVG, byte for byte.

    Raises:
        UsageError: The ending is another.
        EnvironmentProblem: matplotlib cannot be imported.
        SaveError: The file cannot be written; what was there before is untouched.
    """
    from graphopt.io import staged

    with staged(path, image(report, check(path))):
        pass


def image(report: PruneReport, kind: str) -> bytes:
    """The picture, as the contents of a file.

    Args:
        report: What a pruning did.
        kind: One of :data:`KINDS`.
    """
    return drawn(lambda: _figure(report), kind)


def _figure(report: PruneReport) -> Figure:
    import matplotlib
    from matplotlib.figure import Figure

    groups = report.groups
    colors = matplotlib.colormaps["viridis"](np.linspace(0, 0.9, max(2, len(groups))))
    has_curves = any(map(_is_curve, groups))
    height = max(3.0, 1.3 + 0.19 * len(groups))
    figure = Figure(figsize=(11 if has_curves else 6.5, height), layout="constrained")
    figure.suptitle(_title(report), fontsize=10, color=INK, parse_math=False)
    if not has_curves:
        _bars(figure.add_subplot(), groups, colors)
        return figure
    rest = max(height - _TALLEST, 0.01)
    grid = figure.add_gridspec(2, 2, width_ratios=(1.15, 1), height_ratios=(min(height, _TALLEST), rest))
    _bars(figure.add_subplot(grid[:, 0]), groups, colors)
    _curves(figure.add_subplot(grid[0 if height > _TALLEST else slice(None), 1]), groups, colors)
    return figure


def _title(report: PruneReport) -> str:
    left = [
        f"{percent(after / before) or '0%'} of {what}"
        for what, before, after in (
            ("MACs", report.before.macs, report.after.macs),
            ("parameters", report.before.params, report.after.params),
        )
        if before
    ]
    return f"goal {report.goal}: {', '.join(left)} left"


def _names(groups: Sequence[GroupOutcome]) -> list[str]:
    names = shorten_all(brief([group.name for group in groups]), _NAME)
    return [f"{name} (heads)" if group.heads else name for name, group in zip(names, groups, strict=True)]


def _bars(axes: Axes, groups: Sequence[GroupOutcome], colors: Array) -> None:
    """A bar a group, all of the same length, since heads and channels are not to be compared by number."""
    places = np.arange(len(groups))
    kept = np.array([group.kept / max(1, group.units) for group in groups])
    axes.barh(places, kept, height=0.72, color=colors)
    axes.barh(places, 1 - kept, left=kept, height=0.72, color=_GONE)
    for place, group in enumerate(groups):
        axes.text(1.015, place, f"{group.kept}/{group.units}", va="center", fontsize=7, color=INK)
    axes.set_yticks(places, _names(groups), fontsize=7, parse_math=False)
    axes.set_ylim(len(groups) - 0.4, -0.6)
    _shares(axes, "share kept; grey: removed")
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)


def _is_curve(group: GroupOutcome) -> bool:
    """Whether there is an estimate to draw: by a plan there is none."""
    return any(np.isfinite(harm) and harm > 0 for harm in group.harm)


def _curves(axes: Axes, groups: Sequence[GroupOutcome], colors: Array) -> None:
    """Estimated harm against the share removed, in the colours of the bars; a dot where the choice fell."""
    for group, color in zip(groups, colors, strict=False):
        if not _is_curve(group):
            continue
        harm = np.array(group.harm, np.float64)
        harm[~(harm > 0) | ~np.isfinite(harm)] = np.nan
        share = np.arange(len(harm)) / max(1, group.units)
        gone = group.units - group.kept
        axes.plot(share, harm, color=color, linewidth=1.5 if gone else 0.8, alpha=1 if gone else 0.5)
        if 0 < gone < len(harm):
            style: dict[str, Any] = {"markersize": 6, "markeredgecolor": "white", "clip_on": False, "zorder": 5}
            axes.plot(share[gone], harm[gone], "o", color=color, **style)
    axes.set_yscale("log")
    axes.set_ylabel("estimated harm")
    axes.grid(visible=True, color="#eeeeee", linewidth=0.6)
    axes.set_axisbelow(True)
    _shares(axes, "share removed; dots: chosen")


def _shares(axes: Axes, label: str) -> None:
    axes.set_xlim(0, 1)
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0%", "25%", "50%", "75%", "100%"])
    axes.set_xlabel(label)
    open_sides(axes)
