"""Losses on the scores of classes.

Throughout, z are logits ``(B, C)`` or ``(B, T, C)`` or ``(B, C, H, W)``, p = softmax(z / T) along the classes, s the
student, t the teacher; means are over rows (samples, tokens that the mask has, pixels), never over classes unless said.
Outputs that are probabilities or their logarithms stand for logits log p, since a softmax ignores a constant.
Of several teachers, p_t = sum_k w_k p_k.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from graphopt.distillation.batch import Batch, TopK
from graphopt.distillation.losses.base import TaughtLoss, Teaching
from graphopt.distillation.losses.classes import class_labels
from graphopt.distillation.losses.options import option
from graphopt.distillation.losses.shapes import class_axis, row_mean, rows, spread
from graphopt.errors import UsageError
from graphopt.torch.outputs import Kind, log_probabilities

__all__ = ["Dist", "Dkd", "Kd", "LogitLoss", "LogitMse", "LogitStd", "SoftCe"]

_SMALL = 1e-7


@dataclasses.dataclass(eq=False, kw_only=True)
class LogitLoss(TaughtLoss):
    """A loss between the scores of two models.

    Attributes:
        student_kind: What the student's value is; ``values`` count as logits.
        teacher_kind: What the teacher's is.
        axis: Where the classes lie; 0 for the second axis of images, the last of anything else.
    """

    takes_mask: ClassVar[bool] = True

    student_kind: Kind = "logits"
    teacher_kind: Kind = "logits"
    axis: int = 0

    def student_rows(self, batch: Batch) -> Tensor:
        """Logits (or log p) of the student, ``(N, C)``."""
        value = self.value(batch)
        return rows(value.movedim(class_axis(value.ndim, self.axis), -1), batch.mask)

    def teacher_rows(self, batch: Batch, like: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Logits of each teacher, ``(N, C)`` as ``like``, and its weight, ``(N,)`` or a scalar."""
        return [self._rows(batch, one, like) for one in self.teachings(batch)]

    def _rows(self, batch: Batch, teaching: Teaching, like: Tensor) -> tuple[Tensor, Tensor]:
        value = self.full(teaching)
        value = value.movedim(class_axis(value.ndim, self.axis), -1)
        flat = rows(value, batch.mask)
        if flat.shape != like.shape:
            raise self.mismatch(like.shape, flat.shape)
        return flat, teaching.at_rows(value.shape, batch.mask)

    def mixture(self, teachers: Sequence[tuple[Tensor, Tensor]], temperature: float) -> Tensor:
        """log p_t, ``(N, C)``, of teachers' logits and weights."""
        logs = [log_probabilities(flat, self.teacher_kind, temperature) for flat, _ in teachers]
        return _mixed(logs, [weight for _, weight in teachers])


@dataclasses.dataclass(eq=False, kw_only=True)
class _Divergence(LogitLoss):
    """T^2 times the mean over rows of a measure that takes the teacher's largest probabilities, too.

    Of those, all other classes are one bin, in which the student has what is left of its own probabilities at the same
    temperature; with k = C nothing is in it. Several teachers of which one keeps only those are compared one by one,
    and the measures are averaged: for the student's gradient that is the same as mixing them.

    Attributes:
        temperature: What logits are divided by.
    """

    takes_top: ClassVar[bool] = True

    temperature: float = option(1.0, above=0)

    def measure(self, student: Tensor, target: Tensor) -> Tensor:
        """``(N,)``, of log p_s and p_t, each ``(N, C)``."""
        raise NotImplementedError

    def forward(self, batch: Batch) -> Tensor:
        flat = self.student_rows(batch)
        student = log_probabilities(flat, self.student_kind, self.temperature)
        teachings = self.teachings(batch)
        if any(isinstance(one.value, TopK) for one in teachings):
            loss = torch.stack([self._single(batch, one, student) for one in teachings]).sum(0)
        else:
            target = self.mixture(self.teacher_rows(batch, flat), self.temperature).exp()
            loss = self.measure(_finite(student), target)
        return self.temperature**2 * row_mean(loss)

    def _single(self, batch: Batch, teaching: Teaching, student: Tensor) -> Tensor:
        if not isinstance(teaching.value, TopK):
            flat, weight = self._rows(batch, teaching, student)
            target = log_probabilities(flat, self.teacher_kind, self.temperature).exp()
            return weight * self.measure(_finite(student), target)
        top = teaching.value
        if abs(top.temperature - self.temperature) > _SMALL:
            raise UsageError(
                f"loss '{self.name}' has temperature {self.temperature:g}; the teacher's probabilities were kept at "
                f"{top.temperature:g}",
                hint="Make the cache anew at this temperature, or cache full logits.",
            )
        folded, target = self._fold(student, top, batch.mask)
        return teaching.at_rows(top.probabilities.shape, batch.mask) * self.measure(_finite(folded), target)

    def _fold(self, student: Tensor, top: TopK, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """log p_s and p_t, ``(N, k + 1)``: the teacher's k classes, and all others together."""
        indices, kept = rows(top.indices, mask), rows(top.probabilities, mask).to(student.dtype)
        rest = rows(top.rest.unsqueeze(-1), mask).to(student.dtype).clamp(min=0)
        if len(indices) != len(student) or (indices.numel() and int(indices.max()) >= student.shape[1]):
            raise self.mismatch(student.shape, indices.shape, "teacher's largest probabilities")
        if indices.shape[1] == student.shape[1]:  # rounding may have left a rest that the student cannot match
            return student.gather(1, indices), kept
        others = student.scatter(1, indices, -torch.inf).logsumexp(1, keepdim=True)
        return torch.cat([student.gather(1, indices), others], 1), torch.cat([kept, rest], 1)


@dataclasses.dataclass(eq=False, kw_only=True)
class Kd(_Divergence):
    """T^2 KL(p_t || p_s), batchmean.

    Source: Hinton, Vinyals, Dean, "Distilling the knowledge in a neural network", arXiv 1503.02531. Their lambda is
    ``kd:weight=0.9+ce:weight=0.1``.
    """

    name: ClassVar[str] = "kd"
    temperature: float = option(4.0, above=0)

    def measure(self, student: Tensor, target: Tensor) -> Tensor:
        return F.kl_div(student, target, reduction="none").sum(-1)


@dataclasses.dataclass(eq=False, kw_only=True)
class SoftCe(_Divergence):
    """-T^2 sum_c p_t log p_s, batchmean: the gradient of ``kd``, without the entropy of the teacher taken off.

    Source: arXiv 1503.02531, section 2.
    """

    name: ClassVar[str] = "soft-ce"

    def measure(self, student: Tensor, target: Tensor) -> Tensor:
        return -(target * student).sum(-1)


@dataclasses.dataclass(eq=False, kw_only=True)
class LogitMse(LogitLoss):
    """The mean over rows and classes of (z_t - z_s)^2.

    Where one of the two is no logits, log p is compared of both. Of several teachers z_t = sum_k w_k z_k.

    Source: Ba, Caruana, "Do deep nets really need to be deep?", arXiv 1312.6184; Kim et al., arXiv 2105.08919, who sum
    over the classes: C times this.
    """

    name: ClassVar[str] = "logit-mse"
    is_regression: ClassVar[bool] = True

    def forward(self, batch: Batch) -> Tensor:
        flat = self.student_rows(batch)
        teachers = self.teacher_rows(batch, flat)
        if any("probabilities" in kind for kind in (self.student_kind, self.teacher_kind)):
            flat = log_probabilities(flat, self.student_kind)
            teachers = [(log_probabilities(one, self.teacher_kind), weight) for one, weight in teachers]
        target = torch.stack([spread(weight, one.shape) * one for one, weight in teachers]).sum(0)
        return row_mean((target - flat).square().mean(-1))


@dataclasses.dataclass(eq=False, kw_only=True)
class LogitStd(LogitLoss):
    """T^2 KL between the softmax of z-scored logits: z becomes (z - mean(z)) / std(z) / T along the classes; batchmean.

    The student need not match the size of the teacher's logits, only their order and relations. The standard deviation
    is that of the population, as in the paper (its code takes the sample's).

    Source: Sun et al., "Logit standardization in knowledge distillation", arXiv 2403.01369.

    Attributes:
        temperature: What standardized logits are divided by.
    """

    name: ClassVar[str] = "logit-std"
    temperature: float = option(2.0, above=0)

    def forward(self, batch: Batch) -> Tensor:
        flat = self.student_rows(batch)
        teachers = self.teacher_rows(batch, flat)
        logs = [self._log(one, self.teacher_kind) for one, _ in teachers]
        student = self._log(flat, self.student_kind)
        target = _mixed(logs, [weight for _, weight in teachers])
        return self.temperature**2 * row_mean(F.kl_div(student, target.exp(), reduction="none").sum(-1))

    def _log(self, flat: Tensor, kind: Kind) -> Tensor:
        return torch.log_softmax(_standardized(log_probabilities(flat, kind)) / self.temperature, -1)


@dataclasses.dataclass(eq=False, kw_only=True)
class Dkd(LogitLoss):
    """T^2 (alpha KL(b_t || b_s) + beta KL(q_t || q_s)), batchmean; needs labels y.

    b = (p_y, 1 - p_y), and q is the softmax of the logits over T of all classes but y. Rows labelled -100 do not count.
    The paper lets the weight rise over the first epochs.

    Source: Zhao et al., "Decoupled knowledge distillation", arXiv 2203.08679.

    Attributes:
        temperature: What logits are divided by.
        alpha: Weight of the target class's part.
        beta: Weight of the other classes' part.
        column: Column of the labels; -1 if they are one number a row.
    """

    name: ClassVar[str] = "dkd"
    temperature: float = option(4.0, above=0)
    alpha: float = option(1.0, least=0)
    beta: float = option(8.0, least=0)
    column: int = option(-1, least=-1)

    @property
    def needs_labels(self) -> bool:
        return True

    def forward(self, batch: Batch) -> Tensor:
        flat = self.student_rows(batch)
        labels = class_labels(self, batch, flat, self.column)
        counted = labels != -100
        student = log_probabilities(flat, self.student_kind, self.temperature)[counted]
        target = self.mixture(self.teacher_rows(batch, flat), self.temperature)[counted]
        picked = F.one_hot(labels[counted], flat.shape[1]).bool()
        binary, others = zip(*(_decoupled(one, picked) for one in (student, target)), strict=True)
        first, second = (F.kl_div(one, other.exp(), reduction="none").sum(-1) for one, other in (binary, others))
        return self.temperature**2 * row_mean(self.alpha * first + self.beta * second)


@dataclasses.dataclass(eq=False, kw_only=True)
class Dist(LogitLoss):
    """T^2 (beta mean_i (1 - r(p_s[i, :], p_t[i, :])) + gamma mean_j (1 - r(p_s[:, j], p_t[:, j]))).

    r is Pearson's correlation: over the classes of each row i, and over the rows of each class j. The cross-entropy of
    the paper is a loss of its own, ``ce``; T^2 is in the authors' code alone.

    Source: Huang et al., "Knowledge distillation from a stronger teacher", arXiv 2205.10536.

    Attributes:
        temperature: What logits are divided by.
        beta: Weight of the relations between classes.
        gamma: Weight of those within a class, between samples.
    """

    name: ClassVar[str] = "dist"
    temperature: float = option(1.0, above=0)
    beta: float = option(1.0, least=0)
    gamma: float = option(1.0, least=0)

    def forward(self, batch: Batch) -> Tensor:
        flat = self.student_rows(batch)
        student = log_probabilities(flat, self.student_kind, self.temperature).exp()
        target = self.mixture(self.teacher_rows(batch, flat), self.temperature).exp()
        between = row_mean(1 - _pearson(student, target))
        within = row_mean(1 - _pearson(student.T, target.T)) if len(flat) > 1 else between * 0
        return self.temperature**2 * (self.beta * between + self.gamma * within)


def _mixed(logs: Sequence[Tensor], weights: Sequence[Tensor]) -> Tensor:
    """log sum_k w_k p_k."""
    if len(logs) == 1:
        return logs[0]
    shares = [log + spread(weight, log.shape).log() for log, weight in zip(logs, weights, strict=True)]
    return torch.stack(shares).logsumexp(0)


def _finite(log: Tensor) -> Tensor:
    return log.clamp(min=torch.finfo(log.dtype).min)  # 0 * -inf would be NaN where the teacher has nothing either


def _standardized(logits: Tensor) -> Tensor:
    centred = logits - logits.mean(-1, keepdim=True)
    return centred / centred.square().mean(-1, keepdim=True).clamp(min=_SMALL**2).sqrt()


def _decoupled(log: Tensor, picked: Tensor) -> tuple[Tensor, Tensor]:
    """log (p_y, 1 - p_y) and log q, ``(N, 2)`` and ``(N, C - 1)``."""
    others = log[~picked].reshape(len(log), log.shape[1] - 1)
    rest = others.logsumexp(-1, keepdim=True)
    return torch.cat([log[picked].unsqueeze(-1), rest], -1), others - rest


def _pearson(first: Tensor, second: Tensor) -> Tensor:
    """Of each row, ``(N,)``."""
    return F.cosine_similarity(
        first - first.mean(-1, keepdim=True), second - second.mean(-1, keepdim=True), dim=-1, eps=1e-12
    )
