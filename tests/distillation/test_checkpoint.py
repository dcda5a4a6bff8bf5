"""Checkpoints: whole or not there, of this run or refused; and a run that was killed ends like any other."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from distillation.killed import main as killed_run
from distillation.lessons import Objective, graph, network, perceptron, reader, same, samples, weights
from torch import Tensor

from graphopt.atomic import Replacement
from graphopt.distillation import checkpoint as module
from graphopt.distillation.batch import Batch
from graphopt.distillation.checkpoint import Checkpoint, Checkpoints
from graphopt.distillation.evaluation import Accuracy
from graphopt.distillation.history import Moment
from graphopt.distillation.losses.objective import parse
from graphopt.distillation.reading import Reader
from graphopt.distillation.sampling import Augmentation
from graphopt.distillation.schedule import Schedule
from graphopt.distillation.settings import Settings
from graphopt.distillation.student import GraphStudent
from graphopt.distillation.teacher import Teacher
from graphopt.distillation.trainer import fit
from graphopt.errors import ModelError, SaveError, UsageError

WHO = {"model": "a", "seed": 0}


def example(step: int = 1) -> Checkpoint:
    tensors = {
        "f": torch.randn(3, 5),
        "b": torch.randn(7).bfloat16(),
        "t": torch.tensor([True, False, True]),
        "s": torch.tensor(3.5),
        "e": torch.empty(0, 4),
        "n": torch.tensor([float("nan"), float("inf")]),
        "i": torch.arange(4).reshape(2, 2).T,
    }
    return Checkpoint(step, {"epoch": 2, "loss": 0.1 + 0.2, "worst": float("-inf")}, tensors)


def read(kept: Checkpoints, who: dict[str, Any] = WHO) -> Checkpoint:
    contents = kept.newest(who)
    assert contents is not None
    return kept.decoded(contents)


# -- files ---------------------------------------------------------------------------------------------------------


def test_a_round_trip_keeps_every_bit(tmp_path: Path) -> None:
    before = example()
    Checkpoints(tmp_path / "new").save(before, WHO)
    after = read(Checkpoints(tmp_path / "new"))
    assert (after.step, after.state) == (before.step, before.state)
    assert list(after.tensors) == list(before.tensors)
    for name, one in before.tensors.items():
        other = after.tensors[name]
        assert (one.dtype, one.shape) == (other.dtype, other.shape)
        assert torch.equal(_bytes(one), _bytes(other))


def _bytes(one: Tensor) -> Tensor:
    return one.contiguous().reshape(-1).view(torch.uint8)


def test_the_two_newest_stay(tmp_path: Path) -> None:
    kept = Checkpoints(tmp_path)
    for step in (5, 30, 200):
        kept.save(example(step), WHO)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "step-000000030.checkpoint",
        "step-000000200.checkpoint",
    ]
    assert read(kept).step == 200


def test_what_a_killed_run_was_writing_goes(tmp_path: Path) -> None:
    cut = tmp_path / ".step-000000007.checkpoint.0.tmp"
    cut.write_bytes(b"half of it")
    with Replacement(tmp_path / "step-000000008.checkpoint") as of_another:
        Checkpoints(tmp_path).save(example(9), WHO)
        assert {path.name for path in tmp_path.iterdir()} == {"step-000000009.checkpoint", of_another.path.name}


def test_nothing_there(tmp_path: Path) -> None:
    assert Checkpoints(tmp_path / "none").newest(WHO) is None
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("place", [0, 25, 200, -40, -1])
def test_a_flipped_bit_is_found_and_the_one_before_is_taken(tmp_path: Path, place: int) -> None:
    kept = Checkpoints(tmp_path)
    kept.save(example(1), WHO)
    kept.save(example(2), WHO)
    path = tmp_path / "step-000000002.checkpoint"
    contents = bytearray(path.read_bytes())
    contents[place] ^= 1
    path.write_bytes(contents)
    assert read(kept).step == 1
    assert "step-000000002.checkpoint is left out" in kept.notes[0]


def test_any_truncation_is_found(tmp_path: Path) -> None:
    Checkpoints(tmp_path).save(example(), WHO)
    path = next(tmp_path.iterdir())
    contents = path.read_bytes()
    for length in [0, 5, 22, 30, 31, 100, len(contents) - 32, len(contents) - 1]:
        path.write_bytes(contents[:length])
        with pytest.raises(ModelError, match="none of the 1 checkpoints can be read") as caught:
            Checkpoints(tmp_path).newest(WHO)
        assert "Remove the folder" in caught.value.hint


def test_a_stranger_s_header_runs_nothing(tmp_path: Path) -> None:
    """The digest is right, and the header asks for what there is not."""
    Checkpoints(tmp_path).save(example(), WHO)
    path = next(tmp_path.iterdir())
    magic = module._MAGIC
    headers: list[Any] = [
        {"identity": WHO, "step": 1, "state": {}, "tensors": {"x": {"dtype": "load", "shape": [1], "start": 0}}},
        {"identity": WHO, "step": 1, "state": {}, "tensors": {"x": {"dtype": "float32", "shape": [9999], "start": 0}}},
        {"identity": WHO, "step": 1, "state": {}, "tensors": {"x": {"dtype": "float32", "shape": [-2], "start": 0}}},
        {"identity": WHO, "step": 1, "state": {}, "tensors": {"x": {"dtype": "float32", "shape": [1], "start": -400}}},
        {"identity": WHO, "step": 1, "state": {}, "tensors": []},
        [],
    ]
    for header in headers:
        text = json.dumps(header).encode()
        body = magic + len(text).to_bytes(8, "little") + text + bytes(64)
        path.write_bytes(body + hashlib.sha256(body).digest())
        with pytest.raises(ModelError, match="makes no sense"):
            Checkpoints(tmp_path).newest(WHO)


def test_another_run_is_refused_by_name(tmp_path: Path) -> None:
    Checkpoints(tmp_path).save(example(), WHO)
    with pytest.raises(UsageError, match=r"differs in model \(\"a\", now \"b\"\)") as caught:
        Checkpoints(tmp_path).newest({"model": "b", "seed": 0})
    assert "Name another folder" in caught.value.hint
    with pytest.raises(UsageError, match=r"batch \(null, now 3\), seed \(0, now null\)"):
        Checkpoints(tmp_path).newest({"model": "a", "batch": 3})


def test_a_full_disk_leaves_the_last_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Checkpoints(tmp_path)
    kept.save(example(1), WHO)

    def full(descriptor: int, data: Any) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("graphopt.atomic.os.write", full)
        with pytest.raises(SaveError, match="No space left on device") as caught:
            kept.save(example(2), WHO)
    assert "Make room" in caught.value.hint
    assert [path.name for path in tmp_path.iterdir()] == ["step-000000001.checkpoint"]
    assert read(kept).step == 1


def test_when_one_is_due(tmp_path: Path) -> None:
    assert Checkpoints(tmp_path, seconds=0).is_due
    kept = Checkpoints(tmp_path, seconds=3600)
    assert not kept.is_due


# -- runs ----------------------------------------------------------------------------------------------------------


class _Stop(BaseException):
    """What no code catches."""


class _Stopping(Objective):
    """Ends the run in the middle of a step."""

    def __init__(self, step: int) -> None:
        super().__init__()
        self._left = step

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        if self.training:
            self._left -= 1
            if self._left < 0:
                raise _Stop
        return super().forward(batch)


def _noise(feeds: dict[str, Any], generator: np.random.Generator) -> dict[str, Any]:
    return {"x": feeds["x"] + 0.1 * generator.standard_normal(feeds["x"].shape, np.float32)}


VARIANTS: dict[str, tuple[Settings, dict[str, Any]]] = {
    "adamw": (Settings(epochs=3, batch=16, learning_rate=0.02), {}),
    "sgd, accumulated, averaged, clipped": (
        Settings(
            epochs=3,
            batch=16,
            optimizer="sgd",
            learning_rate=0.1,
            accumulate=4,
            average=0.8,
            clip=0.5,
            schedule=Schedule("step", warmup=0.3),
        ),
        {},
    ),
    "augmented, streamed, with a teacher": (
        Settings(epochs=3, batch=16, learning_rate=0.02, patience=2),
        {"augmentation": Augmentation(_noise, views=2), "held": 0, "teacher": True},
    ),
}


def _run(variant: str, folder: Path | None, objective: Objective, evaluated: bool = True) -> tuple[Any, Any]:
    settings, options = VARIANTS[variant]
    if "teacher" in options:
        options = {**options, "teacher": Teacher(graph(seed=4))}
    student = network()
    history = fit(
        student,
        objective,
        reader(90, **options),
        settings,
        evaluation=reader(40, seed=3, teacher=options.get("teacher")) if evaluated else None,
        metrics=[Accuracy("y")],
        checkpoints=None if folder is None else Checkpoints(folder, seconds=0),
    )
    return weights(student) | {f"objective.{k}": v for k, v in objective.state_dict().items()}, history


@pytest.mark.parametrize("variant", VARIANTS)
def test_an_interrupted_run_ends_with_the_same_bits(variant: str, tmp_path: Path) -> None:
    expected, history = _run(variant, None, Objective())
    for step in (3, 4, 9):  # in the first epoch, across epochs, and on
        with pytest.raises(_Stop):
            _run(variant, tmp_path, _Stopping(step))
    last = Objective()
    found, again = _run(variant, tmp_path, last)
    assert same(expected, found)
    assert 0 < len(last.ids) < 18  # it went on; it did not begin anew
    assert [(one.loss, one.parts, one.evaluation) for one in again.records] == [
        (one.loss, one.parts, one.evaluation) for one in history.records
    ]
    assert again.best == history.best


def _taught(folder: Path | None, epochs: int) -> dict[str, Tensor]:
    """Losses with parameters, memories and draws of their own; stops after so many epochs."""
    objective = parse(
        "kd+ce+fitnets:student=r:teacher=r+crd:student=r:teacher=r:bank=90:negatives=8+rkd:student=r:teacher=r",
        default_student="y",
        default_teacher="y",
    )
    student = GraphStudent(graph(), ["r"])

    def stop(moment: Moment) -> None:
        if moment.record is not None and moment.epoch + 1 == epochs:
            raise _Stop

    with contextlib.suppress(_Stop):
        fit(
            student,
            objective,
            reader(90, teacher=Teacher(graph(hidden=12, seed=4), ["y", "r"])),
            Settings(epochs=3, batch=16, learning_rate=0.02),
            checkpoints=None if folder is None else Checkpoints(folder, seconds=0),
            progress=stop,
        )
    return weights(student) | {f"objective.{k}": v for k, v in objective.state_dict().items()}


def test_losses_with_a_memory_go_on_exactly(tmp_path: Path) -> None:
    expected = _taught(None, 9)
    _taught(tmp_path, 2)
    assert same(expected, _taught(tmp_path, 9))


def test_without_evaluation_too(tmp_path: Path) -> None:
    expected, _ = _run("adamw", None, Objective(), evaluated=False)
    with pytest.raises(_Stop):
        _run("adamw", tmp_path, _Stopping(8), evaluated=False)
    assert same(expected, _run("adamw", tmp_path, Objective(), evaluated=False)[0])


def test_a_finished_run_gives_its_result_again(tmp_path: Path) -> None:
    expected, history = _run("adamw", tmp_path, Objective())
    objective = Objective()
    found, again = _run("adamw", tmp_path, objective)
    assert same(expected, found)
    assert objective.ids == []
    assert again == history


def test_a_damaged_checkpoint_costs_a_step_and_no_bit(tmp_path: Path) -> None:
    expected, _ = _run("adamw", None, Objective())
    with pytest.raises(_Stop):
        _run("adamw", tmp_path, _Stopping(8))
    newest = max(tmp_path.iterdir())
    newest.write_bytes(newest.read_bytes()[:-100])
    found, history = _run("adamw", tmp_path, Objective())
    assert same(expected, found)
    assert len(history.notes) == 1
    assert newest.name in history.notes[0]


def test_other_settings_samples_or_weights_are_another_run(tmp_path: Path) -> None:
    settings = Settings(epochs=1, batch=16)
    fit(perceptron(), Objective(), reader(), settings, checkpoints=Checkpoints(tmp_path), identity={"loss": "ce"})
    others: dict[str, dict[str, Any]] = {
        "batch": {"settings": Settings(epochs=1, batch=8)},
        "schedule": {"settings": Settings(epochs=1, batch=16, schedule=Schedule("linear"))},
        "samples": {"train": reader(seed=8)},
        "student": {"student": perceptron(seed=3)},
        "loss": {"identity": {"loss": "kd"}},
        "evaluation": {"evaluation": reader(20)},
    }
    for what, changed in others.items():
        arguments: dict[str, Any] = {"student": perceptron(), "objective": Objective(), "train": reader()}
        arguments |= {"settings": settings, "identity": {"loss": "ce"}, "checkpoints": Checkpoints(tmp_path)}
        arguments |= changed
        with pytest.raises(UsageError, match=f"differs in {what}"):
            fit(**arguments)


def test_no_checkpoint_holds_weights_that_are_no_numbers(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="the loss is nan in epoch 1, step 2"):
        fit(
            perceptron(),
            Objective(fails_at=8),
            reader(),
            Settings(epochs=3, batch=16),
            checkpoints=Checkpoints(tmp_path, seconds=0),
        )
    assert max(tmp_path.iterdir()).name == "step-000000008.checkpoint"


@pytest.mark.cuda
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_on_cuda_too(precision: str, tmp_path: Path) -> None:
    if not torch.cuda.is_available():
        pytest.skip("torch has no CUDA here")
    lesson = Reader(samples(90), None, device=torch.device("cuda", 0))
    settings = Settings(epochs=3, batch=16, learning_rate=0.02, precision=precision, clip=1.0, average=0.9)
    found = []
    for folder, steps in ((None, [99]), (tmp_path, [3, 8, 99])):
        for step in steps:
            student = network()
            with contextlib.suppress(_Stop):
                fit(
                    student,
                    _Stopping(step),
                    lesson,
                    settings,
                    checkpoints=None if folder is None else Checkpoints(folder, seconds=0),
                )
        found.append({name: one.cpu() for name, one in weights(student).items()})
    assert same(*found)


# -- killed --------------------------------------------------------------------------------------------------------


def _start(root: Path, folder: Path, result: Path) -> subprocess.Popen[bytes]:
    path = os.pathsep.join([str(root / "tests"), str(root), str(root / "passes")])
    script = root / "tests" / "distillation" / "killed.py"
    return subprocess.Popen(
        [sys.executable, str(script), str(folder), str(result)], env=os.environ | {"PYTHONPATH": path}
    )


def _newest(folder: Path) -> int:
    return max((int(path.stem[5:]) for path in folder.glob("step-*")), default=-1)


def _kill(process: subprocess.Popen[bytes], folder: Path, seconds: float) -> bool:
    """Kills it some time after it has gone on by a few steps; False if it was done before."""
    begin = _newest(folder)
    while process.poll() is None:
        if _newest(folder) > begin:
            time.sleep(seconds)
            process.send_signal(signal.SIGKILL)
            return process.wait() != 0
        time.sleep(0.001)
    return False


def _killed_and_resumed(root: Path, tmp_path: Path, kills: int) -> None:
    drawn = random.Random(kills)
    results = []
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in the process that is killed
    for name, points in (("whole", 0), ("killed", kills)):
        folder, result = tmp_path / name, tmp_path / f"{name}.npz"
        killed = [_kill(_start(root, folder, result), folder, drawn.random() / 50) for _ in range(points)]
        assert sum(killed) > points // 2 or not points
        killed_run(str(folder), str(result))
        with np.load(result) as arrays:
            results.append({name: arrays[name] for name in arrays.files})
    torch.set_num_threads(threads)
    assert results[0].keys() == results[1].keys()
    for name, one in results[0].items():
        assert one.tobytes() == results[1][name].tobytes(), name


def test_a_killed_run_ends_with_the_same_bits(root: Path, tmp_path: Path) -> None:
    _killed_and_resumed(root, tmp_path, 1)


@pytest.mark.slow
def test_a_run_that_is_killed_ten_times_ends_with_the_same_bits(root: Path, tmp_path: Path) -> None:
    _killed_and_resumed(root, tmp_path, 10)
