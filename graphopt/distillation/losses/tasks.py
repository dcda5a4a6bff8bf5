"""Losses against labels, and against a teacher's quantities."""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from graphopt.distillation.batch import Batch
from graphopt.distillation.losses.base import Loss, TaughtLoss
from graphopt.distillation.losses.classes import IGNORED, class_labels
from graphopt.distillation.losses.options import option
from graphopt.distillation.losses.shapes import class_axis, row_mean, rows
from graphopt.torch.outputs import Kind, log_probabilities

__all__ = ["L1", "Bce", "Ce", "Huber", "Mse", "binary_entropy"]

_SMALL = 1e-7


@dataclasses.dataclass(eq=False, kw_only=True)
class Ce(Loss):
    """-(1 - e) log p_y - e mean_c log p_c, the mean over rows; e is the smoothing.

    Values ``(B, C)``, tokens ``(B, T, C)`` (those the mask has), images ``(B, C, H, W)``. Labels are numbers of
    classes, or, in floats and of the shape of the values, probabilities.

    Source: Szegedy et al., arXiv 1512.00567, section 7, for the smoothing.

    Attributes:
        student_kind: What the student's value is; ``values`` count as logits.
        smoothing: Of the labels.
        ignore: The label of rows that do not count.
        column: Column of the labels; -1 if they are one number a row.
        axis: Where the classes lie; 0 for the second axis of images, the last of anything else.
    """

    name: ClassVar[str] = "ce"
    takes_mask: ClassVar[bool] = True

    student_kind: Kind = "logits"
    smoothing: float = option(0.0, least=0, most=1)
    ignore: int = IGNORED
    column: int = option(-1, least=-1)
    axis: int = 0

    @property
    def needs_labels(self) -> bool:
        return True

    def forward(self, batch: Batch) -> Tensor:
        value = self.value(batch)
        axis = class_axis(value.ndim, self.axis)
        flat = log_probabilities(rows(value.movedim(axis, -1), batch.mask), self.student_kind)
        labels = self.labels(batch, self.column)
        if labels.is_floating_point() and labels.shape == value.shape:
            soft = rows(labels.to(value.dtype).movedim(axis, -1), batch.mask)
            return F.cross_entropy(flat, soft, label_smoothing=self.smoothing, reduction="sum") / max(len(flat), 1)
        picked = class_labels(self, batch, flat, self.column, self.ignore)
        loss = F.cross_entropy(flat, picked, ignore_index=self.ignore, label_smoothing=self.smoothing, reduction="sum")
        return loss / (picked != self.ignore).sum().clamp(min=1)


@dataclasses.dataclass(eq=False, kw_only=True)
class _TargetLoss(TaughtLoss):
    """The mean over elements of an error against labels or teachers, of tokens ``(B, T, C)`` those that the mask has.

    Attributes:
        target: ``labels``, or ``teacher``: the weighted mean of the teachers' values.
        column: Column of the labels; -1 for all.
    """

    takes_mask: ClassVar[bool] = True

    target: Literal["labels", "teacher"] = "labels"
    column: int = option(-1, least=-1)

    @property
    def needs_labels(self) -> bool:
        return self.target == "labels"

    @property
    def teacher_names(self) -> list[tuple[int, str]]:
        return [] if self.needs_labels else list(super().teacher_names)

    def errors(self, student: Tensor, target: Tensor) -> Tensor:
        """Of each element."""
        raise NotImplementedError

    def desired(self, batch: Batch) -> Tensor:
        """Labels or the teachers' values."""
        return self.labels(batch, self.column) if self.needs_labels else self.mean(batch)

    def forward(self, batch: Batch) -> Tensor:
        value = self.value(batch)
        target = self.desired(batch).to(value.dtype)
        if target.numel() != value.numel() or len(target) != len(value):
            raise self.mismatch(value.shape, target.shape, "labels" if self.needs_labels else "teacher's value")
        errors = self.errors(value, target.reshape(value.shape))
        return row_mean(rows(errors.unsqueeze(-1) if errors.ndim == 1 else errors, batch.mask).mean(-1))


@dataclasses.dataclass(eq=False, kw_only=True)
class Bce(_TargetLoss):
    """-y log p - (1 - y) log(1 - p), p = sigmoid(z): several classes at once, each there or not.

    Attributes:
        student_kind: ``probabilities`` after a sigmoid; ``logits`` and ``values`` count as before it.
        teacher_kind: Likewise.
    """

    name: ClassVar[str] = "bce"

    student_kind: Kind = "logits"
    teacher_kind: Kind = "logits"

    def errors(self, student: Tensor, target: Tensor) -> Tensor:
        return binary_entropy(student, target, self.student_kind)

    def desired(self, batch: Batch) -> Tensor:
        target = super().desired(batch)
        return target if self.needs_labels or self.teacher_kind == "probabilities" else target.sigmoid()


@dataclasses.dataclass(eq=False, kw_only=True)
class Mse(_TargetLoss):
    """(y - z)^2, the mean over elements."""

    name: ClassVar[str] = "mse"
    is_regression: ClassVar[bool] = True

    def errors(self, student: Tensor, target: Tensor) -> Tensor:
        return (target - student).square()


@dataclasses.dataclass(eq=False, kw_only=True)
class L1(_TargetLoss):
    """|y - z|, the mean over elements."""

    name: ClassVar[str] = "l1"
    is_regression: ClassVar[bool] = True

    def errors(self, student: Tensor, target: Tensor) -> Tensor:
        return (target - student).abs()


@dataclasses.dataclass(eq=False, kw_only=True)
class Huber(_TargetLoss):
    """(y - z)^2 / 2 where |y - z| < delta, else delta (|y - z| - delta / 2); the mean over elements.

    Source: Huber, "Robust estimation of a location parameter", 1964.

    Attributes:
        delta: Where it turns linear.
    """

    name: ClassVar[str] = "huber"
    is_regression: ClassVar[bool] = True

    delta: float = option(1.0, above=0)

    def errors(self, student: Tensor, target: Tensor) -> Tensor:
        return F.huber_loss(student, target, reduction="none", delta=self.delta)


def binary_entropy(student: Tensor, target: Tensor, kind: Kind) -> Tensor:
    """-y log p - (1 - y) log(1 - p) of each element, of logits or of probabilities after a sigmoid."""
    if kind == "probabilities":  # not F.binary_cross_entropy: it refuses to run under autocast
        student = torch.logit(student, eps=_SMALL)
    return F.binary_cross_entropy_with_logits(student, target, reduction="none")
