"""Training: it learns, it repeats itself, and says what is wrong before it starts."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from distillation.lessons import (
    CPU,
    Network,
    Objective,
    arrays,
    graph,
    network,
    perceptron,
    reader,
    same,
    samples,
    weights,
)
from torch import Tensor, nn

from graphopt.datasets import bind
from graphopt.distillation import sampling
from graphopt.distillation.batch import Batch
from graphopt.distillation.ensemble import Ensemble
from graphopt.distillation.evaluation import Accuracy, Agreement, evaluate
from graphopt.distillation.history import Moment
from graphopt.distillation.optimization import Optimization
from graphopt.distillation.parallel import World
from graphopt.distillation.reading import Reader
from graphopt.distillation.sampling import Augmentation
from graphopt.distillation.schedule import Schedule
from graphopt.distillation.settings import Settings
from graphopt.distillation.student import GraphStudent
from graphopt.distillation.teacher import Teacher
from graphopt.distillation.trainer import fit
from graphopt.errors import ModelError, UsageError

FAST = Settings(epochs=3, batch=16, learning_rate=0.02)


# -- learning ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        Settings(epochs=12, batch=16, learning_rate=0.02),
        Settings(epochs=12, batch=16, learning_rate=0.2, optimizer="sgd", clip=1.0, accumulate=2),
        Settings(epochs=12, batch=16, learning_rate=0.02, average=0.9, schedule=Schedule(warmup=0.2)),
        Settings(epochs=12, batch=16, learning_rate=0.02, precision="bfloat16"),
    ],
    ids=["adamw", "sgd", "average", "bfloat16"],
)
def test_a_student_learns_from_labels(settings: Settings) -> None:
    student = perceptron()
    held_out = reader(60, seed=2)
    before = evaluate(student, None, held_out, [Accuracy("y")])["accuracy"]
    history = fit(student, Objective(), reader(180), settings, evaluation=held_out, metrics=[Accuracy("y")])
    after = evaluate(student, None, held_out, [Accuracy("y")])["accuracy"]
    assert before < 0.7 < 0.85 < after
    assert after == history.records[history.best].evaluation["accuracy"]  # the best epoch's weights are there
    assert after == max(one.evaluation["accuracy"] for one in history.records)
    assert [one.epoch for one in history.records] == list(range(12))
    assert history.records[-1].loss < history.records[0].loss / 2


def test_a_student_learns_from_a_teacher_without_labels() -> None:
    teacher = Teacher(graph(hidden=12, seed=9))
    data = {"x": arrays(120)["x"]}
    bound = bind(data, graph(), samples=None)
    lesson = Reader(bound, Ensemble([teacher]), device=CPU)
    student = perceptron()
    history = fit(
        student,
        Objective(),
        lesson,
        Settings(epochs=30, batch=16, learning_rate=0.03),
        evaluation=lesson,
        metrics=[Agreement("y", "y")],
    )
    assert history.records[history.best].evaluation["agreement"] > 0.9
    assert list(history.records[0].parts) == ["mse"]


def test_training_equals_a_loop_by_hand() -> None:
    """Same order, same updates: nothing is added to what torch does."""
    settings = Settings(epochs=2, batch=16, optimizer="sgd", learning_rate=0.1, weight_decay=0.0, momentum=0.0)
    student, twin = network(drop=0.0), network(drop=0.0)
    objective = Objective()
    fit(student, objective, reader(50), settings)
    x, y = (torch.from_numpy(one) for one in arrays(50).values())
    assert objective.scale is not None
    again = Objective()
    torch.manual_seed(sampling.whole_number(sampling.Purpose.START, 0))
    again.prepare(Batch({"y": torch.zeros(1, 3)}, [], torch.empty(0), None, torch.empty(0)))
    module = twin.module.train()
    optimizer = torch.optim.SGD([*module.parameters(), *again.parameters()], lr=0.1)
    number, total = 0, 2 * 4
    for epoch in range(2):
        for ids in sampling.split(sampling.order(50, 0, epoch), 16):
            for group in optimizer.param_groups:
                group["lr"] = 0.1 * 0.5 * (1 + math.cos(math.pi * number / total))
            optimizer.zero_grad()
            loss, _ = again(Batch({"y": module(x[ids])}, [], torch.empty(0), y[ids], torch.from_numpy(ids)))
            loss.backward()
            optimizer.step()
            number += 1
    for name, one in weights(student).items():
        torch.testing.assert_close(one, twin.module.state_dict()[name], rtol=0, atol=1e-6)


def test_accumulated_gradients_equal_those_of_a_larger_batch() -> None:
    plain = Settings(epochs=1, batch=24, optimizer="sgd", learning_rate=0.1)
    parts = Settings(epochs=1, batch=8, accumulate=3, optimizer="sgd", learning_rate=0.1)
    students = [perceptron(), perceptron()]
    for student, settings in zip(students, (plain, parts), strict=True):
        fit(student, Objective(), reader(72), settings)
    for one, other in zip(weights(students[0]).values(), weights(students[1]).values(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5)


def test_the_same_seed_gives_the_same_bits_and_another_one_others() -> None:
    found: list[dict[str, Tensor]] = []
    for seed in (0, 0, 1):
        torch.manual_seed(len(found))  # the caller's generator does not matter, and stays as it is
        state = torch.random.get_rng_state()
        student = network()
        fit(student, Objective(), reader(), Settings(epochs=2, batch=16, seed=seed))
        assert torch.equal(state, torch.random.get_rng_state())
        found.append(weights(student))
    assert same(found[0], found[1])
    assert not same(found[0], found[2])


def test_graphs_keep_their_statistics_and_modules_learn_theirs() -> None:
    student = network()
    before = weights(student)
    fit(student, Objective(), reader(), FAST)
    assert not torch.equal(before["norm.running_mean"], weights(student)["norm.running_mean"])
    assert not student.module.training
    exported = perceptron()
    assert not exported.learns_statistics


def test_every_sample_is_seen_once_an_epoch_in_a_new_order() -> None:
    objective = Objective()
    fit(perceptron(), objective, reader(90), FAST)
    epochs = [list(itertools.chain(*objective.ids[start : start + 6])) for start in (0, 6, 12)]
    assert all(sorted(one) == list(range(90)) for one in epochs)
    assert epochs[0] != epochs[1] != epochs[2]


def test_a_last_batch_of_one_sample_is_left_out() -> None:
    objective = Objective()
    fit(network(), objective, reader(33), Settings(epochs=2, batch=16))
    assert [len(one) for one in objective.ids] == [16, 16, 16, 16]
    assert sampling.split(np.arange(1), 16)[0].tolist() == [0]  # unless there is no other


def test_early_stopping_and_the_best_epoch() -> None:
    student = perceptron()
    settings = Settings(epochs=50, batch=16, learning_rate=0.5, patience=3)
    history = fit(student, Objective(), reader(60), settings, evaluation=reader(40, seed=3), metrics=[Accuracy("y")])
    assert len(history.records) < 50
    assert len(history.records) - 1 - history.best == 3
    scores = [one.evaluation["accuracy"] for one in history.records]
    assert history.best == scores.index(max(scores))


def test_without_metrics_the_least_loss_is_best() -> None:
    history = fit(perceptron(), Objective(), reader(), FAST, evaluation=reader(40, seed=3))
    losses = [one.evaluation["loss"] for one in history.records]
    assert history.best == losses.index(min(losses))


def test_an_average_is_what_is_kept_without_evaluation_too() -> None:
    student, plain = perceptron(), perceptron()
    fit(student, Objective(), reader(), Settings(epochs=2, batch=16, learning_rate=0.05, average=0.9))
    fit(plain, Objective(), reader(), Settings(epochs=2, batch=16, learning_rate=0.05))
    assert not same(weights(student), weights(plain))


def test_biases_and_scales_do_not_decay() -> None:
    optimization = Optimization(Network(), nn.Linear(1, 1), Settings(weight_decay=0.3), World())
    groups = optimization._optimizer.param_groups
    assert {tuple(one.shape) for one in groups[0]["params"]} == {(8, 6), (3, 8)}
    assert [group["weight_decay"] for group in groups] == [0.3, 0.0]


def test_progress() -> None:
    moments: list[Moment] = []
    history = fit(perceptron(), Objective(), reader(), FAST, evaluation=reader(40, 3), progress=moments.append)
    told = [one.record for one in moments if one.record is not None]
    assert told == list(history.records)
    assert all(0 < one.step <= one.steps == 6 for one in moments)


# -- reading -------------------------------------------------------------------------------------------------------


def test_held_and_streamed_samples_are_the_same() -> None:
    runs = []
    for held in (1 << 30, 0):
        student = perceptron()
        fit(student, Objective(), reader(teacher=Teacher(graph(seed=4)), held=held), FAST)
        runs.append(weights(student))
    assert same(*runs)


def _shift(feeds: dict[str, Any], random: np.random.Generator) -> dict[str, Any]:
    return {"x": feeds["x"] + random.standard_normal(feeds["x"].shape, np.float32)}


def test_augmentation_depends_on_seed_view_and_sample_only() -> None:
    lesson = reader(augmentation=Augmentation(_shift, seed=3, views=2))
    ids = np.array([7, 3, 50])
    one = lesson.read(ids, 1).feeds["x"]
    assert torch.equal(one[1], lesson.read(np.array([3]), 1).feeds["x"][0])
    assert not torch.equal(one, lesson.read(ids, 0).feeds["x"])
    assert not torch.equal(one, reader().read(ids, 1).feeds["x"])
    other = reader(augmentation=Augmentation(_shift, seed=4, views=2))
    assert not torch.equal(one, other.read(ids, 1).feeds["x"])


class _Views:
    """Remembers which views it was asked for, and that the changed inputs came along."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def targets(self, ids: Any, view: int, feeds: Any) -> dict[str, Tensor]:
        self.asked.append(view)
        assert not np.array_equal(feeds["x"], arrays()["x"][ids])
        return {"y": torch.zeros(len(ids), 3)}


def test_epochs_take_turns_through_the_views() -> None:
    views = _Views()
    lesson = reader(teacher=views, augmentation=Augmentation(_shift, views=2))
    views.asked.clear()
    fit(perceptron(), Objective(), lesson, FAST)
    assert views.asked == [0] + [0] * 6 + [1] * 6 + [0] * 6  # the first is the rehearsal


def test_an_augmentation_that_changes_shapes_is_told() -> None:
    lesson = reader(augmentation=Augmentation(lambda feeds, random: {"x": feeds["x"][:, :3]}))
    with pytest.raises(UsageError, match=r"'x' the shape \[1, 3\] instead of \[1, 6\]"):
        lesson.read(np.arange(2), 0)


def test_a_fixed_batch_is_kept() -> None:
    lesson = Reader(bind(arrays(30), graph(batch=4), samples=None), None, device=CPU)
    objective = Objective()
    fit(perceptron(), objective, lesson, Settings(epochs=1, batch=64))
    assert [len(one) for one in objective.ids] == [4] * 7
    with pytest.raises(UsageError, match="4 samples at once"):
        fit(perceptron(), Objective(), lesson, FAST, world=World(0, 2))


# -- what does not fit ---------------------------------------------------------------------------------------------


def test_a_loss_that_is_no_number_names_its_batch() -> None:
    ids = sampling.split(sampling.order(90, 0, 1), 16)[2].tolist()
    with pytest.raises(ModelError, match="the loss is nan in epoch 1, step 2") as caught:
        fit(perceptron(), Objective(fails_at=8), reader(), FAST)
    assert f"samples {', '.join(map(str, ids[:8]))} and 8 more" in caught.value.message


@pytest.mark.parametrize("where", ["train", "evaluation"])
def test_a_label_out_of_range(where: str) -> None:
    labels = arrays()["y"].copy()
    labels[77] = 3
    bad = Reader(samples(y=labels), None, device=CPU)
    lessons = (bad, reader()) if where == "train" else (reader(), bad)
    student = perceptron()
    before = weights(student)
    with pytest.raises(ModelError, match=r"sample 77 has the label 3, .* 3 classes, 0 to 2"):
        fit(student, Objective(), lessons[0], FAST, evaluation=lessons[1], metrics=[Accuracy("y")])
    assert same(before, weights(student))


@pytest.mark.filterwarnings("ignore:Using a target size")
def test_outputs_that_do_not_fit() -> None:
    with pytest.raises(ModelError, match=r"student 'y' \[16, 3\], teacher 0 'y' \[16, 5\], labels \[16\]"):
        fit(perceptron(), Objective(), reader(teacher=Teacher(graph(classes=5))), FAST)


def test_inputs_that_do_not_fit() -> None:
    wide = bind({"x": np.zeros((9, 7), np.float32)}, graph(inputs=7))
    with pytest.raises(ModelError, match=r"cannot be run on student 'x' \[9, 7\]"):
        fit(perceptron(), Objective(), Reader(wide, None, device=CPU), FAST)


def test_no_labels_and_no_samples() -> None:
    blind = Reader(bind({"x": arrays()["x"]}, graph()), None, device=CPU)
    with pytest.raises(ModelError, match="no labels to tell the accuracy by"):
        fit(perceptron(), Objective(), reader(), FAST, evaluation=blind, metrics=[Accuracy("y")])
    empty = samples()
    empty._rows = empty._rows[:0]
    with pytest.raises(UsageError, match="there are no samples"):
        Reader(empty, None, device=CPU)


def test_labels_that_are_no_numbers() -> None:
    with pytest.raises(UsageError, match="labels of the type"):
        Reader(samples(y=np.array(["cat"] * 90)), None, device=CPU)


@pytest.mark.parametrize(
    "wrong",
    [
        {"epochs": 0},
        {"batch": 0},
        {"optimizer": "adam"},
        {"precision": "int8"},
        {"learning_rate": 0.0},
        {"learning_rate": float("nan")},
        {"average": 1.0},
        {"patience": -1},
        {"clip": -1.0},
    ],
)
def test_settings_that_make_no_sense(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError) as caught:
        Settings(**wrong)
    assert caught.value.hint


def test_what_the_run_cannot_do() -> None:
    with pytest.raises(UsageError, match="float16 does not train on cpu"):
        fit(perceptron(), Objective(), reader(), Settings(precision="float16"))
    with pytest.raises(UsageError, match="in one process only"):
        fit(GraphStudent(graph(), learns_statistics=True), Objective(), reader(), world=World(0, 2))


# -- schedules -----------------------------------------------------------------------------------------------------


def test_schedules() -> None:
    cosine = Schedule("cosine", warmup=0.1, floor=0.2)
    rates = [cosine(step, 100) for step in range(100)]
    assert rates[:10] == pytest.approx([(step + 1) / 11 for step in range(10)])
    assert rates[10] == 1.0
    assert rates[55] == pytest.approx(0.6)
    assert 0.2 <= rates[99] < 0.201
    assert [Schedule("linear")(step, 4) for step in range(4)] == [1, 0.75, 0.5, 0.25]
    assert [Schedule("constant")(step, 3) for step in range(3)] == [1, 1, 1]
    assert [Schedule("step")(step, 4) for step in range(4)] == pytest.approx([1, 1, 0.1, 0.01])
    for wrong in ({"shape": "wave"}, {"warmup": 1.0}, {"floor": -1.0}, {"factor": 0.0}):
        with pytest.raises(UsageError):
            Schedule(**wrong)


# -- metrics -------------------------------------------------------------------------------------------------------


def test_accuracy_of_tokens_and_of_columns() -> None:
    scores = torch.eye(3)[torch.tensor([[0, 1], [2, 2]])]
    batch = Batch({"y": scores}, [], torch.empty(0), torch.tensor([[0, -100], [2, 1]]), torch.arange(2))
    hits, count = Accuracy("y")(batch)
    assert (int(hits), int(count)) == (2, 3)
    flat = Batch({"y": scores[:, 0]}, [], torch.empty(0), torch.tensor([[9, 0], [9, 1]]), torch.arange(2))
    hits, count = Accuracy("y", column=1)(flat)
    assert (int(hits), int(count)) == (1, 2)
    with pytest.raises(ModelError, match="no column 2"):
        Accuracy("y", column=2).check(flat)
    with pytest.raises(ModelError, match="no classes"):
        Accuracy("y").check(flat)
