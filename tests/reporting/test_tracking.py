"""TensorBoard, and Weights & Biases without a network."""

from __future__ import annotations

import math
import sys
import time
from pathlib import Path

import pytest

from graphopt.distillation.history import Moment, Record
from graphopt.errors import EnvironmentProblem, SaveError, UsageError
from graphopt.reporting.tracking import TRACKERS, numbers, tracked

RECORD = Record(1, 0.5, {"kd": 0.4, "ce": math.nan}, {"loss": 0.6, "accuracy": 0.75}, 2.0)
MOMENTS = [Moment(0, 5, 10, 1.5), Moment(1, 10, 10, 0.5, RECORD)]


def test_numbers() -> None:
    assert numbers(MOMENTS[0]) == {"train/loss": 1.5}
    assert numbers(MOMENTS[1]) == {
        "train/loss": 0.5,
        "epoch/loss": 0.5,
        "epoch/seconds": 2.0,
        "epoch/kd": 0.4,
        "held-out/loss": 0.6,
        "held-out/accuracy": 0.75,
    }


def test_nobody_follows() -> None:
    with tracked([], {}) as follow:
        assert follow is None


def test_tensorboard(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="the extra graphopt[track] is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with tracked([f"tensorboard:{tmp_path / 'logs'}"], {}) as follow:
        assert follow is not None
        for moment in MOMENTS:
            follow(moment)
    found = EventAccumulator(str(tmp_path / "logs"))
    found.Reload()
    assert set(found.Tags()["scalars"]) == set(numbers(MOMENTS[1]))
    assert [(one.step, one.value) for one in found.Scalars("train/loss")] == [(5, 1.5), (20, 0.5)]
    assert [(one.step, one.value) for one in found.Scalars("held-out/accuracy")] == [(20, 0.75)]
    (tmp_path / "file").touch()
    with (
        pytest.raises(SaveError, match="TensorBoard cannot write there"),
        tracked([f"tensorboard:{tmp_path}/file"], {}),
    ):
        pass


def test_wandb_sends_nothing(tmp_path: Path) -> None:
    pytest.importorskip("wandb", reason="the extra graphopt[track] is not installed")
    with tracked([f"wandb:project:name=first:folder={tmp_path}"], {"epochs": 2}) as follow:
        assert follow is not None
        for moment in MOMENTS:
            follow(moment)
    (run,) = (tmp_path / "wandb").glob("offline-run-*")
    (held,) = run.glob("*.wandb")
    words = (b"first", b"project", b"held-out/accuracy", b"epochs")
    until = time.monotonic() + 20  # a process of its own writes the file
    while missing := [word for word in words if word not in held.read_bytes()]:
        assert time.monotonic() < until, missing
        time.sleep(0.1)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("tensorbord:logs", "no tracker 'tensorbord'"),
        ("tensorboard", "does not say where to"),
        ("wandb:", "does not say where to"),
        ("wandb:p:mod=online", "no option 'mod'"),
        ("wandb:p:mode=on", "cannot be 'on'"),
        ("wandb:p:online", "'online' in the wandb spec 'p:online' is no option"),
    ],
)
def test_what_makes_no_sense(spec: str, words: str) -> None:
    with pytest.raises(UsageError) as caught, tracked([spec], {}):
        pass
    assert words in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize("name", TRACKERS)
def test_what_is_not_installed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in [one for one in sys.modules if one.partition(".")[0] == name]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, name, None)
    problem = pytest.raises(EnvironmentProblem, match=f"the package {name} cannot be imported")
    with problem as caught, tracked([f"{name}:x"], {}):
        pass
    assert "graphopt[track]" in caught.value.hint
