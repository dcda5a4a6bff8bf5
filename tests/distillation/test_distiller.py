"""Whole runs: what comes in, what comes out, and that it is the same again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
from distillation.lessons import Network, graph
from distillation.school import FEW, data, student, teacher
from harness import parse

import graphopt
from graphopt import proto
from graphopt.distillation.history import Moment
from graphopt.distillation.report import DistillReport
from graphopt.errors import GraphoptError, ModelError, NotEquivalent, SaveError, UsageError


def run(given: Any = None, learner: Any = None, taught: Any = None, **options: Any) -> tuple[ir.Model, DistillReport]:
    """A distillation of a few steps."""
    found = graphopt.distill(
        teacher() if given is None else given,
        student() if learner is None else learner,
        data() if taught is None else taught,
        with_report=True,
        **(FEW | options),
    )
    model, report = found
    assert isinstance(model, ir.Model)
    return model, report


def bits(model: ir.Model) -> bytes:
    return b"".join(proto.to_buffers(model))


def scores(report: DistillReport) -> dict[str, dict[str, float]]:
    return {one.name: dict(one.scores) for one in report.contenders}


def two_headed() -> ir.Model:
    random = np.random.default_rng(0)
    weights = {
        name: random.standard_normal(shape).astype(np.float32) / 2
        for name, shape in {"w": (6, 8), "u": (8, 3), "v": (8, 2)}.items()
    }
    return parse(
        "agraph (float[N,6] x) => (float[N,3] y, float[N,2] z) "
        "{ p = MatMul(x, w)  r = Relu(p)  y = MatMul(r, u)  z = MatMul(r, v) }",
        weights,
    )


def parity() -> ir.Model:
    """A second teacher: whether the first input is positive."""
    weights = {"v": np.outer(np.eye(6)[0], [0, 4]).astype(np.float32)}
    return parse("agraph (float[N,6] x) => (float[N,2] z) { z = MatMul(x, v) }", weights)


def test_learns_from_teacher_and_labels() -> None:
    moments: list[Moment] = []
    model, report = run(epochs=12, learning_rate=0.05, follow=moments.append)
    found = scores(report)
    assert found["teacher"]["accuracy"] == 1.0
    assert found["student"]["accuracy"] >= max(0.85, found["student before"]["accuracy"] + 0.2)
    assert report.loss == "kd:temperature=4:weight=0.9+ce:weight=0.1"
    assert list(report.records[0].parts) == ["kd", "ce"]
    assert report.samples == (180, 20)
    assert report.deviation["y"] < 1e-5
    assert report.cached > 0
    assert report.rounds == [0]
    ended = [one.record for one in moments if one.record is not None]
    assert ended == list(report.records)
    assert [value.name for value in model.graph.outputs] == ["y"]


def test_learns_without_labels() -> None:
    _, report = run(taught=data(labels=False), evaluation=data(50, 9, labels=False), epochs=8)
    assert report.loss == "kd:temperature=4"
    assert report.samples == (200, 50)
    assert scores(report)["student"]["agreement"] > scores(report)["student before"]["agreement"]


def test_nothing_given_is_changed() -> None:
    given, learner, samples = teacher(), student(), data()
    before = bits(given), bits(learner), samples["x"].copy()
    run(given, learner, samples)
    assert (bits(given), bits(learner)) == before[:2]
    assert np.array_equal(samples["x"], before[2])


def test_labels_alone_fine_tune_a_model(tmp_path: Path) -> None:
    """The teacher is the student, and never asked."""
    path = tmp_path / "m.onnx"
    graphopt.save(student(), path)
    model, report = graphopt.distill(path, data=data(), loss="ce", with_report=True, **(FEW | {"epochs": 8}))
    found = scores(report)
    assert found["student"]["accuracy"] > found["student before"]["accuracy"]
    assert "teacher" not in found
    assert report.cached == 0
    assert isinstance(model, ir.Model)


def test_two_teachers_for_two_heads() -> None:
    samples = data()
    samples["y"] = np.stack([samples["y"], samples["x"][:, 0] > 0], 1).astype(np.int64)
    heads = ((0, "y"), (1, "z"))
    loss = "+".join(f"kd:student={z}:teacher-number={n}+ce:student={z}:column={n}" for n, z in heads)
    _, report = run([teacher(), parity()], two_headed(), samples, loss=loss, epochs=8, balance="uncertainty")
    assert set(report.deviation) == {"y", "z"}
    final, before = scores(report)["student"], scores(report)["student before"]
    assert set(final) == {"accuracy of y", "accuracy of z"}
    assert scores(report)["teacher 0"] == {"accuracy of y": 1.0}
    assert scores(report)["teacher 1"] == {"accuracy of z": 1.0}
    assert min(final.values()) > 0.6
    assert sum(final.values()) > sum(before.values())


def test_two_teachers_of_one_thing() -> None:
    weighted, _ = run([teacher(), teacher(scale=1.0)], teacher_weights=[1.0, 0.0], loss="kd")
    alone, _ = run(teacher(), loss="kd")
    for one, other in zip(weights_of(weighted), weights_of(alone), strict=True):
        assert np.allclose(one, other, atol=1e-4)
    _, report = run([teacher(), teacher(scale=1.0)], teacher_weights="sample", loss="kd")
    assert [one.name for one in report.contenders] == ["teacher 0", "teacher 1", "student before", "student"]


def weights_of(model: ir.Model) -> list[np.ndarray[Any, Any]]:
    return [
        value.const_value.numpy()
        for _, value in sorted(model.graph.initializers.items())
        if value.const_value is not None
    ]


def test_inner_tensors() -> None:
    model, report = run(loss="kd+fitnets:student=r:teacher=h:weight=0.1")
    assert list(report.records[0].parts) == ["kd", "fitnets"]
    assert report.records[-1].parts["fitnets"] < report.records[0].parts["fitnets"]
    assert [value.name for value in model.graph.outputs] == ["y"]


def test_a_shrunken_teacher() -> None:
    model, report = graphopt.distill(teacher(), "shrink:macs=0.6", data(), with_report=True, **FEW)
    whole, before, after = report.contenders
    assert after.macs <= 0.6 * whole.macs
    assert before.macs == after.macs
    assert isinstance(model, ir.Model)


def test_a_module_and_one_from_a_factory() -> None:
    made, report = graphopt.distill(teacher(), "distillation.school:factory", data(), with_report=True, **FEW)
    assert [value.name for value in made.graph.inputs] == ["x"]
    assert [value.name for value in made.graph.outputs] == ["y"]
    assert report.deviation["y"] < 1e-5
    torch.manual_seed(0)
    module = Network()
    before = module.first.weight.detach().clone()
    graphopt.distill(teacher(), module, data(), **FEW)
    assert not torch.equal(before, module.first.weight)


def test_the_kind_of_the_student_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "s.onnx"
    graphopt.save(student(), path)
    given = proto.to_proto(student())
    assert type(graphopt.distill(teacher(), given, data(), **FEW)) is type(given)
    assert isinstance(graphopt.distill(teacher(), path, data(), **FEW), ir.Model)


def test_same_seed_same_bytes() -> None:
    assert bits(run()[0]) == bits(run()[0])
    assert bits(run()[0]) != bits(run(seed=1)[0])


def test_kept_outputs_teach_what_a_teacher_teaches() -> None:
    """Augmented inputs too: each view has been asked about."""
    noisy: dict[str, Any] = {"augment": "noise:deviation=0.3", "views": 2, "epochs": 4, "samples": 96}
    kept, report = run(cache=True, **noisy)
    asked, other = run(cache=False, **noisy)
    assert (report.cached > 0, other.cached) == (True, 0)
    assert bits(kept) == bits(asked)
    assert bits(kept) != bits(run(cache=False, epochs=4, samples=96)[0])


def test_top_k_and_half() -> None:
    whole = run(cache=True, loss="kd")[1].cached
    assert run(loss="kd", top_k=1, half=True)[1].cached < whole
    with pytest.raises(UsageError, match="top-k does not go with the loss"):
        run(loss="logit-mse", top_k=1)
    with pytest.raises(UsageError, match="nothing is to be kept"):
        run(half=True, cache=False)
    with pytest.raises(UsageError, match="0 largest"):
        run(top_k=0)


def test_prunes_and_trains_in_rounds() -> None:
    moments: list[Moment] = []
    options: dict[str, Any] = {"prune": "macs=0.4", "prune_steps": 2, "epochs": 3}
    model, report = run(learner=teacher(), follow=moments.append, **options)
    sizes = {one.name: one.macs or 0 for one in report.contenders}
    assert sizes["student"] <= 0.4 * sizes["teacher"]
    assert report.rounds == [0, 3]
    assert [one.epoch for one in report.records] == list(range(6))
    assert report.best is not None
    assert report.best >= 3
    assert [one.record.epoch for one in moments if one.record is not None] == list(range(6))
    assert bits(model) == bits(run(learner=teacher(), **options)[0])


def test_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    """Stopped in its second round, and started again."""
    options: dict[str, Any] = {"learner": teacher(), "prune": "macs=0.5", "prune_steps": 2}
    whole, _ = run(**options)

    class Enough(Exception):
        pass

    def stop(moment: Moment) -> None:
        if moment.record is not None and moment.epoch == 4:
            raise Enough

    with pytest.raises(Enough):
        run(**options, follow=stop, run_directory=tmp_path / "run")
    resumed, report = run(**options, run_directory=tmp_path / "run", resume=True)
    assert bits(resumed) == bits(whole)
    assert len(report.records) == 6
    with pytest.raises(UsageError, match="keeps another run"):
        run(**(options | {"learning_rate": 0.01}), run_directory=tmp_path / "run")


def test_another_augmentation_is_another_run(tmp_path: Path) -> None:
    """Functions have no names to tell them by."""
    options: dict[str, Any] = {"views": 1, "cache": True, "run_directory": tmp_path / "run", "samples": 64}
    run(augment=lambda feeds, random: {"x": feeds["x"] * 2}, **options)
    run(augment=lambda feeds, random: {"x": feeds["x"] * 2}, **options)
    with pytest.raises(UsageError, match="stale"):
        run(augment=lambda feeds, random: {"x": feeds["x"] * 3}, **options)


def test_a_dry_run_trains_nothing_and_writes_nothing(tmp_path: Path) -> None:
    model, report = run(dry_run=True, run_directory=tmp_path / "run", cache=True)
    assert report.records == []
    assert report.cached == 0
    assert [one.name for one in report.contenders] == ["teacher", "student before"]
    assert [np.array_equal(a, b) for a, b in zip(weights_of(model), weights_of(student()), strict=True)] == [True] * 3
    assert not (tmp_path / "run").exists()
    with pytest.raises(ModelError, match="has the label 7"):
        run(taught=data() | {"y": np.full(200, 7)}, dry_run=True)


def test_minus_one_sample_is_any_number() -> None:
    """As exporters of Paddle write it."""
    loose = teacher()
    loose.graph.inputs[0].shape = ir.Shape([-1, 6])
    _, report = run(given=loose)
    assert report.samples == (180, 20)


def test_few_samples_are_all_learnt_from() -> None:
    _, report = run(taught=data(12))
    assert report.samples == (12, 0)
    assert any("too few to hold some out" in note for note in report.notes)
    assert report.best == 2


def test_training_that_only_does_harm_is_undone() -> None:
    harmful: dict[str, Any] = {"learning_rate": 0.5, "warmup": 0.0, "augment": "noise:deviation=9"}
    found, report = run(teacher(), teacher(), loss="kd", optimize=False, **harmful)
    assert report.best is None
    assert any("no epoch was as good as the start" in note for note in report.notes)
    assert bits(found) == bits(teacher())
    assert scores(report)["student"] == scores(report)["student before"]


def test_ties_go_to_the_lesser_loss() -> None:
    """A few samples cannot tell one epoch from another by accuracy."""
    _, report = run(epochs=6, evaluation=data(4, 7))
    most = max(one.evaluation["accuracy"] for one in report.records)
    best = [one for one in report.records if one.evaluation["accuracy"] == most]
    assert len(best) > 1
    assert report.best is not None
    assert report.records[report.best] == min(best, key=lambda one: one.evaluation["loss"])
    assert report.records[report.best] != best[0]


BAD: dict[str, tuple[dict[str, Any], type[GraphoptError], str]] = {
    "no data": ({"data": None}, UsageError, "no data"),
    "empty": ({"data": data(0)}, ModelError, "x"),
    "no teacher": ({"teacher": []}, UsageError, "no teacher"),
    "label": ({"data": data() | {"y": np.arange(200)}}, ModelError, "sample 3 has the label 3, "),
    "no labels": ({"data": data(labels=False), "loss": "ce"}, UsageError, "needs labels"),
    "loss": ({"loss": "kl"}, UsageError, "there is no loss 'kl'"),
    "inner": ({"loss": "at:student=nothing"}, UsageError, "nothing"),
    "outputs": ({"student": two_headed(), "loss": "logit-mse:student=z:teacher=y"}, GraphoptError, "z"),
    "inputs": ({"student": graph(inputs=5)}, ModelError, "the student cannot be run on student 'x' [32, 6]"),
    "threads": ({"threads": 100_000}, UsageError, "threads cannot be 100000"),
    "seed": ({"seed": 2**63}, UsageError, f"seed cannot be {2**63}"),
    "signature": ({"student": "distillation.lessons:weights"}, UsageError, "cannot be called without arguments"),
    "resume": ({"resume": True}, UsageError, "nothing to resume from"),
    "mask": ({"mask": "m", "loss": "kd"}, UsageError, "no input 'm'"),
    "idle": ({"teacher": [teacher(), parity()], "loss": "kd:teacher-number=0"}, UsageError, "asks nothing of 1 of 2"),
    "balance": ({"balance": "static:x=1"}, UsageError, "x"),
    "optimizer": ({"optimizer": "adam"}, UsageError, "adam"),
    "warmup": ({"warmup": 1.5}, UsageError, "warmup=1.5"),
    "views": ({"augment": "noise", "views": 0}, UsageError, "0 views"),
    "prune": ({"prune": "macs"}, UsageError, "macs"),
    "prune steps": ({"prune": "macs=0.5", "prune_steps": 0}, UsageError, "prune-steps=0"),
    "teacher weights": ({"teacher_weights": [1.0, 2.0]}, UsageError, "teacher"),
    "shrink": ({"student": "shrink:macs=0.0001"}, GraphoptError, "macs"),
    "factory": ({"student": "distillation.school:data"}, ModelError, "gives a dict"),
    "module": ({"student": "nothing_there:f"}, UsageError, "nothing_there"),
    "nan": ({"learning_rate": 1e30, "epochs": 4, "schedule": "constant", "warmup": 0.0}, ModelError, "the loss is"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_makes_no_sense(case: str) -> None:
    options, kind, words = BAD[case]
    given: dict[str, Any] = {"teacher": teacher(), "student": student(), "data": data()} | FEW | options
    with pytest.raises(kind) as caught:
        graphopt.distill(**given)
    assert words in caught.value.message
    assert "\n" not in caught.value.message.strip()


def test_a_folder_that_cannot_hold_a_run(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SaveError, match="cannot be kept there"):
        run(run_directory=tmp_path / "file")
    with pytest.raises(UsageError, match="holds no run"):
        run(run_directory=tmp_path / "new", resume=True)
    assert not (tmp_path / "new").exists()


def test_a_result_that_is_something_else_is_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    from graphopt.distillation.student import GraphStudent

    monkeypatch.setattr(GraphStudent, "to_onnx", lambda self: student(seed=8))
    with pytest.raises(NotEquivalent, match="output 'y' of the exported student is off"):
        run()
