"""Losses against labels, quantities and detectors' heads, against their formulas in NumPy."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from distillation.loss_cases import Array, batch, check_gradient, numbers, softmax, value

from graphopt.distillation.batch import Batch
from graphopt.distillation.losses import Loss
from graphopt.distillation.losses.detection import Box, Score, giou
from graphopt.distillation.losses.tasks import L1, Bce, Ce, Huber, Mse
from graphopt.errors import UsageError

LOGITS, OTHER = numbers(4, 5), numbers(4, 5, seed=1)
LABELS = np.array([0, 4, 2, 2])


def sigmoid(logits: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-logits)))


def entropy(target: Array, student: Array) -> Array:
    return np.asarray(-target * np.log(student) - (1 - target) * np.log(1 - student))


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_cross_entropy_with_smoothing(smoothing: float) -> None:
    logs = np.log(softmax(LOGITS))
    target = (1 - smoothing) * np.eye(5)[LABELS] + smoothing / 5
    expected = -(target * logs).sum(1).mean()
    loss = Ce(student="z", smoothing=smoothing)
    given = batch(LOGITS, labels=LABELS)
    assert value(loss, given) == pytest.approx(expected, rel=1e-12)
    check_gradient(loss, given)
    for kind, same in (("probabilities", softmax(LOGITS)), ("log-probabilities", logs)):
        loss = Ce(student="z", smoothing=smoothing, student_kind=kind)  # type: ignore[arg-type]
        assert value(loss, batch(same, labels=LABELS)) == pytest.approx(expected, rel=1e-9)
    assert value(Ce(student="z"), batch(LOGITS, labels=target)) == pytest.approx(expected, rel=1e-12)


def test_ignored_labels_do_not_count() -> None:
    expected = value(Ce(student="z"), batch(LOGITS[:2], labels=LABELS[:2]))
    for mark, loss in ((-100, Ce(student="z")), (255, Ce(student="z", ignore=255))):
        given = batch(LOGITS, labels=np.array([*LABELS[:2], mark, mark]))
        assert value(loss, given) == pytest.approx(expected, rel=1e-12)
    assert value(Ce(student="z"), batch(LOGITS, labels=np.full(4, -100))) == 0


def test_columns_tokens_and_images_of_labels() -> None:
    expected = value(Ce(student="z"), batch(LOGITS, labels=LABELS))
    columns = np.stack([LABELS * 0, LABELS], 1)
    assert value(Ce(student="z", column=1), batch(LOGITS, labels=columns)) == pytest.approx(expected, rel=1e-12)
    tokens = LOGITS.reshape(2, 2, 5)
    assert value(Ce(student="z"), batch(tokens, labels=LABELS.reshape(2, 2))) == pytest.approx(expected, rel=1e-12)
    mask = np.array([[True, False], [True, True]])
    kept = mask.reshape(-1)
    masked = batch(tokens, labels=np.where(mask, LABELS.reshape(2, 2), 77), mask=mask)
    alone = value(Ce(student="z"), batch(LOGITS[kept], labels=LABELS[kept]))
    assert value(Ce(student="z"), masked) == pytest.approx(alone, rel=1e-12)
    image = LOGITS.reshape(1, 2, 2, 5).transpose(0, 3, 1, 2).copy()
    assert value(Ce(student="z"), batch(image, labels=LABELS.reshape(1, 2, 2))) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("loss", "labels", "message"),
    [
        (
            Ce(student="z"),
            np.array([0, 5, 1, 1]),
            "label 5 of sample 31 of those to learn from is not one of the 5 classes",
        ),
        (Ce(student="z"), np.array([0, 1, 1, -1]), "label -1 of sample 33"),
        (Ce(student="z"), LABELS[:3], "do not fit"),
        (Ce(student="z"), LABELS.astype(np.float32), "needs numbers of classes; the labels are float32"),
        (Ce(student="z"), None, "needs labels, and the data have none"),
        (Ce(student="z", column=1), LABELS, "have no column 1"),
        (Mse(student="z"), numbers(4, 6), "the labels .* do not fit"),
        (Bce(student="z"), numbers(3, 5), "do not fit"),
    ],
)
def test_labels_that_do_not_fit(loss: Loss, labels: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        loss(batch(LOGITS, labels=labels, ids=[30, 31, 32, 33]))


QUANTITIES: list[tuple[Any, Any]] = [
    (Mse(student="z"), lambda s, y: ((s - y) ** 2).mean()),
    (L1(student="z"), lambda s, y: np.abs(s - y).mean()),
    (
        Huber(student="z", delta=0.6),
        lambda s, y: np.mean(np.where(np.abs(s - y) < 0.6, (s - y) ** 2 / 2, 0.6 * (np.abs(s - y) - 0.3))),
    ),
    (Bce(student="z"), lambda s, y: entropy(y, sigmoid(s)).mean()),
]
each = pytest.mark.parametrize(("loss", "formula"), QUANTITIES, ids=[one.name for one, _ in QUANTITIES])


@each
def test_quantities_against_labels(loss: Any, formula: Any) -> None:
    given = batch(LOGITS, labels=OTHER)
    assert value(loss, given) == pytest.approx(formula(LOGITS, OTHER), rel=1e-10)
    check_gradient(loss, given)
    single = batch(LOGITS[:, :1], labels=OTHER[:, 0].copy())  # one number a sample, with and without its axis
    assert value(loss, single) == pytest.approx(formula(LOGITS[:, 0], OTHER[:, 0]), rel=1e-10)


@each
def test_quantities_against_the_mean_of_teachers(loss: Any, formula: Any) -> None:
    taught = dataclasses.replace(loss, teacher="z", target="teacher")
    mean = 0.25 * OTHER + 0.75 * (OTHER + 2)
    expected = formula(LOGITS, sigmoid(mean) if loss.name == "bce" else mean)
    given = batch(LOGITS, OTHER, OTHER + 2, weights=[0.25, 0.75])
    assert value(taught, given) == pytest.approx(expected, rel=1e-10)
    each_its_own = batch(LOGITS, OTHER, OTHER * 0, weights=np.array([[1.0, 0]] * 4))
    expected = formula(LOGITS, sigmoid(OTHER) if loss.name == "bce" else OTHER)
    assert value(taught, each_its_own) == pytest.approx(expected, rel=1e-10)


@each
def test_quantities_of_tokens(loss: Any, formula: Any) -> None:
    first, second = numbers(2, 3, 5), numbers(2, 3, 5, seed=1)
    mask = np.array([[True, True, False], [False, False, True]])
    given = batch(first, labels=second, mask=mask)
    assert value(loss, given) == pytest.approx(formula(first[mask], second[mask]), rel=1e-10)


def test_binary_entropy_of_probabilities() -> None:
    labels = (OTHER > 0).astype(np.float64)
    loss = Bce(student="z", student_kind="probabilities")
    given = batch(sigmoid(LOGITS), labels=labels)
    assert value(loss, given) == pytest.approx(entropy(labels, sigmoid(LOGITS)).mean(), rel=1e-9)
    check_gradient(loss, given)
    saturated = torch.tensor([[0.0, 1.0]], requires_grad=True)
    result = loss(batch(saturated, labels=np.array([[1.0, 0.0]])))
    assert bool(torch.autograd.grad(result, [saturated])[0].isfinite().all())
    assert result.item() < 20


# detectors

BOXES = np.array([[[0, 0, 2, 2], [1, 1, 4, 3], [5, 5, 6, 8]], [[0, 0, 1, 1], [2, 2, 3, 3], [4, 0, 6, 1]]], np.float64)
SHIFTED = BOXES + numbers(2, 3, 4, seed=3, scale=0.4)
SCORES = np.array([[0.9, 0.2, 0.6], [0.1, 0.7, 0.3]])


def heads(student: Array, teacher: Array, scores: Array) -> Batch:
    given = batch(student, teacher)
    return Batch(
        given.student, [{**given.teachers[0], "scores": torch.from_numpy(scores)}], given.weights, None, given.ids
    )


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ([0, 0, 2, 2], [0, 0, 2, 2], 1.0),
        ([0, 0, 2, 2], [1, 1, 3, 3], 1 / 7 - 2 / 9),  # 1 of 7 in common; a hull of 9 with 2 in neither
        ([0, 0, 1, 1], [3, 0, 4, 1], 0 - 2 / 4),
        ([0, 0, 4, 4], [1, 1, 3, 3], 4 / 16),
    ],
)
def test_giou_by_hand(first: list[float], second: list[float], expected: float) -> None:
    assert giou(torch.tensor(first, dtype=torch.float64), torch.tensor(second, dtype=torch.float64)).item() == (
        pytest.approx(expected, rel=1e-12)
    )


def smooth(difference: Array, beta: float) -> Array:
    size = np.abs(difference)
    return np.asarray(np.where(size < beta, size**2 / 2 / beta, size - beta / 2))


@pytest.mark.parametrize("scaled", [False, True])
def test_boxes_count_where_the_teacher_is_confident(scaled: bool) -> None:
    loss = Box(student="z", teacher="z", confidence="scores", threshold=0.5, scaled=scaled, beta=0.3)
    errors = smooth(SHIFTED - BOXES, 0.3).mean(-1)
    weights = np.where(SCORES >= 0.5, SCORES if scaled else 1, 0)
    expected = (errors * weights).sum() / weights.sum()
    given = heads(SHIFTED, BOXES, SCORES)
    assert value(loss, given) == pytest.approx(expected, rel=1e-10)
    check_gradient(loss, given)
    assert value(loss, heads(BOXES, BOXES, SCORES)) == 0
    assert value(loss, heads(SHIFTED, BOXES, SCORES * 0)) == 0


def test_measures_and_layouts_of_boxes() -> None:
    given = batch(SHIFTED, BOXES)
    l1 = value(Box(student="z", teacher="z"), given)
    expected = 1 - giou(torch.from_numpy(SHIFTED), torch.from_numpy(BOXES)).mean().item()
    loss = Box(student="z", teacher="z", measure="giou")
    assert value(loss, given) == pytest.approx(expected, rel=1e-12)
    check_gradient(loss, given)
    assert value(Box(student="z", teacher="z", measure="both"), given) == pytest.approx(l1 + expected, rel=1e-12)
    sized = [np.concatenate([one[..., :2], one[..., 2:] - one[..., :2]], -1) for one in (SHIFTED, BOXES)]
    centred = [np.concatenate([one[..., :2] + one[..., 2:] / 2, one[..., 2:]], -1) for one in sized]
    for layout, pair in (("xywh", sized), ("cxcywh", centred)):
        moved = Box(student="z", teacher="z", measure="giou", layout=layout)  # type: ignore[arg-type]
        assert value(moved, batch(*pair)) == pytest.approx(expected, rel=1e-10)


def test_heads_in_one_tensor() -> None:
    """``(B, 4 + classes, anchors)``, boxes and scores after a sigmoid, as one-stage detectors export them."""
    first, second = (
        np.concatenate([boxes, sigmoid(numbers(2, 3, 2, seed=seed))], -1).transpose(0, 2, 1).copy()
        for boxes, seed in ((SHIFTED, 4), (BOXES, 5))
    )
    confident = second[:, 4:].max(1) >= 0.6
    assert 0 < confident.sum() < 6
    options: dict[str, Any] = dict.fromkeys(("student", "teacher", "confidence"), "z")
    options |= {"axis": 1, "confidence_start": 4, "threshold": 0.6}
    boxes = Box(**options, stop=4)
    expected = smooth(SHIFTED - BOXES, 1)[confident].mean()
    assert value(boxes, batch(first, second)) == pytest.approx(expected, rel=1e-10)
    scores = Score(**options, start=4, student_kind="probabilities", teacher_kind="probabilities")
    expected = entropy(second[:, 4:], first[:, 4:]).transpose(0, 2, 1)[confident].mean()
    assert value(scores, batch(first, second)) == pytest.approx(expected, rel=1e-9)


def test_scores_are_compared_after_a_sigmoid() -> None:
    first, second = numbers(2, 3, 4), numbers(2, 3, 4, seed=1)
    loss = Score(student="z", teacher="z", confidence="scores", confidence_kind="logits", threshold=0.5)
    given = heads(first, second, np.log(SCORES / (1 - SCORES)))
    expected = entropy(sigmoid(second), sigmoid(first))[SCORES >= 0.5].mean()
    assert value(loss, given) == pytest.approx(expected, rel=1e-10)
    check_gradient(loss, given)


@pytest.mark.parametrize(
    ("loss", "student", "teacher", "message"),
    [
        (Box(student="z", teacher="z"), numbers(2, 3, 5), numbers(2, 3, 5), "has 5 numbers an anchor"),
        (Box(student="z", teacher="z"), SHIFTED, BOXES[:, :2], "do not fit"),
        (Score(student="z", teacher="z", start=4), SHIFTED, BOXES, "leave nothing"),
        (Box(student="z", teacher="z", confidence="scores"), SHIFTED, BOXES, "no teacher has value 'scores'"),
    ],
)
def test_heads_that_do_not_fit(loss: Loss, student: Array, teacher: Array, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        loss(batch(student, teacher))
