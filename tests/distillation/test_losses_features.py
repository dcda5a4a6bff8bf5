"""Losses on inner tensors and on relations between samples, against their formulas in NumPy."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from distillation.loss_cases import Array, batch, check_gradient, numbers, value
from torch import Tensor, nn

from graphopt.distillation.batch import Batch
from graphopt.distillation.losses import Loss
from graphopt.distillation.losses.contrast import Crd
from graphopt.distillation.losses.draws import hashes, uniform
from graphopt.distillation.losses.features import AttentionTransfer, FeatureLoss, FitNets, Hidden, Mgd
from graphopt.distillation.losses.relations import Rkd, SimilarityPreserving
from graphopt.errors import UsageError

NAMES: dict[str, Any] = {"student": "z", "teacher": "z"}
STUDENT, TEACHER = numbers(4, 3, 4, 5), numbers(4, 3, 4, 5, seed=1)
WIDER = numbers(4, 6, 2, 5, seed=2)  # more channels, fewer places
LOSSES: list[type[FeatureLoss]] = [FitNets, AttentionTransfer, Hidden, Mgd, SimilarityPreserving, Rkd, Crd]


def prepared(loss: Loss, given: Batch, seed: int = 0) -> Loss:
    torch.manual_seed(seed)
    with torch.no_grad():
        loss.prepare(given)
    return loss


def weights(loss: Loss) -> dict[str, Array]:
    return {name: one.detach().numpy() for name, one in loss.named_parameters()}


def huber(difference: Array) -> Array:
    size = np.abs(difference)
    return np.asarray(np.where(size < 1, size**2 / 2, size - 0.5))


@pytest.mark.parametrize("made", LOSSES)
@pytest.mark.parametrize("teacher", [TEACHER, WIDER], ids=["alike", "wider"])
def test_the_gradient_is_that_of_the_value(made: type[FeatureLoss], teacher: Array) -> None:
    options: dict[str, Any] = {"dim": 4} if made is Crd else {}
    given = batch(STUDENT, teacher, teacher + 1, weights=[0.25, 0.75])
    check_gradient(prepared(made(**NAMES, **options), given), given)


@pytest.mark.parametrize("made", [FitNets, AttentionTransfer, Hidden, SimilarityPreserving, Rkd])
def test_an_equal_teacher_leaves_nothing_to_learn(made: type[FeatureLoss]) -> None:
    given = batch(STUDENT, STUDENT)
    assert value(prepared(made(**NAMES), given), given) == pytest.approx(0, abs=1e-12)
    assert not list(made(**NAMES).parameters())


@pytest.mark.parametrize("reduction", ["mean", "batchmean"])
def test_fitnets_halves_squared_errors(reduction: Any) -> None:
    loss = FitNets(**NAMES, reduction=reduction)
    expected = ((TEACHER - STUDENT) ** 2).mean() / 2 * (60 if reduction == "batchmean" else 1)
    assert value(loss, batch(STUDENT, TEACHER)) == pytest.approx(expected, rel=1e-12)


def test_a_regressor_meets_the_channels_of_the_teacher_and_the_smaller_size() -> None:
    given = batch(STUDENT, WIDER)
    loss = prepared(FitNets(**NAMES), given)
    held = weights(loss)
    assert held["adapters.0.weight"].shape == (6, 3)
    small = STUDENT.reshape(4, 3, 2, 2, 5).mean(3)
    mapped = np.einsum("oc,bchw->bohw", held["adapters.0.weight"], small) + held["adapters.0.bias"][:, None, None]
    assert value(loss, given) == pytest.approx(((WIDER - mapped) ** 2).mean() / 2, rel=1e-6)


def test_vectors_and_channels_at_the_end() -> None:
    first, second = numbers(4, 3), numbers(4, 7, seed=1)
    loss = prepared(FitNets(**NAMES), batch(first, second))
    held = weights(loss)
    mapped = first @ held["adapters.0.weight"].T + held["adapters.0.bias"]
    assert value(loss, batch(first, second)) == pytest.approx(((second - mapped) ** 2).mean() / 2, rel=1e-6)
    last = [one.transpose(0, 2, 3, 1) for one in (STUDENT, WIDER)]
    moved = prepared(FitNets(**NAMES, axis=-1), batch(*last))
    assert value(moved, batch(*last)) == pytest.approx(
        value(prepared(FitNets(**NAMES), batch(STUDENT, WIDER)), batch(STUDENT, WIDER)), rel=1e-12
    )


@pytest.mark.parametrize("power", [1.0, 2.0])
def test_attention_is_where_activations_are_large(power: float) -> None:
    maps = [(np.abs(one) ** power).sum(1).reshape(4, -1) for one in (STUDENT, TEACHER)]
    first, second = (one / np.linalg.norm(one, axis=1, keepdims=True) for one in maps)
    expected = np.linalg.norm(first - second, axis=1).mean()
    loss = AttentionTransfer(**NAMES, power=power)
    assert value(loss, batch(STUDENT, TEACHER)) == pytest.approx(expected, rel=1e-12)
    assert value(loss, batch(STUDENT, 3 * STUDENT)) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("reduction", ["mean", "batchmean"])
def test_hidden_leaves_out_what_the_mask_does(reduction: Any) -> None:
    mask = np.array([[True, True, True], [True, False, False]])
    first, second = numbers(2, 3, 5), numbers(2, 3, 5, seed=1)
    squares = [
        ((second[b, t] - first[b, t]) ** 2).sum() for b, t in itertools.product(range(2), range(3)) if mask[b, t]
    ]
    expected = np.mean(squares) / (1 if reduction == "batchmean" else 5)
    loss = Hidden(**NAMES, reduction=reduction)
    assert value(loss, batch(first, second, mask=mask)) == pytest.approx(expected, rel=1e-12)
    assert value(loss, batch(first, second, mask=~mask | mask)) != pytest.approx(expected, rel=1e-3)
    assert value(loss, batch(first, second, mask=mask & False)) == 0


def test_hidden_maps_widths() -> None:
    first, second = numbers(2, 3, 5), numbers(2, 3, 8, seed=1)
    loss = prepared(Hidden(**NAMES), batch(first, second))
    held = weights(loss)
    mapped = first @ held["adapters.0.weight"].T + held["adapters.0.bias"]
    assert value(loss, batch(first, second)) == pytest.approx(((second - mapped) ** 2).mean(), rel=1e-6)


def test_similarity_is_a_matrix_of_samples() -> None:
    matrices = [one.reshape(4, -1) @ one.reshape(4, -1).T for one in (STUDENT, WIDER)]
    first, second = (one / np.linalg.norm(one, axis=1, keepdims=True) for one in matrices)
    expected = np.linalg.norm(second - first, "fro") ** 2 / 16
    assert value(SimilarityPreserving(**NAMES), batch(STUDENT, WIDER)) == pytest.approx(expected, rel=1e-12)


def relations(vectors: Array) -> tuple[Array, Array]:
    count = len(vectors)
    distances = np.array([np.linalg.norm(vectors[i] - vectors[j]) for i, j in itertools.permutations(range(count), 2)])
    angles = []
    for i, j, k in itertools.permutations(range(count), 3):
        first, second = vectors[i] - vectors[j], vectors[k] - vectors[j]
        angles.append(first @ second / np.linalg.norm(first) / np.linalg.norm(second))
    return distances / distances.mean(), np.array(angles)


def test_distances_and_angles_are_compared() -> None:
    first, second = numbers(5, 3), numbers(5, 7, seed=1) * 10 ** numbers(5, 1, seed=3)  # ratios beyond Huber's bend
    (d_s, a_s), (d_t, a_t) = relations(first), relations(second)
    assert np.abs(d_s - d_t).max() > 1
    distance, angle = huber(d_s - d_t).mean(), huber(a_s - a_t).mean()
    given = batch(first, second)
    assert value(Rkd(**NAMES, distance=3, angle=0), given) == pytest.approx(3 * distance, rel=1e-10)
    assert value(Rkd(**NAMES, distance=0, angle=5), given) == pytest.approx(5 * angle, rel=1e-10)
    assert value(Rkd(**NAMES), given) == pytest.approx(distance + 2 * angle, rel=1e-10)


def test_equal_samples_have_finite_gradients() -> None:
    student = torch.ones(4, 3, requires_grad=True)
    for loss in (Rkd(**NAMES), SimilarityPreserving(**NAMES)):
        (gradient,) = torch.autograd.grad(loss(batch(student, numbers(4, 3))), [student])
        assert bool(gradient.isfinite().all())


# masked generation


def mgd_by_hand(loss: Mgd, student: Array, teacher: Array, kept: Array) -> float:
    held = {name: torch.from_numpy(one) for name, one in weights(loss).items()}
    masked = torch.from_numpy(student * kept[:, None])
    hidden = nn.functional.conv2d(masked, held["adapters.0.1.weight"], held["adapters.0.1.bias"], padding=1)
    made = nn.functional.conv2d(hidden.clamp(min=0), held["adapters.0.3.weight"], held["adapters.0.3.bias"], padding=1)
    return float(((teacher - made.numpy()) ** 2).mean())


def test_what_is_left_out_is_generated() -> None:
    given = batch(STUDENT, TEACHER, ids=[7, 3, 11, 0])
    loss = Mgd(**NAMES, ratio=0.4, seed=5)
    prepared(loss, given)
    draws = uniform(5, torch.tensor(0), given.ids, 20).numpy().reshape(4, 4, 5)
    assert value(loss, given) == pytest.approx(
        mgd_by_hand(loss, STUDENT, TEACHER, (draws >= 0.4).astype(np.float64)), rel=1e-10
    )
    everything = Mgd(**NAMES, ratio=0)
    prepared(everything, given)
    expected = mgd_by_hand(everything, STUDENT, TEACHER, np.ones((4, 4, 5)))
    assert value(everything, given) == pytest.approx(expected, rel=1e-10)


def test_masks_follow_the_step_and_the_sample_and_survive_a_restart() -> None:
    given = batch(STUDENT, TEACHER)
    loss = prepared(Mgd(**NAMES), given)
    values = [value(loss, given) for _ in range(3)]
    assert len(set(values)) == 3
    again = prepared(Mgd(**NAMES), given, seed=1)
    again.load_state_dict(loss.state_dict())
    assert value(again, given) == value(loss, given)
    loss.eval()
    assert value(loss, given) == value(loss, given)


def test_draws_depend_on_all_they_are_for_and_are_even() -> None:
    step, ids = torch.tensor(3), torch.arange(1000)
    drawn = uniform(0, step, ids, 50)
    assert torch.equal(drawn, uniform(0, step, ids, 50))
    assert torch.equal(drawn[7:9], uniform(0, step, ids[7:9], 50))
    for other in (uniform(1, step, ids, 50), uniform(0, step + 1, ids, 50), uniform(0, step, ids + 1000, 50)):
        assert (drawn == other).float().mean() < 1e-3
        assert np.corrcoef(drawn.flatten(), other.flatten())[0, 1] == pytest.approx(0, abs=0.02)
    shares = torch.histc(drawn, 20, 0, 1) / drawn.numel()
    assert shares.numpy() == pytest.approx(np.full(20, 0.05), abs=3e-3)
    assert len(np.unique(hashes(0, step, ids, 50))) > 49_990  # of 50,000


# contrast


def sigmoid_nce(positive: Array, negative: Array, tau: float) -> float:
    """By the formula, with h as it stands; these are the pairs of the first batch, too."""
    h, g = np.exp(positive / tau), np.exp(negative / tau)
    among = negative.shape[1] * np.concatenate([h, g.flatten()]).mean()
    return float(-(np.log(h / (h + among)).mean() + negative.shape[1] * np.log(1 - g / (g + among)).mean()))


def embedded(loss: Loss, side: str, features: Array) -> Array:
    held = weights(loss)
    made = features.reshape(len(features), -1) @ held[f"adapters.0.{side}.weight"].T + held[f"adapters.0.{side}.bias"]
    return np.asarray(made / np.linalg.norm(made, axis=1, keepdims=True))


def test_the_rest_of_the_batch_is_negative() -> None:
    given = batch(STUDENT, WIDER)
    loss = prepared(Crd(**NAMES, dim=4, tau=0.3), given)
    similar = embedded(loss, "student", STUDENT) @ embedded(loss, "teacher", WIDER).T
    negative = np.array([np.delete(row, place) for place, row in enumerate(similar)])
    assert value(loss, given) == pytest.approx(sigmoid_nce(np.diag(similar), negative, 0.3), rel=1e-9)


def test_the_mean_of_the_first_batch_stays() -> None:
    loss = Crd(**NAMES, dim=4)
    prepared(loss, batch(STUDENT, WIDER))
    before = loss.state_dict()["adapters.0.log_mean"].clone()
    assert value(loss, batch(2 - STUDENT, WIDER)) > 0
    assert torch.equal(loss.state_dict()["adapters.0.log_mean"], before)


def test_negatives_come_from_the_bank_which_follows() -> None:
    given = batch(STUDENT, WIDER, ids=[8, 2, 5, 0])
    loss = Crd(**NAMES, dim=4, tau=0.3, bank=9, negatives=6, momentum=0.8)
    prepared(loss, given)
    state: dict[str, Tensor] = loss.state_dict()
    banks = {side: state[f"adapters.0.{side}_bank"].numpy().copy() for side in ("student", "teacher")}
    ids = given.ids.numpy()
    drawn = (hashes(0, torch.tensor(0), given.ids, 6) % 8).numpy()
    drawn = np.where(drawn < ids[:, None], drawn, drawn + 1)
    assert not (drawn == ids[:, None]).any()
    assert set(drawn.flatten()) <= set(range(9))
    made = {"student": embedded(loss, "student", STUDENT), "teacher": embedded(loss, "teacher", WIDER)}
    expected = 0.0
    for side, other in (("student", "teacher"), ("teacher", "student")):
        positive = (made[side] * banks[other][ids]).sum(1)
        negative = (made[side][:, None] * banks[other][drawn]).sum(-1)
        expected += sigmoid_nce(positive, negative, 0.3)
    assert value(loss, given) == pytest.approx(expected, rel=1e-9)
    for side in ("student", "teacher"):
        moved = 0.8 * banks[side][ids] + 0.2 * made[side]
        moved /= np.linalg.norm(moved, axis=1, keepdims=True)
        after = state[f"adapters.0.{side}_bank"].numpy()
        assert after[ids] == pytest.approx(moved, rel=1e-9)
        others = np.setdiff1d(np.arange(9), ids)
        assert np.array_equal(after[others], banks[side][others])
    loss.eval()
    assert value(loss, given) == value(loss, given)


def test_held_out_samples_are_their_own_partners() -> None:
    given = batch(STUDENT, WIDER, ids=[-1] * 4)
    loss = Crd(**NAMES, dim=4, tau=0.3, bank=9, negatives=6)
    prepared(loss, given).eval()
    made = {"student": embedded(loss, "student", STUDENT), "teacher": embedded(loss, "teacher", WIDER)}
    drawn = (hashes(0, torch.tensor(0), given.ids, 6) % 8).numpy() + 1
    expected = 0.0
    for side, other in (("student", "teacher"), ("teacher", "student")):
        bank = loss.state_dict()[f"adapters.0.{other}_bank"].numpy()
        negative = (made[side][:, None] * bank[drawn]).sum(-1)
        expected += sigmoid_nce((made[side] * made[other]).sum(1), negative, 0.3)
    assert value(loss, given) == pytest.approx(expected, rel=1e-9)


def test_a_last_batch_too_small_to_compare_has_no_loss() -> None:
    for loss, fewest in ((Rkd(**NAMES), 3), (SimilarityPreserving(**NAMES), 2), (Crd(**NAMES), 2)):
        prepared(loss, batch(STUDENT, TEACHER))
        student = torch.from_numpy(STUDENT[: fewest - 1]).clone().requires_grad_()
        result = loss(batch(student, TEACHER[: fewest - 1]))
        assert result.item() == 0
        assert torch.autograd.grad(result, [student])[0].abs().max() == 0
        assert value(loss, batch(STUDENT[:fewest], TEACHER[:fewest])) > 0


def test_a_bank_has_gradients_too() -> None:
    given = batch(STUDENT, TEACHER)
    check_gradient(prepared(Crd(**NAMES, dim=3, bank=6, negatives=5), given), given)


# what does not fit


@pytest.mark.parametrize(
    ("loss", "student", "teacher", "message"),
    [
        (FitNets(**NAMES), STUDENT, numbers(4, 3), "do not fit"),
        (FitNets(**NAMES), STUDENT[:3], TEACHER, "do not fit"),
        (Hidden(**NAMES), numbers(2, 3, 5), numbers(2, 4, 5), "do not fit"),
        (AttentionTransfer(**NAMES), numbers(4, 3), numbers(4, 3), "a vector a sample"),
        (Mgd(**NAMES), numbers(2, 3, 5), numbers(2, 3, 5), "needs images"),
        (Rkd(**NAMES), numbers(2, 3), numbers(2, 3), "this one has 2"),
        (SimilarityPreserving(**NAMES), numbers(3, 3), numbers(2, 3), "do not fit"),
        (Crd(**NAMES, bank=3), numbers(4, 3), numbers(4, 3), "no place in a bank of 3"),
    ],
)
def test_misfits_are_the_users_errors(loss: Loss, student: Array, teacher: Array, message: str) -> None:
    def step() -> None:
        loss.prepare(batch(student, teacher))
        loss(batch(student, teacher))

    with pytest.raises(UsageError, match=message):
        step()
