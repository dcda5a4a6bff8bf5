"""A weighted sum of losses, as one module."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, TypeVar

import torch
from torch import Tensor, nn

from graphopt.distillation.batch import Batch
from graphopt.distillation.losses.balance import Balance, GradNorm, Static, Uncertainty
from graphopt.distillation.losses.base import Loss
from graphopt.distillation.losses.contrast import Crd
from graphopt.distillation.losses.detection import Box, Score
from graphopt.distillation.losses.features import AttentionTransfer, FitNets, Hidden, Mgd
from graphopt.distillation.losses.logits import Dist, Dkd, Kd, LogitMse, LogitStd, SoftCe
from graphopt.distillation.losses.options import configured, split
from graphopt.distillation.losses.relations import Rkd, SimilarityPreserving
from graphopt.distillation.losses.tasks import L1, Bce, Ce, Huber, Mse
from graphopt.errors import UsageError
from graphopt.torch.outputs import Kind

__all__ = ["BALANCES", "LOSSES", "Needs", "Objective", "parse"]

T = TypeVar("T")

LOSSES: Final[Mapping[str, type[Loss]]] = {
    made.name: made
    for made in (
        *(Kd, SoftCe, LogitMse, LogitStd, Dkd, Dist),
        *(FitNets, AttentionTransfer, Hidden, Mgd),
        *(SimilarityPreserving, Rkd, Crd),
        *(Ce, Bce, Mse, L1, Huber),
        *(Box, Score),
    )
}
"""Every loss, by its name in specs."""

BALANCES: Final[Mapping[str, type[Balance]]] = {made.name: made for made in (Static, Uncertainty, GradNorm)}
"""Every way to add up tasks, by its name in specs."""


@dataclasses.dataclass(frozen=True)
class Needs:
    """What an objective looks at.

    Attributes:
        student: Names of the student's values.
        teacher: Names of teachers' values.
        numbered: The same, each with the number of the teacher, or -1 for all teachers that have it.
        labels: Whether the data must have labels.
        mask: Whether a mask of tokens, should the data have one, matters.
        top: The teachers' values of which the largest probabilities are enough, and the temperature to keep them at.
    """

    student: frozenset[str]
    teacher: frozenset[str]
    numbered: frozenset[tuple[int, str]]
    labels: bool
    mask: bool
    top: Mapping[str, float]

    def of(self, number: int) -> frozenset[str]:
        """The values to take from a teacher, as far as it has them."""
        return frozenset(name for one, name in self.numbered if one in (-1, number))


class Objective(nn.Module):
    """The sum of losses, each times its weight, balanced by task.

    Args:
        losses: At least one.
        balance: How tasks add up; as they are if None.
        seed: Of what trained regressors start from.

    Attributes:
        losses: The losses, in order.
        balance: How tasks add up.
        labels: What each loss is called in results: its name, with the student's value where several have the same one.
        tasks: Their names; the losses of one are added before balancing.
    """

    losses: nn.ModuleList

    def __init__(self, losses: Sequence[Loss], balance: Balance | None = None, seed: int = 0) -> None:
        super().__init__()
        if not losses:
            raise UsageError("there is no loss", hint=f"Known: {', '.join(LOSSES)}.")
        self.losses = nn.ModuleList(losses)
        self.seed = seed
        self.labels = _labels(losses)
        self._task_of = [one.task or one.student for one in losses]
        self.tasks = list(dict.fromkeys(self._task_of))
        self.balance = balance or Static()
        regressions = [all(one.is_regression for one in self._of(losses, task)) for task in self.tasks]
        self.balance.start(self.tasks, regressions)

    @property
    def needs(self) -> Needs:
        """What the batches must hold."""
        losses = self._losses()
        numbered = frozenset(pair for one in losses for pair in one.teacher_names)
        return Needs(
            student=frozenset(one.student for one in losses),
            teacher=frozenset(name for _, name in numbered),
            numbered=numbered,
            labels=any(one.needs_labels for one in losses),
            mask=any(one.takes_mask for one in losses),
            top=_top(losses),
        )

    def prepare(self, batch: Batch) -> None:
        """Makes the parameters whose shapes depend on features: call it once, before the optimizer is made.

        What they start from depends on the seed of the objective alone, and torch's own generator stays as it was.

        Args:
            batch: The first, or any; nothing of it is kept.

        Raises:
            UsageError: A value is missing, or shapes do not fit.
        """
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            for place, one in enumerate(self._losses()):
                torch.default_generator.manual_seed(self.seed + place)  # torch.manual_seed would touch those of GPUs
                one.prepare(batch)
        self.to(batch.weights.device)

    def share(self, parameters: Iterable[nn.Parameter]) -> None:
        """Tells the student's parameters, in the order of its layers, which the balance ``gradnorm`` needs."""
        self.balance.share(parameters)

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The total, and each loss by its label, before its weight and without gradients; all are scalars.

        Raises:
            UsageError: A value is missing, shapes do not fit, or a label is no class.
        """
        with torch.autocast(batch.weights.device.type, enabled=False):
            values = [one(batch) for one in self._losses()]
            weighted = [one.weight * value for one, value in zip(self._losses(), values, strict=True)]
            tasks = [torch.stack(self._of(weighted, task)).sum() for task in self.tasks]
            total = self.balance(tasks)
        return total, {label: value.detach() for label, value in zip(self.labels, values, strict=True)}

    def _losses(self) -> list[Loss]:
        return [one for one in self.losses if isinstance(one, Loss)]

    def _of(self, values: Sequence[T], task: str) -> list[T]:
        return [value for value, one in zip(values, self._task_of, strict=True) if one == task]


def parse(
    spec: str,
    *,
    default_student: str = "",
    default_teacher: str = "",
    student_kinds: Mapping[str, Kind] | None = None,
    teacher_kinds: Mapping[str, Kind] | None = None,
    balance: str = "static",
    seed: int = 0,
) -> Objective:
    """Reads a sum of losses: ``kd:temperature=4:weight=0.9+ce:weight=0.1``.

    A loss on outputs that names none takes the default ones; one that names the student's alone takes the teacher's of
    the same name, if there is one. A loss on inner tensors must name one; the other model's has the same name
    unless told.

    Args:
        spec: Names of :data:`LOSSES` with options, joined by ``+``.
        default_student: The student's output that is meant where none is named.
        default_teacher: The teacher's.
        student_kinds: What the student's outputs are, by name; logits if not there. Options ``student-kind`` and
            ``teacher-kind`` overrule it.
        teacher_kinds: What teachers' outputs are.
        balance: One of :data:`BALANCES`, with options: ``gradnorm:alpha=1.5``.
        seed: Of regressors, masks and draws.

    Raises:
        UsageError: No such loss or option, a value that the option does not take, or an inner tensor that is not named.
    """
    kinds = (student_kinds or {}, teacher_kinds or {})
    losses = [
        configured(LOSSES, name, raw, _defaults(name, raw, (default_student, default_teacher), kinds) | {"seed": seed})
        for name, raw in split(spec)
    ]
    [(name, raw), *more] = split(balance)
    if more:
        raise UsageError(f"'{balance}' is more than one balance", hint=f"Known: {', '.join(BALANCES)}.")
    return Objective(losses, configured(BALANCES, name, raw, {}), seed)


def _defaults(
    name: str, raw: Mapping[str, str], outputs: tuple[str, str], kinds: tuple[Mapping[str, Kind], Mapping[str, Kind]]
) -> dict[str, Any]:
    given = raw.get("student", ""), raw.get("teacher", "")
    if name in LOSSES and LOSSES[name].is_inner:
        if not any(given):
            raise UsageError(
                f"loss '{name}' compares inner tensors, and none is named",
                hint=f"Write {name}:student=NAME:teacher=NAME.",
            )
        student, teacher = given[0] or given[1], given[1] or given[0]
    else:
        student = given[0] or outputs[0]
        teacher = given[1] or (given[0] if given[0] in kinds[1] else outputs[1])
    return {
        "student": student,
        "teacher": teacher,
        "student_kind": kinds[0].get(student, "logits"),
        "teacher_kind": kinds[1].get(teacher, "logits"),
    }


def _labels(losses: Sequence[Loss]) -> list[str]:
    names = collections.Counter(one.name for one in losses)
    labels = [one.name if names[one.name] == 1 else f"{one.name}:{one.student}" for one in losses]
    repeated = collections.Counter(labels)
    places = [labels[:place].count(label) + 1 for place, label in enumerate(labels)]
    return [label if repeated[label] == 1 else f"{label}#{place}" for label, place in zip(labels, places, strict=True)]


def _top(losses: Sequence[Loss]) -> dict[str, float]:
    """Names that only losses look at for which the largest probabilities are enough, all at one temperature."""
    found: dict[str, set[float | None]] = collections.defaultdict(set)
    for one in losses:
        for _, name in one.teacher_names:
            found[name].add(getattr(one, "temperature", None) if one.takes_top else None)
    return {
        name: temperature
        for name, (temperature, *more) in ((name, tuple(values)) for name, values in found.items())
        if temperature is not None and not more
    }
