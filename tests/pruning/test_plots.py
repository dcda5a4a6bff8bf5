"""Pictures of a pruning."""

from __future__ import annotations

import itertools
import subprocess
import sys
import warnings
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import matplotlib.figure
import pytest
from pruning.test_render import report

from graphopt.errors import EnvironmentProblem, SaveError, UsageError
from graphopt.pruning import plots
from graphopt.pruning.report import GroupOutcome


def many(number: int) -> list[GroupOutcome]:
    harm = tuple(float(k * k) for k in range(50))
    return [GroupOutcome(f"/net/layer.{n}/conv/Conv", 64, 64 - n % 50, harm, heads=False) for n in range(number)]


def figure(**changes: Any) -> matplotlib.figure.Figure:
    found = plots._figure(report(**changes))
    found.draw_without_rendering()
    return found


def test_bars_are_in_the_order_of_the_graph() -> None:
    bars, _ = figure().axes
    assert [label.get_text() for label in bars.get_yticklabels()] == [
        "stem",
        "layer.0/conv",
        "layer.1/attention/query (heads)",
    ]
    assert bars.yaxis_inverted()
    assert [bar.get_width() for bar in bars.patches[:3]] == [1.0, 0.5, 0.75]  # type: ignore[attr-defined]
    assert [text.get_text() for text in bars.texts] == ["16/16", "32/64", "6/8"]


def test_curves_have_a_dot_where_the_choice_fell() -> None:
    bars, curves = figure().axes
    dots = [line.get_xydata().tolist()[0] for line in curves.lines if line.get_marker() == "o"]  # type: ignore[union-attr]
    assert dots == [[0.5, pytest.approx(0.32)], [0.25, 0.96]]
    assert curves.get_yscale() == "log"
    colors = [line.get_color() for line in curves.lines if line.get_marker() != "o"]
    assert [tuple(color) for color in colors] == [bar.get_facecolor() for bar in bars.patches[:3]]


@pytest.mark.parametrize("number", [1, 5, 60])
def test_readable_with_few_and_with_many(number: int) -> None:
    """No two names overlap, and all lie inside the picture."""
    found = figure(groups=many(number))
    page = found.bbox
    boxes = [label.get_window_extent() for label in found.axes[0].get_yticklabels()]
    assert len(boxes) == number
    assert all(page.x0 <= box.x0 and page.y0 <= box.y0 and box.y1 <= page.y1 for box in boxes)
    assert all(upper.y0 >= lower.y1 for upper, lower in itertools.pairwise(boxes))
    numbers = [text.get_window_extent() for text in found.axes[0].texts]
    assert max(box.x1 for box in numbers) < found.axes[1].get_tightbbox().x0  # type: ignore[union-attr]
    assert found.axes[1].get_window_extent().height <= 4 * found.dpi


def test_a_plan_has_no_curves() -> None:
    groups = [GroupOutcome("a", 4, 2, (), heads=False), GroupOutcome("b", 4, 3, (0.0, 0.0), heads=False)]
    assert len(figure(groups=groups).axes) == 1
    assert plots.image(report(groups=[]), "svg")


def test_svg_is_the_same_every_time(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib; sys.path.insert(0, 'tests')\n"
        "from pruning.test_render import report; from graphopt.pruning import plots\n"
        "plots.plot(report(), sys.argv[1])"
    )
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "other.svg")], check=True, cwd=root)
    plots.plot(report(), tmp_path / "one.svg")
    text = (tmp_path / "one.svg").read_text("utf-8")
    assert text == (tmp_path / "other.svg").read_text("utf-8")
    assert "<dc:date>" not in text
    assert ET.fromstring(text).tag.endswith("svg")


@pytest.mark.parametrize(("name", "magic"), [("a.png", b"\x89PNG"), ("b.PDF", b"%PDF")])
def test_other_kinds(name: str, magic: bytes, tmp_path: Path) -> None:
    plots.plot(report(), tmp_path / name)
    assert (tmp_path / name).read_bytes().startswith(magic)
    assert plots.image(report(), name[-3:].lower()) == (tmp_path / name).read_bytes()


def test_names_of_any_kind() -> None:
    """Nothing is taken for mathematics, and nothing warns."""
    groups = [GroupOutcome(name, 4, 2, (0.0, 1.0, 2.0), heads=False) for name in ("$x_", "名前", "a\nb\x1b", "<&>")]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ET.fromstring(plots.image(report(groups=groups), "svg"))


def test_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("plot", "plot.jpeg", "plot.svg.txt"):
        with pytest.raises(UsageError, match="is no picture"):
            plots.check(tmp_path / name)
    with pytest.raises(SaveError, match="there is no folder"):
        plots.plot(report(), tmp_path / "no" / "plot.svg")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(EnvironmentProblem, match=r"graphopt\[report\]"):
        plots.check("plot.svg")


def test_matplotlib_is_imported_when_wanted() -> None:
    code = "import sys, graphopt.pruning.plots, graphopt.cli.prune; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
