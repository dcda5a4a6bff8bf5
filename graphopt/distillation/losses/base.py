"""What a loss is: a module whose dataclass fields are its options."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from graphopt.distillation.batch import Batch, TopK
from graphopt.distillation.losses.options import Configured, option
from graphopt.distillation.losses.shapes import rows, spread, wide
from graphopt.errors import UsageError

__all__ = ["Loss", "TaughtLoss", "Teaching"]


@dataclasses.dataclass(eq=False, kw_only=True)
class Loss(Configured):
    """Base of all losses. Their fields are their options, in specs too: ``kd:temperature=4:weight=0.9``.

    Attributes:
        is_regression: Whether the loss is that of a Gaussian, which uncertainty weights halve.
        is_inner: Whether it compares inner tensors, for which no output can stand in.
        takes_top: Whether the largest probabilities of the teacher are enough.
        takes_mask: Whether it leaves out tokens that the mask does not have.
        weight: What it is multiplied by in the sum.
        student: Name of the student's value.
        task: The losses of one task are balanced together; the student's value where this is empty.

    Raises:
        UsageError: An option is out of its range.
    """

    noun: ClassVar[str] = "loss"
    is_regression: ClassVar[bool] = False
    is_inner: ClassVar[bool] = False
    takes_top: ClassVar[bool] = False
    takes_mask: ClassVar[bool] = False

    weight: float = option(1.0, least=0)
    student: str = ""
    task: str = ""

    @property
    def teacher_names(self) -> Sequence[tuple[int, str]]:
        """The teacher's values it looks at, each with the number of the teacher, or -1 for all that have it."""
        return ()

    @property
    def needs_labels(self) -> bool:
        """Whether the data must have labels."""
        return False

    def prepare(self, batch: Batch) -> None:
        """Makes the parameters whose shapes depend on the features, from a first batch. Most have none."""

    def forward(self, batch: Batch) -> Tensor:
        """The loss of a batch, a scalar, before ``weight``.

        Raises:
            UsageError: The batch lacks a value, or the shapes do not fit.
        """
        raise NotImplementedError

    def value(self, batch: Batch) -> Tensor:
        """The student's value, at least in single precision."""
        if self.student not in batch.student:
            raise UsageError(
                f"loss '{self.name}': the student has no value '{self.student}'",
                hint=f"It has {', '.join(sorted(batch.student))}. Write {self.name}:student=NAME.",
            )
        return wide(batch.student[self.student])

    def labels(self, batch: Batch, column: int = -1) -> Tensor:
        """The labels, or one column of them.

        Raises:
            UsageError: The data have none, or not that column.
        """
        if batch.labels is None:
            raise UsageError(
                f"loss '{self.name}' needs labels, and the data have none",
                hint="Give data with labels, or a loss that learns from the teacher alone, such as kd.",
            )
        if column < 0:
            return batch.labels
        if batch.labels.ndim < 2 or column >= batch.labels.shape[1]:
            raise UsageError(
                f"loss '{self.name}': labels of shape {tuple(batch.labels.shape)} have no column {column}",
                hint="Columns are counted from 0, along the second axis.",
            )
        return batch.labels[:, column]

    def mismatch(self, student: Sequence[int], other: Sequence[int], what: str = "teacher's value") -> UsageError:
        """The error that two shapes do not fit."""
        return UsageError(
            f"loss '{self.name}': the student's '{self.student}' has shape {tuple(student)}, "
            f"the {what} {tuple(other)}: they do not fit",
            hint="Choose other values (student=NAME, teacher=NAME), or say where channels or classes lie (axis=1).",
        )


@dataclasses.dataclass(frozen=True)
class Teaching:
    """The value of one teacher.

    Attributes:
        number: Which teacher.
        value: What it gave.
        weight: A scalar, or ``(B,)``; over the teachers of a loss they add up to 1.
    """

    number: int
    value: Tensor | TopK
    weight: Tensor

    def at_rows(self, shape: Sequence[int], mask: Tensor | None) -> Tensor:
        """The weight of each row ``(N,)`` of a value ``(B, ..., C)`` of that shape; a scalar if all have the same."""
        if self.weight.ndim == 0:
            return self.weight
        return rows(spread(self.weight, shape[:-1]).unsqueeze(-1), mask)[:, 0]


@dataclasses.dataclass(eq=False, kw_only=True)
class TaughtLoss(Loss):
    """A loss that compares with teachers.

    Several teachers that have the value are mixed by the weights of the batch.

    Attributes:
        teacher: Name of the teacher's value.
        teacher_number: The only teacher to follow, from 0; -1 for all.
    """

    teacher: str = ""
    teacher_number: int = option(-1, least=-1)

    @property
    def teacher_names(self) -> Sequence[tuple[int, str]]:
        return [(self.teacher_number, self.teacher)]

    def teachings(self, batch: Batch, name: str | None = None) -> list[Teaching]:
        """The values of the teachers that have it.

        Args:
            batch: Of one step.
            name: Of the value; ``teacher`` if None.

        Raises:
            UsageError: No teacher has it.
        """
        name = self.teacher if name is None else name
        every = range(len(batch.teachers))
        asked = every if self.teacher_number < 0 else [k for k in every if k == self.teacher_number]
        numbers = [k for k in asked if name in batch.teachers[k]]
        if not numbers:
            known = sorted({one for k in asked for one in batch.teachers[k]})
            who = "no teacher has" if self.teacher_number < 0 else f"teacher {self.teacher_number} has no"
            raise UsageError(
                f"loss '{self.name}': {who} value '{name}'",
                hint=f"Known: {', '.join(known)}." if known else f"There are {len(batch.teachers)} teachers.",
            )
        weights = wide(batch.weights[..., numbers])
        weights = weights / weights.sum(-1, keepdim=True) if len(numbers) > 1 else torch.ones_like(weights)
        return [Teaching(k, batch.teachers[k][name], weights[..., i]) for i, k in enumerate(numbers)]

    def full(self, teaching: Teaching) -> Tensor:
        """The value of a teacher, which must not be its largest probabilities alone.

        Raises:
            UsageError: It is.
        """
        if isinstance(teaching.value, TopK):
            raise UsageError(
                f"loss '{self.name}' needs all logits of the teacher; the cache kept the largest probabilities",
                hint="Cache full logits, or use kd or soft-ce.",
            )
        return wide(teaching.value)

    def mean(self, batch: Batch, name: str | None = None) -> Tensor:
        """The weighted mean of the teachers' values."""
        parts = [(self.full(one), one.weight) for one in self.teachings(batch, name)]
        for value, _ in parts[1:]:
            if value.shape != parts[0][0].shape:
                raise self.mismatch(parts[0][0].shape, value.shape, "other teacher's value")
        return torch.stack([spread(weight, value.shape) * value for value, weight in parts]).sum(0)
