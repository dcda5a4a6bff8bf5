"""``graphopt distill``, as a user meets it."""

from __future__ import annotations

import inspect
import json
import os
import signal
import subprocess
import sys
import textwrap
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from click.testing import CliRunner
from distillation.school import data, student, teacher

import graphopt
from graphopt.cli.distill import command
from graphopt.cli.main import main
from graphopt.datasets import bind
from graphopt.distillation import plots
from graphopt.distillation.augmentations import AUGMENTATIONS
from graphopt.distillation.job import LOCK
from graphopt.distillation.losses import BALANCES, LOSSES
from graphopt.distillation.recipe import KEYS
from graphopt.distillation.schedule import SHAPES
from graphopt.distillation.settings import OPTIMIZERS, PRECISIONS
from graphopt.lock import exclusive
from graphopt.reporting.tracking import TRACKERS

ROOT = Path(__file__).parents[2]
FEW = ("--epochs", "2", "--batch", "32", "--threads", "1")
USUAL = ("t.onnx", "--student", "s.onnx", "--data", "d.npz", "-o", "out.onnx", *FEW)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a teacher, a student and samples."""
    graphopt.save(teacher(), tmp_path / "t.onnx")
    graphopt.save(student(), tmp_path / "s.onnx")
    np.savez(tmp_path / "d.npz", **data(120))
    np.savez(tmp_path / "halves.npz", **data(120) | {"y": np.arange(120) / 2})
    monkeypatch.chdir(tmp_path)
    return tmp_path


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def run(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> tuple[str, str]:
    assert main(["distill", *arguments]) == code, capsys.readouterr().err
    captured = capsys.readouterr()
    return captured.out, captured.err


def run_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    return json.loads(run(capsys, *arguments, "--json")[0])


def test_writes_and_reports(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = names(place)
    out, err = run(capsys, *USUAL, "--plot", "p.svg")
    assert names(place) - before == {"out.onnx", "p.svg"}
    assert err == ""
    assert "In ONNX Runtime the student is within" in out
    assert "wrote out.onnx" in out
    onnx.checker.check_model(onnx.load("out.onnx"))
    assert ET.parse("p.svg").getroot().tag.endswith("svg")


def test_json_is_one_document(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez("e.npz", **data(30, 8))
    found = run_json(capsys, *USUAL, "--eval", "e.npz", "--loss", "kd:temperature=2+ce:weight=0.5")
    assert found["teachers"] == ["t.onnx"]
    assert found["student"] == "s.onnx"
    assert found["output"] == "out.onnx"
    assert found["samples"] == {"train": 120, "evaluation": 30}
    assert [one["epoch"] for one in found["epochs"]] == [0, 1]
    assert set(found["epochs"][0]["parts"]) == {"kd", "ce"}
    assert [one["name"] for one in found["models"]] == ["teacher", "student before", "student"]


def test_quiet_and_verbose(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, *USUAL, "-q") == ("", "")
    _, err = run(capsys, *USUAL, "-v")
    lines = err.splitlines()
    assert lines[0] == "load"
    assert {"data", "student", "teacher", "export", "compare"} <= set(lines)
    assert any(line.startswith("train  epoch 2/2  loss ") and "accuracy " in line for line in lines)


def test_several_teachers_and_their_weights(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    graphopt.save(teacher(scale=1.0), "u.onnx")
    found = run_json(capsys, "t.onnx", "u.onnx", *USUAL[1:], "--teacher-weights", "0.7,0.3", "--loss", "kd")
    assert found["teachers"] == ["t.onnx", "u.onnx"]
    assert [one["name"] for one in found["models"]][:2] == ["teacher 0", "teacher 1"]
    _, err = run(capsys, *USUAL, "--teacher-weights", "much", code=2)
    assert "'much' is neither" in err


def test_in_place(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The student may be replaced; so may the teacher that is fine-tuned."""
    before = names(place)
    contents = Path("s.onnx").read_bytes()
    run(capsys, "t.onnx", "--student", "s.onnx", "--data", "d.npz", "-o", "s.onnx", *FEW)
    assert Path("s.onnx").read_bytes() != contents
    run(capsys, "t.onnx", "--data", "d.npz", "--loss", "ce", "-o", "t.onnx", *FEW)
    assert names(place) == before


def test_same_bytes(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(capsys, *USUAL, "--seed", "4", "--plot", "p.png")
    first = Path("out.onnx").read_bytes()
    run(capsys, *USUAL, "--seed", "4")
    assert Path("out.onnx").read_bytes() == first


def test_shrinks_prunes_and_keeps_weights_apart(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shrunk = ("t.onnx", "--student", "shrink:macs=0.6", *USUAL[3:], "--no-optimize", "--external-data")
    found = run_json(capsys, *shrunk, "--prune", "macs=0.7", "--prune-steps", "2")
    sizes = {one["name"]: one["macs"] for one in found["models"]}
    assert sizes["student"] <= 0.7 * 0.6 * sizes["teacher"]
    assert found["rounds"] == [0, 2]


def test_quantizes(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = run_json(capsys, *USUAL, "--quantize", "static:per-channel=no")
    assert [one["name"] for one in found["models"]][2:] == ["student quantized", "student"]
    assert found["off_by_one"] <= 0.01
    kinds = {one.data_type for one in onnx.load("out.onnx").graph.initializer}
    assert onnx.TensorProto.INT8 in kinds


def test_dry_run(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = names(place)
    arguments = ("t.onnx", "--student", "s.onnx", "--data", "d.npz", "--dry-run", "--run-directory", "run")
    out, _ = run(capsys, *arguments, "--log-to", "tensorboard:logs", "--plot", "p.svg")
    assert "student before" in out
    assert "This was a dry run" in out
    assert "wrote" not in out
    assert names(place) == before
    found = run_json(capsys, *arguments)
    assert found["epochs"] == []
    assert "output" not in found


def test_follows_with_tensorboard(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("tensorboard", reason="the extra graphopt[track] is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run(capsys, *USUAL, "--log-to", "tensorboard:logs", "--prune", "macs=0.8", "--prune-steps", "2")
    found = EventAccumulator("logs")
    found.Reload()
    assert [one.step for one in found.Scalars("held-out/accuracy")] == [4, 8, 12, 16]  # 108 samples, 32 a step


def test_recipe(place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """It says what the command line does not."""
    lines = [
        'teacher = "t.onnx"',
        'student = "s.onnx"',
        'data = "d.npz"',
        'loss = ["kd:temperature=2", "ce:weight=0.5"]',
        "epochs = 1",
        "batch = 32",
        'output = "from-recipe.onnx"',
    ]
    Path("r.toml").write_text("\n".join(lines))
    (place / "elsewhere").mkdir()
    monkeypatch.chdir(place / "elsewhere")
    found = run_json(capsys, "--recipe", "../r.toml", "--epochs", "2", "--threads", "1")
    assert found["loss"] == "kd:temperature=2+ce:weight=0.5"
    assert len(found["epochs"]) == 2
    assert (place / "from-recipe.onnx").is_file()
    assert names(place / "elsewhere") == set()
    run(capsys, "--recipe", "../r.toml", "-o", "here.onnx", "--threads", "1")
    assert names(place / "elsewhere") == {"here.onnx"}
    (place / "r.toml").write_text("\n".join([*lines, "epoch = 3"]))
    _, err = run(capsys, "--recipe", "../r.toml", code=2)
    assert "has no key 'epoch'" in err
    assert "'epochs'" in err


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--data", "halves.npz", "--loss", "ce"], 2, "the labels are float32"),
        (["--loss", "kl"], 2, "there is no loss 'kl'"),
        (["--loss", "kd:temperature=0"], 2, "temperature"),
        (["--loss", "at:student=nowhere:teacher=r"], 2, "the student has no value 'nowhere'"),
        (["--loss", "ce:column=1"], 3, "have no column 1"),
        (["--balance", "fair"], 2, "fair"),
        (["--augment", "rotate"], 2, "there is no augmentation 'rotate'"),
        (["--augment", "shift:pixels=-1"], 2, "pixels cannot be below 0"),
        (["--augment", "flip"], 2, "'flip' is for images"),
        (["--optimizer", "adam"], 2, "there is no optimizer 'adam'"),
        (["--schedule", "cosin"], 2, "there is no schedule 'cosin'"),
        (["--precision", "int8"], 2, "there is no precision 'int8'"),
        (["--learning-rate", "0"], 2, "teaches nothing"),
        (["--epochs", "0"], 2, "--epochs"),
        (["--resume"], 2, "nothing to resume from"),
        (["--resume", "--run-directory", "none"], 2, "holds no run"),
        (["--no-cache", "--half"], 2, "nothing is to be kept"),
        (["--prune", "weight=0.5"], 2, "cannot limit 'weight'"),
        (["--quantize", "dynamic"], 2, "gradients cannot pass it"),
        (["--quantize", "static:bits=4"], 2, "no option 'bits'"),
        (["--quantize", "static:nonsense"], 2, "in the quantization spec 'static:nonsense' is no option"),
        (["--student", "shrink:half"], 2, "for example shrink:macs=0.25"),
        (["--quantize", "static:exclude=nothing"], 2, "no layer is called 'nothing'"),
        (["--student", "nothing_there:make"], 2, "nothing_there"),
        (["--student", "shrink:macs=0.5:init=zero"], 2, "init"),
        (["--student", "no.onnx"], 3, "no.onnx"),
        (["--data", "no.npz"], 3, "no.npz"),
        (["--preprocess", "scales=2"], 2, "scales"),
        (["--provider", "nonsense"], 8, "nonsense"),
        (["--prune", "macs=0.0001"], 9, "cannot be reached"),
        (["--plot", "p.bmp"], 2, "is no picture"),
        (["--plot", "no/p.svg"], 4, "there is no folder"),
        (["--plot", "out.onnx"], 2, "is no picture"),
        (["-o", "no/out.onnx"], 4, "there is no folder"),
        (["-o", "d.npz"], 4, "would be replaced"),
        (["-o", "t.onnx"], 4, "would be replaced"),
        (["--data", "d.npz:scale=2", "-o", "d.npz"], 4, "would be replaced"),
        (["--run-directory", "d.npz"], 4, "cannot be kept there"),
        (["--run-directory", "./out.onnx"], 4, "out.onnx would be replaced"),
        (["--threads", "100000"], 2, "threads cannot be 100000"),
        (["--student", "distillation.lessons:weights"], 2, "cannot be called without arguments"),
        (["--log-to", "tensorbord:x"], 2, "there is no tracker 'tensorbord'"),
        (["--log-to", "wandb"], 2, "does not say where to"),
        (["--recipe", "no.toml"], 3, "no.toml"),
        (["more.onnx"], 3, "more.onnx"),
        (["--learning-rate", "1e30", "--schedule", "constant", "--warmup", "0", "--epochs", "5"], 3, "samples "),
    ],
)
def test_refuses(arguments: list[str], code: int, words: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path.name: path.read_bytes() for path in place.iterdir()}
    _, err = run(capsys, *USUAL, *arguments, code=code)
    assert err.startswith("error: ")
    assert words in err
    assert {path.name: path.read_bytes() for path in place.iterdir()} == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "no teacher is named"),
        (("t.onnx",), "no data are named"),
        (("t.onnx", "--data", "d.npz"), "no output is named"),
    ],
)
def test_what_must_be_named(
    arguments: tuple[str, ...], words: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert words in run(capsys, *arguments, code=2)[1]


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "label": (data(120) | {"y": np.arange(120)}, "sample 3 has the label 3, and the output 'y' has 3 classes"),
    "labels": (data(120) | {"y": np.arange(7)}, "labels"),
    "none": (data(0), "x"),
    "name": ({"image": data(30)["x"]}, "image"),
    "shape": ({"x": data(30)["x"][:, :4]}, "x"),
    "nan": ({"x": np.full((30, 6), np.nan, np.float32)}, "NaN"),
}


@pytest.mark.parametrize("case", BAD)
def test_data_that_do_not_fit(case: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arrays, words = BAD[case]
    np.savez("bad.npz", **arrays)
    before = names(place)
    _, err = run(capsys, *USUAL, "--data", "bad.npz", "--loss", "ce" if "y" in arrays else "kd", code=3)
    assert err.startswith("error: ")
    assert words in err
    assert names(place) == before


def test_outputs_that_do_not_fit(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from distillation.lessons import graph

    graphopt.save(graph(classes=4), "s.onnx")
    before = names(place)
    code = main(["distill", *USUAL])
    err = capsys.readouterr().err
    assert code in (2, 3)
    assert "4" in err
    assert "3" in err
    assert names(place) == before


def test_inputs_that_do_not_fit(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from distillation.lessons import graph

    graphopt.save(graph(inputs=5), "s.onnx")
    _, err = run(capsys, *USUAL, code=3)
    assert "the student cannot be run on student 'x' [32, 6]" in err


def test_stale_cache_and_damaged_checkpoint(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept = ("--run-directory", "run")
    run(capsys, *USUAL, *kept)
    first = Path("out.onnx").read_bytes()
    run(capsys, *USUAL, *kept, "--resume")
    assert Path("out.onnx").read_bytes() == first
    for path in Path("run").rglob("*.checkpoint"):
        path.write_bytes(path.read_bytes()[:-40])
    _, err = run(capsys, *USUAL, *kept, code=3)
    assert "damaged or cut short" in err
    assert "Remove the folder" in err
    graphopt.save(teacher(scale=1.0), "t.onnx")
    _, err = run(capsys, *USUAL, *kept, code=2)
    assert "stale" in err
    assert Path("out.onnx").read_bytes() == first


def test_two_runs_in_one_folder(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The second one is told of the first, and leaves it alone."""
    Path("run").mkdir()
    with exclusive(Path("run") / LOCK):
        _, err = run(capsys, *USUAL, "--run-directory", "run", code=7)
        assert f"process {os.getpid()}" in err
        assert "is at work on it" in err
        assert not Path("out.onnx").exists()
    run(capsys, *USUAL, "--run-directory", "run")
    assert Path("out.onnx").is_file()


OTHER_INPUTS: dict[str, tuple[str, Any, str]] = {
    "type": ("type", ir.TensorType(ir.DataType.DOUBLE), "takes 'x' as double"),
    "batch": ("shape", ir.Shape([8, 6]), "takes 8 samples of 'x' at once"),
}


@pytest.mark.parametrize("case", OTHER_INPUTS)
def test_a_student_that_takes_other_inputs(case: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    attribute, value, words = OTHER_INPUTS[case]
    model = student()
    setattr(model.graph.inputs[0], attribute, value)
    ir.save(model, "s.onnx")
    _, err = run(capsys, *USUAL, code=3)
    assert f"the student {words}, the first teacher" in err
    assert "hint: " in err


def test_a_sample_is_named_as_in_the_data(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And not by its place among those that are not held out."""
    arrays = data(120)
    train, _ = bind(arrays, teacher()).split(0.9, 0)
    row = int(train.rows[-1])
    assert row != len(train) - 1
    np.savez("d.npz", **arrays | {"y": np.where(np.arange(120) == row, 3, arrays["y"])})
    assert f"sample {row} has the label 3" in run(capsys, *USUAL, code=3)[1]


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
def test_read_only_folders(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    closed = place / "closed"
    closed.mkdir(mode=0o500)
    assert "read-only" in run(capsys, *USUAL, "-o", "closed/out.onnx", code=4)[1]
    assert "cannot be kept there" in run(capsys, *USUAL, "--run-directory", "closed/run", code=4)[1]


def test_nothing_is_written_when_the_model_cannot_be(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from graphopt.errors import SaveError

    def full(*arguments: object, **settings: object) -> None:
        raise SaveError("no room")

    monkeypatch.setattr(graphopt, "save", full, raising=False)
    before = names(place)
    assert "no room" in run(capsys, *USUAL, "--plot", "p.svg", code=4)[1]
    assert names(place) == before


def test_without_torch(place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """It says what to install, and still helps."""
    for name in [one for one in sys.modules if one.startswith("graphopt.distillation")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torch", None)
    assert "graphopt[distill]" in run(capsys, *USUAL, code=8)[1]
    assert "--student" in CliRunner().invoke(command, ["--help"]).output


SLOWED = """
import sys, time
from graphopt.cli.main import main
from graphopt.distillation import job
from graphopt.distillation.checkpoint import Checkpoints

job.Checkpoints = lambda folder: Checkpoints(folder, seconds=0)
told = job.Job._told

def tell(self, moment):
    told(self, moment)
    print(moment.epoch, flush=True)
    time.sleep(0.05 if moment.epoch < 3 else 60)

job.Job._told = tell
sys.exit(main(sys.argv[1:]))
"""
"""The command line, saving after each step, which waits after the third epoch to be stopped."""


def test_interrupted_and_gone_on_with(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    long = (*USUAL, "--epochs", "40")
    run(capsys, *long)
    whole = Path("out.onnx").read_bytes()
    Path("out.onnx").unlink()
    kept = ("--run-directory", "run", "-q")
    line = [sys.executable, "-c", SLOWED, "distill", *long, *kept]
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        assert any(text == "3\n" for text in iter(running.stdout.readline, ""))
        running.send_signal(signal.SIGINT)
        _, err = running.communicate(timeout=60)
    assert running.returncode == 130
    assert err.split() == ["interrupted"]
    assert not Path("out.onnx").exists()
    run(capsys, *long, *kept, "--resume")
    assert Path("out.onnx").read_bytes() == whole


@pytest.mark.slow
@pytest.mark.parametrize("more", [(), ("--quantize", "static")], ids=["floats", "quantized"])
def test_several_processes(more: tuple[str, ...], place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Only the first one prints and writes, and the result is that of one process."""
    run(capsys, *USUAL, *more)
    alone = onnx.load("out.onnx")
    line = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*line, "-m", "graphopt", "distill", *USUAL, *more, "--json"],
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["output"] == "out.onnx"
    for one, other in zip(alone.graph.initializer, onnx.load("out.onnx").graph.initializer, strict=True):
        assert np.allclose(onnx.numpy_helper.to_array(one), onnx.numpy_helper.to_array(other), atol=1e-4)


def test_help_names_everything() -> None:
    text = CliRunner().invoke(command, ["--help"]).output
    words = " ".join(text.split())
    for heading in (*command.sections, "Examples", "Exit codes"):
        assert heading in text
    tables = (LOSSES, AUGMENTATIONS, BALANCES, SHAPES, OPTIMIZERS, PRECISIONS, TRACKERS, plots.KINDS)
    known = set(words.replace(",", " ").replace(":", " ").replace(".", " ").split())
    assert [name for table in tables for name in table if name not in known] == []
    assert all(f"[default: {value}]" in words for value in ("10", "64", "0.001", "adamw", "cosine"))
    assert max(map(len, text.splitlines())) <= 110


def test_every_choice_of_the_library_can_be_made() -> None:
    """And each of them in a recipe too."""
    known = {str(param.name) for param in command.params}
    python_only = {"progress", "follow", "with_report"}
    assert set(inspect.signature(graphopt.distill).parameters) - python_only <= known
    not_in_recipes = {"recipe", "as_json", "quiet", "verbose"}
    assert {parameter for parameter, _ in KEYS.values()} == known - not_in_recipes
    flags = {option.lstrip("-") for param in command.params for option in param.opts}
    assert set(KEYS) <= flags


def test_examples_in_the_help_are_examples() -> None:
    text = textwrap.dedent(command.epilog or "")
    shown = [line.split() for line in text.splitlines() if line.strip().startswith("graphopt distill")]
    assert len(shown) == 5
    flags = {option for param in command.params for option in param.opts}
    assert {word for words in shown for word in words if word.startswith("-")} <= flags
