"""What people see of a distillation: the report, and the picture."""

from __future__ import annotations

import io
import json
import math
import subprocess
import sys
import warnings
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import matplotlib.figure
import numpy as np
import pytest
from rich.console import Console

from graphopt.distillation import plots
from graphopt.distillation.history import Record
from graphopt.distillation.report import Contender, DistillReport
from graphopt.errors import SaveError, UsageError

LOSS = "kd:temperature=4:weight=0.9+ce:weight=0.1"


def record(epoch: int, of: int = 10, **evaluation: float) -> Record:
    loss = 2.0 * math.exp(-4 * epoch / of)
    found = evaluation or {"loss": 1.1 * loss, "accuracy": 1 - loss / 3}
    return Record(epoch, loss, {"kd": loss, "ce": loss / 2}, found, 1.25)


def report(**changes: Any) -> DistillReport:
    """One with everything in it."""
    given: dict[str, Any] = {
        "loss": LOSS,
        "samples": (54_000, 6_000),
        "contenders": [
            Contender("teacher", 1_000_000, 20_000_000, 4_000_000, {"accuracy": 0.9931}),
            Contender("student before", None, None, None, {"accuracy": 0.1}),
            Contender("student", 50_000, 1_000_000, 200_000, {"accuracy": 0.9912}),
        ],
        "records": [record(0), record(1), record(2)],
        "best": 1,
        "rounds": [0],
        "deviation": {"y": 2.2e-7},
        "cached": 4096,
        "notes": ["a note"],
        "seconds": {"load": 0.001, "train": 3.75},
    }
    return DistillReport(**(given | changes))


def shown(one: DistillReport, width: int = 110, **settings: Any) -> list[str]:
    stream = io.StringIO()
    Console(file=stream, width=width, highlight=False, **settings).print(one)
    return [line.rstrip() for line in stream.getvalue().splitlines()]


def test_all_of_it() -> None:
    assert shown(report()) == [
        "kd:temperature=4:weight=0.9+ce:weight=0.1: 54,000 samples to learn from, 6,000 held out",
        "",
        "model           parameters    MACs  weights  accuracy",
        "teacher             1.00 M  20.0 M  4.00 MB    99.31%",
        "student before           -       -        -    10.00%",
        "student             50.0 k  1.00 M   200 kB    99.12%",
        "",
        "epoch    loss      kd      ce  held-out loss  accuracy    s",
        "1           2       2       1            2.2    33.33%  1.2",
        "2 *     1.341   1.341  0.6703          1.475    55.31%  1.2",
        "3      0.8987  0.8987  0.4493         0.9885    70.04%  1.2",
        "*: the weights that stayed",
        "",
        "a note",
        "In ONNX Runtime the student is within 2e-07 of what was trained, relative to its largest output.",
        "train 3.75 s",
    ]


def test_roundings_that_fall_apart_are_told() -> None:
    apart = " ".join(shown(report(off_by_one=2.3e-6)))
    assert "within 2e-07 of what was trained" in apart
    assert "rounding by rounding (2e-06 of them give the next integer)." in apart
    assert "(all give the same integers)." in " ".join(shown(report(off_by_one=0.0)))


def test_the_least_of_it() -> None:
    one = report(contenders=[], records=[], deviation={}, notes=[], seconds={}, best=0)
    lines = shown(one)
    assert not any("%" in line or "ONNX Runtime" in line or "epoch" in line for line in lines)
    assert json.loads(json.dumps(one.to_dict()))["epochs"] == []


@pytest.mark.parametrize("width", [40, 60, 80, 100, 200])
def test_fits_any_terminal(width: int) -> None:
    """What is left out for want of room is not cut in the middle."""
    names = ["kd", "ce", "fitnets:/net/layer.0/conv/Conv_output_0", "at:/net/layer.1/conv/Conv_output_0"]
    records = [
        Record(
            n, 1.5, dict.fromkeys(names, 0.25), {"loss": 2.0, "accuracy of digit": 0.5, "accuracy of parity": 0.75}, 1
        )
        for n in range(3)
    ]
    lines = shown(report(records=records), width)
    assert max(map(len, lines)) <= width
    text = "\n".join(lines)
    assert "50.00%" in text
    assert "99.12%" in text
    assert "…" not in "".join(line for line in lines if "%" in line)


def test_pipes_and_plain_terminals() -> None:
    plain = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    Console(file=plain, width=60).print(report(loss="kd…"))
    plain.flush()
    assert isinstance(plain.buffer, io.BytesIO)
    assert "\x1b" not in plain.buffer.getvalue().decode("ascii")


def test_many_epochs_show_some() -> None:
    lines = shown(report(records=[record(n, 100) for n in range(100)], best=41))
    rows = [line.split()[0] for line in lines if line[:1].isdigit()]
    assert rows[0] == "1"
    assert rows[-1] == "100"
    assert len(rows) <= 13
    assert any(line.startswith("42 *") for line in lines)
    assert f"*: the weights that stayed; {100 - len(rows)} epochs are not shown" in lines


def test_html_is_escaped() -> None:
    hostile = "<script>\x1b[2J"
    one = report(loss=hostile, notes=[hostile], contenders=[Contender(hostile, 1, 1, 1, {hostile: 0.5})])
    text = one._repr_html_()
    assert "<script>" not in text
    assert "\x1b" not in text
    assert "&lt;script&gt;" in text


def test_dict_has_no_nan() -> None:
    one = report(records=[record(0, loss=math.nan, accuracy=math.inf)], rounds=[0])
    found = one.to_dict()
    assert found["epochs"][0]["evaluation"] == {"loss": None, "accuracy": None}
    assert found["models"][1]["params"] is None
    assert found["rounds"] == [0]
    json.dumps(found, allow_nan=False)


# -- the picture -----------------------------------------------------------------------------------------------------


def figure(**changes: Any) -> matplotlib.figure.Figure:
    found = plots._figure(report(**changes))
    found.draw_without_rendering()
    return found


def labels(found: matplotlib.figure.Figure, number: int = 0) -> list[str]:
    legend = found.axes[number].get_legend()
    assert legend is not None
    return [text.get_text() for text in legend.get_texts()]


def test_curves_and_what_stayed() -> None:
    found = figure()
    assert labels(found) == ["loss", "on held-out samples", "kd, unweighted", "ce, unweighted", "what stayed: epoch 2"]
    assert labels(found, 1) == ["accuracy", "what stayed: epoch 2", "teacher: 99.31%"]
    losses, scores = found.axes
    assert losses.lines[0].get_xydata().tolist()[0] == [1, 2.0]  # type: ignore[union-attr]
    ring = scores.lines[1].get_xydata().tolist()  # type: ignore[union-attr]
    assert ring == [[2, report().records[1].evaluation["accuracy"]]]
    assert scores.lines[2].get_ydata()[0] == 0.9931  # type: ignore[index]


def test_rounds_are_apart() -> None:
    records = [record(n % 3) for n in range(6)]
    found = figure(records=[Record(n, *(one.loss, one.parts, one.evaluation, 1)) for n, one in enumerate(records)],
                   rounds=[0, 3], best=5)  # fmt: skip
    scores = found.axes[1].lines
    assert [np.asarray(line.get_xdata()).tolist() for line in scores[:3]] == [[1, 2, 3], [4, 5, 6], [3.5, 3.5]]
    assert labels(found, 1).count("pruned") == 1


def test_one_loss_without_any_held_out() -> None:
    records = [Record(n, 1.0 / (n + 1), {"kd": 1.0}, {}, 1.0) for n in range(60)]
    found = figure(records=records, best=59)
    assert len(found.axes) == 1
    assert labels(found) == ["loss", "what stayed: epoch 60"]
    assert found.axes[0].get_yscale() == "log"
    assert plots.image(report(records=[], rounds=[]), "svg")


@pytest.mark.parametrize("epochs", [1, 3, 100])
def test_all_is_inside_the_picture(epochs: int) -> None:
    name = "fitnets:" + "/a/very/long/name" * 9
    records = [Record(n, 1.0, {name: 2.0, "$x_": 1.0}, {"loss": 1.0, "accuracy": 0.5}, 1) for n in range(epochs)]
    found = figure(records=records, best=epochs - 1, loss=LOSS + name)
    page = found.bbox
    title = found._suptitle.get_window_extent()  # type: ignore[attr-defined]
    boxes = [title, *(axes.get_legend().get_window_extent() for axes in found.axes)]  # type: ignore[union-attr]
    assert all(page.x0 <= box.x0 and box.x1 <= page.x1 and box.y1 <= page.y1 for box in boxes)
    assert boxes[1].x1 <= found.axes[1].get_window_extent().x0
    assert all(tick == round(tick) for tick in found.axes[0].get_xticks())


def test_the_same_bytes_every_time(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib; sys.path.insert(0, 'tests')\n"
        "from distillation.test_report import report; from graphopt.distillation import plots\n"
        "[plots.plot(report(), sys.argv[1] + kind) for kind in plots.KINDS]"
    )
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "one.")], check=True, cwd=root)
    for kind in plots.KINDS:
        assert (tmp_path / f"one.{kind}").read_bytes() == plots.image(report(), kind)
    assert ET.parse(tmp_path / "one.svg").getroot().tag.endswith("svg")


def test_names_of_any_kind_do_not_warn(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ET.fromstring(plots.image(report(loss="$x_ 名前 <&> a\x1b"), "svg"))
    with pytest.raises(UsageError, match="is no picture"):
        plots.plot(report(), tmp_path / "a.gif")
    with pytest.raises(SaveError, match="there is no folder"):
        plots.plot(report(), tmp_path / "no" / "a.svg")
