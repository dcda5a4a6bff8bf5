"""Specs of losses, their sum, and the balance of tasks."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from distillation.loss_cases import numbers
from torch import Tensor, nn

from graphopt.distillation.batch import Batch
from graphopt.distillation.losses import BALANCES, LOSSES, Objective, parse
from graphopt.distillation.losses.features import FitNets
from graphopt.distillation.losses.logits import Dkd, Kd
from graphopt.distillation.losses.tasks import Ce, Mse
from graphopt.errors import UsageError


def read(spec: str, **options: Any) -> Objective:
    return parse(spec, **{"default_student": "logits", "default_teacher": "scores", **options})


def batch(student: dict[str, Any], teacher: dict[str, Any], labels: Any = None) -> Batch:
    made = [
        {name: torch.as_tensor(one, dtype=torch.float32) for name, one in values.items()}
        for values in (student, teacher)
    ]
    for one in made[0].values():
        one.requires_grad_()
    count = len(next(iter(made[0].values())))
    return Batch(made[0], [made[1]], torch.ones(1), labels, torch.arange(count))


# specs


def test_a_sum_with_options() -> None:
    objective = read("kd:temperature=2.5:weight=0.9 + ce:weight=1e-1:smoothing=0.1+dkd:beta=1e+0")
    kd, ce, dkd = objective.losses
    assert isinstance(kd, Kd)
    assert isinstance(ce, Ce)
    assert isinstance(dkd, Dkd)
    assert (kd.temperature, kd.weight, kd.student, kd.teacher) == (2.5, 0.9, "logits", "scores")
    assert (ce.weight, ce.smoothing, ce.student) == (0.1, 0.1, "logits")
    assert (dkd.beta, dkd.weight) == (1, 1)
    assert objective.labels == ["kd", "ce", "dkd"]


@pytest.mark.parametrize(
    ("spec", "names"),
    [
        ("kd", ("logits", "scores")),
        ("kd:student=parity", ("parity", "parity")),  # the teacher has one, too
        ("kd:student=depth", ("depth", "scores")),
        ("kd:student=depth:teacher=parity", ("depth", "parity")),
        ("kd:student=logits:0:teacher=/fc/Gemm:1", ("logits:0", "/fc/Gemm:1")),
        ("fitnets:student=layer", ("layer", "layer")),
        ("fitnets:teacher=layer", ("layer", "layer")),
        ("fitnets:student=a:teacher=b", ("a", "b")),
    ],
)
def test_which_values_are_meant(spec: str, names: tuple[str, str]) -> None:
    (loss,) = read(spec, teacher_kinds={"parity": "probabilities", "scores": "logits"}).losses
    assert isinstance(loss, (Kd, FitNets))
    assert (loss.student, loss.teacher) == names


def test_kinds_of_outputs() -> None:
    kinds: dict[str, Any] = {
        "student_kinds": {"logits": "log-probabilities"},
        "teacher_kinds": {"scores": "probabilities"},
    }
    kd, told = read("kd+kd:student-kind=logits", **kinds).losses
    assert isinstance(kd, Kd)
    assert isinstance(told, Kd)
    assert (kd.student_kind, kd.teacher_kind) == ("log-probabilities", "probabilities")
    assert (told.student_kind, told.teacher_kind) == ("logits", "probabilities")


@pytest.mark.parametrize(
    ("spec", "message", "hint"),
    [
        ("kld", "there is no loss 'kld'", "Did you mean 'kd'?"),
        ("", "there is no loss ''", "Known: "),
        ("kd+", "there is no loss 'kd\\+'", "Did you mean 'kd'?"),
        ("kd:temprature=2", "loss 'kd' has no option 'temprature'", "Did you mean 'temperature'?"),
        ("ce:temperature=2", "loss 'ce' has no option 'temperature'", ""),
        ("kd:temperature=hot", "'temperature' of loss 'kd' cannot be 'hot'", "a number"),
        ("kd:temperature=0", "'temperature' of loss 'kd' cannot be 0", "more than 0"),
        ("kd:temperature=nan", "cannot be nan", "finite"),
        ("kd:weight=-1", "'weight' of loss 'kd' cannot be -1", "at least 0"),
        ("ce:smoothing=2", "cannot be 2", "at most 1"),
        ("crd:student=a:dim=2.5", "'dim' of loss 'crd' cannot be '2.5'", "an integer"),
        ("box:scaled=maybe", "'scaled' of loss 'box' cannot be 'maybe'", "true or false"),
        ("box:confidence-start=x", "'confidence-start' of loss 'box'", "an integer"),
        ("kd:student-kind=odds", "'student-kind' of loss 'kd' cannot be 'odds'", "one of logits, probabilities"),
        ("kd:weight=1:weight=2", "option 'weight' is given twice", ""),
        ("kd:temperature", "'temperature' in 'kd:temperature' is no option", "name:option=value"),
        ("fitnets", "loss 'fitnets' compares inner tensors", "fitnets:student=NAME"),
    ],
)
def test_mistakes_are_explained(spec: str, message: str, hint: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        read(spec)
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("balance", "message"),
    [
        ("gradnrom", "there is no balance 'gradnrom'"),
        ("gradnorm:beta=1", "balance 'gradnorm' has no option 'beta'"),
        ("gradnorm:rate=0", "'rate' of balance 'gradnorm' cannot be 0"),
        ("static+uncertainty", "more than one balance"),
    ],
)
def test_mistakes_in_the_balance(balance: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read("kd+ce", balance=balance)


@pytest.mark.parametrize("name", [*LOSSES, *BALANCES])
def test_every_loss_says_its_formula_source_and_options(name: str) -> None:
    made = LOSSES.get(name) or BALANCES[name]
    text = "".join(one.__doc__ or "" for one in made.__mro__ if one.__module__.startswith("graphopt."))
    for field in dataclasses.fields(made):
        assert f"        {field.name}: " in text, field.name
    assert made.name == name


# the sum


def test_the_total_is_the_weighted_sum_and_parts_have_no_weight() -> None:
    given = batch({"logits": numbers(4, 3)}, {"scores": numbers(4, 3, seed=1)}, torch.tensor([0, 1, 2, 0]))
    objective = read("kd:weight=0.9+ce:weight=0.1")
    total, parts = objective(given)
    kd, ce = (one(given) for one in objective.losses)
    assert parts == {"kd": kd, "ce": ce}
    assert total.item() == pytest.approx(0.9 * kd.item() + 0.1 * ce.item())
    assert total.requires_grad
    assert not any(one.requires_grad for one in parts.values())


def test_labels_of_parts_are_unique() -> None:
    objective = read("kd+kd:student=b+kd:student=b:temperature=1+ce")
    assert objective.labels == ["kd:logits", "kd:b#1", "kd:b#2", "ce"]


def test_needs() -> None:
    needs = read("kd:teacher-number=1+fitnets:student=s:teacher=t+score:student=s:confidence=c").needs
    assert needs.student == {"logits", "s"}
    assert needs.teacher == {"scores", "t", "c"}
    assert needs.of(0) == {"scores", "t", "c"} - ({"scores"} - {name for _, name in needs.numbered if _ == -1})
    assert needs.of(1) == {"scores", "t", "c"}
    assert not needs.labels
    assert needs.mask
    assert read("kd:teacher-number=1").needs.of(0) == set()
    assert read("ce").needs.teacher == set()
    assert read("ce").needs.labels
    assert not read("at:student=a").needs.mask
    assert not read("mse:target=teacher").needs.labels
    assert read("mse").needs.labels


@pytest.mark.parametrize(
    ("spec", "top"),
    [
        ("kd:temperature=2", {"scores": 2.0}),
        ("kd:temperature=2+soft-ce:temperature=2+ce", {"scores": 2.0}),
        ("kd:temperature=2+soft-ce", {}),
        ("kd+dist", {}),
        ("kd+fitnets:student=a", {"scores": 4.0}),
        ("dkd", {}),
    ],
)
def test_where_the_largest_probabilities_are_enough(spec: str, top: dict[str, float]) -> None:
    assert read(spec).needs.top == top


def test_regressors_follow_the_seed_and_leave_torchs_generator_alone() -> None:
    given = batch({"a": numbers(4, 3)}, {"a": numbers(4, 7, seed=1)})
    made = []
    before = torch.random.get_rng_state()
    for seed in (0, 0, 1):
        objective = read("fitnets:student=a+fitnets:student=a:weight=2", seed=seed)
        objective.prepare(given)
        made.append({name: one.detach().clone() for name, one in objective.named_parameters()})
        assert torch.equal(before, torch.random.get_rng_state())
    assert [one.shape for one in made[0].values()] == [(7, 3), (7,)] * 2
    assert all(torch.equal(made[0][name], made[1][name]) for name in made[0])
    assert not any(torch.equal(made[0][name], made[2][name]) for name in made[0])
    weights = [one for one in made[0].values() if one.ndim == 2]
    assert not torch.equal(*weights)


def test_seeds_reach_what_draws() -> None:
    (loss,) = read("mgd:student=a", seed=3).losses
    assert getattr(loss, "seed") == 3  # noqa: B009 - of a subclass


def test_half_precision_outside_does_not_reach_the_losses() -> None:
    given = batch({"logits": numbers(4, 3)}, {"scores": numbers(4, 3, seed=1)})
    objective = read("sp:student=logits:teacher=scores+kd")
    expected, _ = objective(given)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found, _ = objective(given)
    assert found.dtype == torch.float32
    assert found.item() == expected.item()


# tasks


def test_losses_of_one_value_are_one_task_unless_told() -> None:
    assert read("kd+ce+kd:student=b").tasks == ["logits", "b"]
    assert read("kd+ce:task=labels+kd:student=b:task=labels").tasks == ["logits", "labels"]


def two_tasks(balance: str) -> tuple[Objective, Batch]:
    objective = parse("ce:student=a:column=0+mse:student=b:column=1:weight=3", balance=balance)
    labels = torch.tensor([[0.0, 0.5], [1.0, -2.0]])
    given = batch({"a": numbers(2, 3), "b": numbers(2, 1, seed=1)}, {"a": numbers(2, 3)}, labels)
    return objective, given


def test_uncertainty_weighs_and_learns() -> None:
    objective = parse("mse:student=a+ce:student=b", balance="uncertainty")
    log_variance = objective.balance.log_variance
    assert isinstance(log_variance, nn.Parameter)
    with torch.no_grad():
        log_variance.copy_(torch.tensor([0.4, -0.7]))
    losses = [torch.tensor(2.0), torch.tensor(5.0)]
    expected = 0.5 * np.exp(-0.4) * 2 + 0.4 / 2 + np.exp(0.7) * 5 - 0.7 / 2
    total = objective.balance(losses)
    assert total.item() == pytest.approx(expected, rel=1e-6)
    (gradient,) = torch.autograd.grad(total, [log_variance])
    assert gradient.tolist() == pytest.approx([-0.5 * np.exp(-0.4) * 2 + 0.5, -np.exp(0.7) * 5 + 0.5], rel=1e-5)
    assert len(list(objective.parameters())) == 1


class TwoHeads(nn.Module):
    """Two linear heads on one layer."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Linear(3, 4)
        self.first = nn.Linear(4, 2)
        self.second = nn.Linear(4, 1)

    def forward(self, inputs: Tensor) -> dict[str, Tensor]:
        hidden = self.trunk(inputs).tanh()
        return {"a": self.first(hidden), "b": self.second(hidden)}


def gradnorm_step(alpha: float, rate: float) -> tuple[Objective, TwoHeads, Batch]:
    torch.manual_seed(0)
    model = TwoHeads()
    objective = Objective(
        [Mse(student="a", teacher="a", target="teacher"), Mse(student="b", teacher="b", target="teacher", weight=10)],
        BALANCES["gradnorm"](alpha=alpha, rate=rate),
    )
    objective.share(model.parameters())
    teacher = {"a": torch.randn(5, 2), "b": torch.randn(5, 1)}
    given = Batch(model(torch.randn(5, 3)), [teacher], torch.ones(1), None, torch.arange(5))
    return objective, model, given


def test_gradnorm_by_hand() -> None:
    objective, model, given = gradnorm_step(1.5, 0.1)
    losses = [weight * one(given) for weight, one in zip((1, 10), objective.losses, strict=True)]
    norms = np.array(
        [torch.autograd.grad(one, model.trunk.weight, retain_graph=True)[0].norm().item() for one in losses]
    )
    total, _ = objective(given)
    assert total.item() == pytest.approx(sum(one.item() for one in losses), rel=1e-6)  # weights of 1, at first
    expected = 1 - 0.1 * np.sign(norms - norms.mean()) * norms / norms.mean()
    expected *= 2 / expected.sum()
    weights = objective.balance.weights
    assert isinstance(weights, Tensor)
    assert weights.numpy() == pytest.approx(expected, rel=1e-5)
    assert weights[1] < 1 < weights[0]
    total.backward()
    assert all(one.grad is not None for one in model.parameters())
    assert "balance.initial" in objective.state_dict()
    assert not list(objective.parameters())
    again, _ = objective.eval()(given)
    assert again.item() == pytest.approx((weights.numpy() * [one.item() for one in losses]).sum(), rel=1e-6)
    assert weights.numpy() == pytest.approx(expected, rel=1e-5)


def test_gradnorm_makes_tasks_pull_alike() -> None:
    objective, model, given = gradnorm_step(0.0, 0.004)
    for _ in range(600):
        objective(given)
    pulls: list[Tensor] = []
    weights = objective.balance.weights
    assert isinstance(weights, Tensor)
    for weight, scale, one in zip(weights, (1, 10), objective.losses, strict=True):
        pulls.append(
            float(weight) * torch.autograd.grad(scale * one(given), model.trunk.weight, retain_graph=True)[0].norm()
        )
    assert pulls[0].item() == pytest.approx(pulls[1].item(), rel=0.15)
    assert weights.sum().item() == pytest.approx(2, rel=1e-5)


def test_gradnorm_without_a_shared_layer() -> None:
    objective, _, given = gradnorm_step(1.5, 0.1)
    objective.share([])
    with pytest.raises(UsageError, match="all tasks share; there is none"):
        objective(given)


def test_static_weights_of_tasks() -> None:
    labels = torch.tensor([[0, 5], [1, 7]])
    given = batch({"a": numbers(2, 3), "b": numbers(2, 1, seed=1)}, {"a": numbers(2, 3)}, labels)
    objective = parse("ce:student=a:column=0+mse:student=b:column=1:weight=3", balance="static")
    total, parts = objective(given)
    assert total.item() == pytest.approx(parts["ce"].item() + 3 * parts["mse"].item(), rel=1e-6)
    b = numbers(2, 1, seed=1)[:, 0]
    assert parts["mse"].item() == pytest.approx(((b - [5, 7]) ** 2).mean(), rel=1e-6)


def test_losses_do_not_load_onnxruntime() -> None:
    code = "import graphopt.distillation.losses, sys; print('onnxruntime' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
