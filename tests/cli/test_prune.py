"""``graphopt prune``, as a user meets it."""

from __future__ import annotations

import inspect
import json
import os
import signal
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from harness import parse
from pruning.examples import classifier, inputs

import graphopt
from graphopt.cli.main import main
from graphopt.cli.prune import command
from graphopt.errors import ExitCode
from graphopt.pruning import plots
from graphopt.pruning.allocation import RANKINGS
from graphopt.pruning.importance import CRITERIA

GOAL = ("--goal", "macs=0.5")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A classifier, with inputs for it in ``inputs.npz`` beside it."""
    path = tmp_path / "model.onnx"
    graphopt.save(classifier(), path)
    x = inputs()
    np.savez(tmp_path / "inputs.npz", x=x, y=np.arange(len(x)) % 4)
    return path


@pytest.fixture
def data(model: Path) -> tuple[str, str]:
    return "--calibration", str(model.parent / "inputs.npz")


@pytest.fixture
def before(model: Path) -> set[str]:
    """The names of all files before the run."""
    return names(model)


def names(model: Path) -> set[str]:
    return {path.name for path in model.parent.iterdir()}


def run(capsys: pytest.CaptureFixture[str], *arguments: str | Path, code: int = 0) -> tuple[str, str]:
    assert main(["prune", *map(str, arguments)]) == code, capsys.readouterr().err
    captured = capsys.readouterr()
    return captured.out, captured.err


def run_json(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> Any:
    return json.loads(run(capsys, *arguments, "--json")[0])


def shape(path: Path, name: str) -> tuple[int, ...]:
    return tuple(next(one.dims for one in onnx.load(path).graph.initializer if one.name == name))


def test_writes_and_reports(
    model: Path, data: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "small.onnx"
    out, err = run(capsys, model, target, *GOAL, *data)
    assert shape(target, "w2")[0] < 32
    assert "Proven: removing the channels does what setting them to zero does" in out
    assert "Accuracy on them" in out
    assert f"wrote {target}" in out
    assert err == ""
    onnx.checker.check_model(onnx.load(target))


def test_json_is_one_document(
    model: Path, data: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = run_json(capsys, model, "-o", tmp_path / "small.onnx", *GOAL, *data, "--bench", "--batch", "2")
    assert found["goal"] == "macs=0.5"
    assert found["proof"] == "proven"
    assert found["after"]["macs"] <= 0.5 * found["before"]["macs"]
    assert len(found["groups"]) == 2
    assert found["fidelity"]["samples"] == 6  # held out
    assert [one["name"] for one in found["bench"]["models"]] == ["model", "small"]
    assert found["bench"]["settings"]["batch"] == 2


def test_goals_add_up(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    goals = ("--goal", "macs=0.9,params=0.5", "--goal", "bytes=1MB")
    found = run_json(capsys, model, tmp_path / "small.onnx", *goals, "--importance", "l2", "--samples", "8")
    assert found["after"]["params"] <= 0.5 * found["before"]["params"]
    assert found["goal"] == "macs=0.9,params=0.5,bytes=1MB"


def test_without_data_it_warns(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = run(capsys, model, tmp_path / "small.onnx", *GOAL, "--samples", "16")
    assert "no calibration inputs were given" in out


def test_quiet_and_verbose(
    model: Path, data: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(capsys, model, tmp_path / "a.onnx", *GOAL, *data, "-q") == ("", "")
    _, err = run(capsys, model, tmp_path / "a.onnx", *GOAL, *data, "-v", "--no-reconstruct")
    assert err.splitlines()[0] == "load"
    assert {"rank", "allocate", "prove"} <= set(err.splitlines())
    assert "reconstruct" not in err


def test_in_place(model: Path, data: tuple[str, str], before: set[str], capsys: pytest.CaptureFixture[str]) -> None:
    run(capsys, model, model, *GOAL, *data, "--bench")
    assert shape(model, "w2")[0] < 32
    assert names(model) == before


def test_path_with_spaces(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "a folder: of mine"
    folder.mkdir()
    source, data = folder / "my model.onnx", folder / "my inputs.npz"
    source.write_bytes(model.read_bytes())
    data.write_bytes((tmp_path / "inputs.npz").read_bytes())
    target, plan = folder / "small one.onnx", folder / "my plan.json"
    monkeypatch.chdir(folder)
    run(capsys, source, target, *GOAL, "--calibration", "my inputs.npz", "--plan", plan)
    assert target.is_file()
    assert plan.is_file()


def test_plan_gives_the_same_bytes(
    model: Path, data: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second, plan = tmp_path / "a.onnx", tmp_path / "b.onnx", tmp_path / "plan.json"
    out, _ = run(capsys, model, first, *GOAL, *data, "--plan", plan, "--exclude", "head", "--seed", "3")
    assert f"wrote {plan}" in out
    again = tmp_path / "again.json"
    run(capsys, model, second, "--from-plan", plan, *data, "--plan", again)
    assert first.read_bytes() == second.read_bytes()
    assert plan.read_bytes() == again.read_bytes()


def test_plan_of_another_model(
    model: Path, data: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan, other = tmp_path / "plan.json", tmp_path / "other.onnx"
    run(capsys, model, tmp_path / "a.onnx", *GOAL, *data, "--plan", plan)
    graphopt.save(classifier(hidden=24), other)
    before = names(model)
    _, err = run(capsys, other, tmp_path / "b.onnx", "--from-plan", plan, *data, code=2)
    assert "the plan is of another model" in err
    assert names(model) == before
    # The weights may be others.
    graphopt.save(classifier(seed=9), other)
    run(capsys, other, tmp_path / "b.onnx", "--from-plan", plan, *data)


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"format": "graphopt-plan", "version": 99, "graphopt": "9"}'])
def test_no_plan(text: str, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = tmp_path / "plan.json"
    plan.write_text(text)
    before = names(model)
    _, err = run(capsys, model, tmp_path / "b.onnx", "--from-plan", plan, code=3)
    assert str(plan) in err
    assert names(model) == before


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ([], 2, "no goal is given"),
        (["--goal", "weight=0.5"], 2, "cannot limit 'weight'"),
        (["--goal", "macs=half"], 2, "macs=half is no limit"),
        (["--goal", "macs=0"], 2, "no limit"),
        (["--goal", "macs"], 2, "is no goal"),
        (["--goal", "macs=0.5", "--from-plan", "p.json"], 2, "the plan decides on --goal"),
        (["--from-plan", "p.json", "--importance", "l1", "--keep", "0.2"], 2, "--keep, --importance"),
        (["--from-plan", "missing.json"], 3, "missing.json"),
        ([*GOAL, "--importance", "l3"], 2, "there is no importance 'l3'"),
        ([*GOAL, "--ranking", "globe"], 2, "there is no ranking 'globe'"),
        ([*GOAL, "--granularity", "halves"], 2, "--granularity"),
        ([*GOAL, "--groups", "nothing*"], 2, "nothing*"),
        ([*GOAL, "--exclude", "first,second"], 2, "nothing to prune"),
        ([*GOAL, "--samples", "0"], 2, "--samples"),
        ([*GOAL, "--provider", "nonsense"], 8, "nonsense"),
        (["--goal", "macs=0.0001"], 9, "macs=0.0001 cannot be reached"),
        (["--goal", "params=20"], 9, "params=20 cannot be reached"),
        ([*GOAL, "--plan", "no/plan.json"], 4, "there is no folder"),
        ([*GOAL, "--plan", "model.onnx"], 4, "would be replaced"),
        ([*GOAL, "--plan", "small.onnx"], 4, "would be replaced"),
        ([*GOAL, "--plan", "p.svg", "--plot", "./p.svg"], 4, "would be replaced"),
        ([*GOAL, "--plot", "inputs.npz"], 4, "would be replaced"),
        ([*GOAL, "--run-directory", "./small.onnx"], 4, "would be replaced"),
        ([*GOAL, "--plot", "plot.bmp"], 2, "is no picture"),
    ],
)
def test_refuses(
    arguments: list[str],
    code: int,
    words: str,
    model: Path,
    data: tuple[str, str],
    before: set[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(model.parent)
    contents = model.read_bytes()
    more = [] if {"--plan", "--from-plan"} & set(arguments) else ["--plan", "plan.json", "--samples", "16"]
    _, err = run(capsys, model, "small.onnx", *data, *more, *arguments, code=code)
    assert err.startswith("error: ")
    assert words in err
    assert names(model) == before
    assert model.read_bytes() == contents


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "name": ({"image": inputs()}, "no input 'image'"),
    "rank": ({"x": inputs()[0]}, "x"),
    "shape": ({"x": inputs()[:, :5]}, "x"),
    "dtype": ({"x": np.full((16, 8), "a")}, "x"),
    "integers": ({"x": np.ones((16, 8), np.uint8)}, "uint8"),
    "nan": ({"x": np.where(np.arange(128).reshape(16, 8) == 77, np.nan, inputs(16))}, "NaN"),
    "none": ({"x": inputs(0)}, "x"),
    "labels": ({"x": inputs(16), "y": np.arange(7)}, "labels"),
}


@pytest.mark.parametrize("case", BAD)
def test_calibration_that_does_not_fit(case: str, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arrays, words = BAD[case]
    np.savez(model.parent / "bad.npz", **arrays)
    before = names(model)
    arguments = (*GOAL, "--calibration", model.parent / "bad.npz", "--plan", model.parent / "plan.json")
    _, err = run(capsys, model, model.parent / "small.onnx", *arguments, code=3)
    assert err.startswith("error: ")
    assert "bad.npz" in err
    assert words in err
    assert names(model) == before


def test_few_samples_are_noted(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez(model.parent / "few.npz", x=inputs(3))
    found = run_json(capsys, model, model.parent / "a.onnx", *GOAL, "--calibration", model.parent / "few.npz")
    assert any("too few calibration samples" in note for note in found["notes"])
    _, err = run(capsys, model, model.parent / "a.onnx", *GOAL, "--calibration", model.parent / "no.npz", code=3)
    assert "no.npz" in err


def test_all_frozen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "in.onnx"
    graphopt.save(parse("agraph (float[N,8] x) => (float[N,8] y) { y = Relu (x) }"), source)
    before = {path.name for path in tmp_path.iterdir()}
    arguments = (*GOAL, "--plan", tmp_path / "plan.json", "--samples", "4")
    _, err = run(capsys, source, tmp_path / "out.onnx", *arguments, code=2)
    assert "nothing to prune: every channel is frozen" in err
    assert "graphopt inspect" in err
    assert {path.name for path in tmp_path.iterdir()} == before


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
def test_read_only_folder(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "closed"
    folder.mkdir(mode=0o500)
    _, err = run(capsys, model, folder / "small.onnx", *GOAL, code=4)
    assert "read-only" in err


def test_nothing_is_written_when_the_model_cannot_be(
    model: Path, data: tuple[str, str], before: set[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The plan and the picture wait for the model."""
    from graphopt.errors import SaveError

    def full(*arguments: object, **settings: object) -> None:
        raise SaveError("no room")

    monkeypatch.setattr("graphopt.io.save", full)
    monkeypatch.setattr(graphopt, "save", full, raising=False)
    plan, plot = tmp_path / "plan.json", tmp_path / "plot.svg"
    beside = ("--plan", str(plan), "--plot", str(plot))
    assert main(["prune", str(model), str(tmp_path / "small.onnx"), *GOAL, *data, *beside]) == 4
    assert names(model) == before


def test_plot(model: Path, data: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plot = tmp_path / "plot.svg"
    out, _ = run(capsys, model, tmp_path / "small.onnx", *GOAL, *data, "--plot", plot)
    assert f"wrote {plot}" in out
    assert ET.fromstring(plot.read_text("utf-8")).tag.endswith("svg")


def test_plot_without_matplotlib(
    model: Path, before: set[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    _, err = run(capsys, model, model.parent / "small.onnx", *GOAL, "--plot", model.parent / "p.svg", code=8)
    assert "graphopt[report]" in err
    assert names(model) == before


def test_run_directory_goes_on(
    model: Path, data: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = ("--run-directory", tmp_path / "run")
    run(capsys, model, tmp_path / "a.onnx", *GOAL, *data, *kept)
    assert (tmp_path / "run" / "rankings.npz").is_file()
    run(capsys, model, tmp_path / "b.onnx", *GOAL, *data, *kept)
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()
    _, err = run(capsys, model, tmp_path / "c.onnx", *GOAL, *data, *kept, "--seed", "1", code=2)
    assert "another run" in err


def start(*arguments: str | Path) -> subprocess.Popen[str]:
    line = [sys.executable, "-m", "graphopt", "prune", *map(str, arguments)]
    return subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_two_runs_into_one_output(model: Path, data: tuple[str, str], before: set[str], tmp_path: Path) -> None:
    target, plan = tmp_path / "small.onnx", tmp_path / "plan.json"
    running = [start(model, target, *GOAL, *data, "--plan", plan, "-q") for _ in range(2)]
    for one in running:
        _, err = one.communicate(timeout=120)
        assert (one.returncode, err) == (0, "")
    assert names(model) - before == {"small.onnx", "plan.json"}
    onnx.checker.check_model(onnx.load(target))
    assert json.loads(plan.read_text())["goal"] == "macs=0.5"


def test_interrupt_leaves_nothing(model: Path, before: set[str], tmp_path: Path) -> None:
    many = ("--samples", "200000", "--plan", tmp_path / "plan.json", "-v")
    running = start(model, tmp_path / "small.onnx", *GOAL, *many)
    assert running.stderr is not None
    assert any("rank" in line for line in iter(running.stderr.readline, ""))
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=60)
    assert running.returncode == 130
    assert "Traceback" not in err
    assert err.endswith("interrupted\n")
    assert out == ""
    assert names(model) == before


def test_help_says_what_the_library_does() -> None:
    text = CliRunner().invoke(command, ["--help"]).output
    words = " ".join(text.split())
    for heading in (*command.sections, "Examples", "Exit codes"):
        assert heading in text
    assert all(name in words for name in (*CRITERIA, *RANKINGS, *plots.KINDS))
    assert all(f"[default: {value}]" in words for value in ("obs", "global", "0.1"))
    assert max(map(len, text.splitlines())) <= 110


def test_every_choice_of_the_library_can_be_made() -> None:
    """But those that only a program can make, and those that go by another name."""
    known = {param.name for param in command.params}
    python_only = {"source", "batch", "gradients", "allow_loss", "progress", "with_report"}
    renamed = {
        "plan": "plan_source",
        "reconstruct": "no_reconstruct",
        "optimize": "no_optimize",
        "check": "no_validate",
    }
    wanted = set(inspect.signature(graphopt.prune).parameters) - python_only
    assert {renamed.get(name, name) for name in wanted} <= known


@pytest.mark.parametrize("option", [["-o", "inputs.npz"], ["out.onnx", "--plan", "inputs.npz"]])
def test_the_data_are_not_replaced(
    option: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    np.savez("inputs.npz", x=np.ones((4, 3), np.float32))
    graphopt.save(parse("agraph (float[N,3] x) => (float[N,3] y) { y = Relu (x) }"), "model.onnx")
    kept = Path("inputs.npz").read_bytes()
    words = ["prune", "model.onnx", *option, "--goal", "macs=0.5", "--calibration", "inputs.npz:scale=2"]
    assert main(words) == ExitCode.SAVE
    assert "inputs.npz" in capsys.readouterr().err
    assert Path("inputs.npz").read_bytes() == kept
