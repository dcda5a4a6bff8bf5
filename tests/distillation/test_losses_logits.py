"""Losses on logits against their formulas in NumPy."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from distillation.loss_cases import Array, batch, check_gradient, kl, numbers, softmax, top, value

from graphopt.distillation.losses import Loss
from graphopt.distillation.losses.logits import Dist, Dkd, Kd, LogitLoss, LogitMse, LogitStd, SoftCe
from graphopt.errors import UsageError
from graphopt.torch.outputs import Kind

STUDENT, TEACHER, OTHER = (numbers(6, 5, seed=seed, scale=2.0) for seed in range(3))
LABELS = np.array([0, 4, 2, 2, 1, 3])
NAMES: dict[str, Any] = {"student": "z", "teacher": "z"}

LOSSES: list[LogitLoss] = [
    Kd(**NAMES, temperature=3),
    SoftCe(**NAMES, temperature=2),
    LogitMse(**NAMES),
    LogitStd(**NAMES, temperature=1.5),
    Dkd(**NAMES, temperature=3, alpha=0.7, beta=2),
    Dist(**NAMES, temperature=2, beta=0.6, gamma=1.7),
]


def standardized(logits: Array) -> Array:
    return np.asarray((logits - logits.mean(-1, keepdims=True)) / logits.std(-1, keepdims=True))


def decoupled(student: Array, teacher: Array, alpha: float, beta: float, temperature: float) -> float:
    total = 0.0
    for z_s, z_t, label in zip(student, teacher, LABELS, strict=True):
        p_s, p_t = softmax(z_s, temperature)[label], softmax(z_t, temperature)[label]
        total += alpha * kl(np.array([[p_t, 1 - p_t]]), np.array([[p_s, 1 - p_s]]))
        q_s, q_t = (softmax(np.delete(z, label), temperature)[None] for z in (z_s, z_t))
        total += beta * kl(q_t, q_s)
    return temperature**2 * total / len(student)


def correlations(student: Array, teacher: Array, beta: float, gamma: float, temperature: float) -> float:
    p_s, p_t = softmax(student, temperature), softmax(teacher, temperature)
    between = np.mean([1 - np.corrcoef(a, b)[0, 1] for a, b in zip(p_s, p_t, strict=True)])
    within = np.mean([1 - np.corrcoef(a, b)[0, 1] for a, b in zip(p_s.T, p_t.T, strict=True)])
    return float(temperature**2 * (beta * between + gamma * within))


EXPECTED: dict[str, Callable[[Array, Array], Any]] = {
    "kd": lambda s, t: 9 * kl(softmax(t, 3), softmax(s, 3)),
    "soft-ce": lambda s, t: -4 * (softmax(t, 2) * np.log(softmax(s, 2))).sum() / len(s),
    "logit-mse": lambda s, t: ((s - t) ** 2).mean(),
    "logit-std": lambda s, t: 2.25 * kl(softmax(standardized(t), 1.5), softmax(standardized(s), 1.5)),
    "dkd": lambda s, t: decoupled(s, t, 0.7, 2, 3),
    "dist": lambda s, t: correlations(s, t, 0.6, 1.7, 2),
}
each = pytest.mark.parametrize("loss", LOSSES, ids=lambda one: one.name)


@each
def test_the_value_is_that_of_the_formula(loss: LogitLoss) -> None:
    expected = EXPECTED[loss.name](STUDENT, TEACHER)
    assert value(loss, batch(STUDENT, TEACHER, labels=LABELS)) == pytest.approx(expected, rel=1e-10)
    assert expected > 0.1


@each
def test_the_gradient_is_that_of_the_value(loss: LogitLoss) -> None:
    check_gradient(loss, batch(STUDENT, TEACHER, OTHER, labels=LABELS, weights=[0.3, 0.7]))


@each
def test_nothing_is_left_to_learn_from_an_equal_teacher(loss: LogitLoss) -> None:
    given = batch(torch.from_numpy(STUDENT).clone().requires_grad_(), STUDENT, labels=LABELS)
    result = loss(given)
    (gradient,) = torch.autograd.grad(result, [given.student["z"]])
    assert gradient.abs().max() < 1e-10
    if loss.name != "soft-ce":  # whose value is the entropy of the teacher
        assert result.item() == pytest.approx(0, abs=1e-10)


@each
def test_tokens_count_as_rows_and_the_mask_leaves_some_out(loss: LogitLoss) -> None:
    mask = np.array([[True, True, False], [True, False, False]])
    tokens = [numbers(2, 3, 5, seed=seed) for seed in (4, 5)]
    labels = np.array([[1, 3, 9], [0, 9, 9]])  # what the mask leaves out need not be a class
    flat = [one[mask] for one in tokens]
    expected = value(loss, batch(*flat, labels=labels[mask]))
    assert value(loss, batch(*tokens, labels=labels, mask=mask)) == pytest.approx(expected, rel=1e-12)
    assert value(loss, batch(*tokens, labels=np.where(mask, labels, 0))) != pytest.approx(expected, rel=1e-3)


@each
def test_no_token_at_all_is_a_loss_of_zero(loss: LogitLoss) -> None:
    tokens, mask = numbers(2, 3, 5), np.zeros((2, 3), bool)
    assert value(loss, batch(tokens, tokens + 1, labels=np.zeros((2, 3), int), mask=mask)) == 0


@each
def test_classes_of_images_lie_on_the_second_axis(loss: LogitLoss) -> None:
    images = [numbers(2, 5, 2, 3, seed=seed) for seed in (6, 7)]
    labels = np.arange(12).reshape(2, 2, 3) % 5
    flat = [one.transpose(0, 2, 3, 1).reshape(-1, 5) for one in images]
    expected = value(loss, batch(*flat, labels=labels.reshape(-1)))
    assert value(loss, batch(*images, labels=labels)) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("kind", ["probabilities", "log-probabilities"])
@pytest.mark.parametrize("loss", [one for one in LOSSES if one.name != "logit-mse"], ids=lambda one: one.name)
def test_probabilities_stand_for_their_logits(loss: LogitLoss, kind: Kind) -> None:
    given = [softmax(STUDENT), softmax(TEACHER)]
    given = given if kind == "probabilities" else [np.log(one) for one in given]
    same = dataclasses.replace(loss, student_kind=kind, teacher_kind=kind)
    expected = EXPECTED[loss.name](STUDENT, TEACHER)
    assert value(same, batch(*given, labels=LABELS)) == pytest.approx(expected, rel=1e-9)


def test_mse_compares_logarithms_where_one_gives_probabilities() -> None:
    loss = LogitMse(**NAMES, teacher_kind="probabilities")
    expected = ((np.log(softmax(STUDENT)) - np.log(softmax(TEACHER))) ** 2).mean()
    assert value(loss, batch(STUDENT, softmax(TEACHER))) == pytest.approx(expected, rel=1e-9)
    shifted = batch(STUDENT + 3, softmax(STUDENT))
    assert value(loss, shifted) == pytest.approx(0, abs=1e-12)


# several teachers


@pytest.mark.parametrize("loss", LOSSES[:2], ids=lambda one: one.name)
def test_probabilities_of_teachers_are_mixed(loss: Kd | SoftCe) -> None:
    mixed = 0.3 * softmax(TEACHER, loss.temperature) + 0.7 * softmax(OTHER, loss.temperature)
    expected = EXPECTED[loss.name](STUDENT, np.log(mixed) * loss.temperature)
    assert value(loss, batch(STUDENT, TEACHER, OTHER, weights=[0.3, 0.7])) == pytest.approx(expected, rel=1e-10)


@each
def test_each_sample_may_have_its_own_teacher(loss: LogitLoss) -> None:
    chosen = np.array([1, 0, 0, 1, 0, 1])
    expected = EXPECTED[loss.name](STUDENT, np.where(chosen[:, None], OTHER, TEACHER))
    weights = np.stack([1.0 - chosen, chosen], 1)
    given = batch(STUDENT, TEACHER, OTHER, labels=LABELS, weights=weights)
    assert value(loss, given) == pytest.approx(expected, rel=1e-10)


def test_one_of_the_teachers_can_be_followed_alone() -> None:
    loss = Kd(**NAMES, temperature=3, teacher_number=1)
    given = batch(STUDENT, TEACHER, OTHER, weights=[0.9, 0.1])
    assert value(loss, given) == pytest.approx(EXPECTED["kd"](STUDENT, OTHER), rel=1e-10)


def test_a_teacher_without_the_value_leaves_its_weight_to_the_others() -> None:
    given = batch(STUDENT, TEACHER, OTHER, OTHER, weights=[0.2, 0.6, 0.2])
    del given.teachers[1]["z"]  # type: ignore[attr-defined]
    expected = value(Kd(**NAMES), batch(STUDENT, TEACHER, OTHER, weights=[0.5, 0.5]))
    assert value(Kd(**NAMES), given) == pytest.approx(expected, rel=1e-12)


# the largest probabilities alone


@pytest.mark.parametrize("made", [Kd, SoftCe])
def test_all_classes_are_the_whole(made: type[Kd | SoftCe]) -> None:
    loss = made(**NAMES, temperature=2)
    given = batch(STUDENT, top(softmax(TEACHER, 2), 5, 2.0))
    assert value(loss, given) == pytest.approx(value(loss, batch(STUDENT, TEACHER)), rel=1e-10)
    check_gradient(loss, given)


@pytest.mark.parametrize("made", [Kd, SoftCe])
def test_the_others_are_one_bin(made: type[Kd | SoftCe]) -> None:
    loss = made(**NAMES, temperature=2)
    target, student = softmax(TEACHER, 2), softmax(STUDENT, 2)
    order = np.argsort(-target, -1)
    folded = [
        np.concatenate([kept[:, :2], kept[:, 2:].sum(1, keepdims=True)], 1)
        for kept in (np.take_along_axis(one, order, -1) for one in (target, student))
    ]
    entropy = 0 if made is Kd else -(folded[0] * np.log(folded[0])).sum() / 6
    given = batch(STUDENT, top(target, 2, 2.0))
    assert value(loss, given) == pytest.approx(4 * (kl(*folded) + entropy), rel=1e-10)
    check_gradient(loss, given)


def test_the_largest_of_tokens() -> None:
    mask = np.array([[True, False, True], [True, True, False]])
    student, teacher = numbers(2, 3, 5), softmax(numbers(2, 3, 5, seed=1), 4)
    expected = value(Kd(**NAMES), batch(student[mask], top(teacher[mask], 2, 4.0)))
    assert value(Kd(**NAMES), batch(student, top(teacher, 2, 4.0), mask=mask)) == pytest.approx(expected, rel=1e-12)


def test_a_dense_teacher_beside_one_that_kept_its_largest_has_the_gradient_of_the_mixture() -> None:
    gradients = []
    for first in (top(softmax(TEACHER, 4), 5, 4.0), TEACHER):
        given = batch(torch.from_numpy(STUDENT).clone().requires_grad_(), first, OTHER, weights=[0.4, 0.6])
        gradients.append(torch.autograd.grad(Kd(**NAMES)(given), [given.student["z"]])[0])
    assert torch.allclose(gradients[0], gradients[1], atol=1e-12)


def test_single_precision_and_certain_teachers_stay_finite() -> None:
    certain = np.array([[60.0, -60, -60, -60, -60]], np.float64)
    student = torch.tensor([[-90.0, 90, 0, 0, 0]], requires_grad=True)
    for teacher in (certain, top(softmax(certain), 2, 1.0), top(softmax(certain), 5, 1.0)):
        result = Kd(**NAMES, temperature=1)(batch(student, teacher))
        assert result.item() == pytest.approx(180, rel=1e-5)
        assert bool(torch.autograd.grad(result, [student])[0].isfinite().all())


def test_half_precision_is_computed_in_single() -> None:
    result = Kd(**NAMES)(batch(torch.from_numpy(STUDENT).half(), TEACHER))
    assert result.dtype in (torch.float32, torch.float64)
    assert float(result) == pytest.approx(value(Kd(**NAMES), batch(STUDENT, TEACHER)), rel=1e-2)


def test_classes_that_neither_model_has_do_not_count() -> None:
    given = [np.where(np.arange(5) == 3, -np.inf, one) for one in (STUDENT, TEACHER)]
    expected = EXPECTED["kd"](*(np.delete(one, 3, 1) for one in (STUDENT, TEACHER)))
    student = torch.from_numpy(given[0]).requires_grad_()
    result = Kd(**NAMES, temperature=3)(batch(student, given[1]))
    assert result.item() == pytest.approx(expected, rel=1e-10)
    assert bool(torch.autograd.grad(result, [student])[0].isfinite().all())


# what does not fit


@pytest.mark.parametrize(
    ("loss", "teacher", "message"),
    [
        (Kd(**NAMES), TEACHER[:, :4], "do not fit"),
        (Kd(**NAMES), TEACHER[:4], "do not fit"),
        (Kd(**NAMES), top(softmax(numbers(6, 9)), 3, 4.0), "do not fit"),
        (Kd(**NAMES, temperature=2), top(softmax(TEACHER), 3, 1.0), "were kept at 1"),
        (Dist(**NAMES), top(softmax(TEACHER), 3, 1.0), "needs all logits"),
        (Dkd(**NAMES), TEACHER, "needs labels"),
        (Kd(student="y", teacher="z"), TEACHER, "the student has no value 'y'"),
        (Kd(student="z", teacher="y"), TEACHER, "no teacher has value 'y'"),
        (Kd(**NAMES, teacher_number=2), TEACHER, "teacher 2 has no value 'z'"),
    ],
)
def test_misfits_are_the_users_errors(loss: Loss, teacher: Array, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        loss(batch(STUDENT, teacher))
