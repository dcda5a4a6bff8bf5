"""Contrastive representation distillation."""

from __future__ import annotations

import dataclasses
import math
from typing import ClassVar

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from graphopt.distillation.batch import Batch
from graphopt.distillation.losses.draws import hashes
from graphopt.distillation.losses.options import option
from graphopt.distillation.losses.relations import RelationLoss
from graphopt.errors import UsageError

__all__ = ["Crd"]


@dataclasses.dataclass(eq=False, kw_only=True)
class Crd(RelationLoss):
    """-E log h(t, s+) - N E log(1 - h(t, s-)), where h(t, s) = e^(t.s / tau) / (e^(t.s / tau) + N z).

    t and s are features under a linear map each (both are trained), of length 1; a pair s+ is of one sample, the N
    pairs s- of different ones; z is the mean of e^(t.s / tau) over the pairs of the first batch, as in the authors'
    code (Z / M there). The paper has 1 / M in its place, M the number of samples in the data, which fits scores
    that need no normalization.

    With ``bank=M`` as in the paper: both models' embeddings of all samples are kept, by sample id, and follow new ones
    by half; each sample's N negatives are drawn from the other samples' there, once with the student's and once with
    the teacher's embedding as the anchor, and the two losses are added. Held-out samples, whose ids are negative, are
    their own partners. With ``bank=0`` the negatives are the rest of the batch (N = B - 1), and no memory is needed.

    Differs from the authors' code: negatives are other samples whatever their class, and N is 16,384 there.

    Source: Tian, Krishnan, Isola, "Contrastive representation distillation", arXiv 1910.10699.

    Attributes:
        tau: The temperature.
        dim: Length of the embeddings.
        bank: Samples in the training data; 0 for no bank.
        negatives: Drawn for each sample from the bank.
        momentum: Share of an embedding in the bank that stays.
        seed: Of the draws.
    """

    name: ClassVar[str] = "crd"

    tau: float = option(0.1, above=0)
    dim: int = option(128, least=1)
    bank: int = option(0, least=0)
    negatives: int = option(1024, least=1)
    momentum: float = option(0.5, least=0, most=1)
    seed: int = 0

    def adapter(self, student: Tensor, teacher: Tensor) -> nn.Module:
        return _Embeddings(student.shape[1], teacher.shape[1], self.dim, self.bank)

    def prepare(self, batch: Batch) -> None:
        super().prepare(batch)
        for _, student, teacher, adapter, _ in self.pairs(batch):
            held = _embeddings(adapter)
            for place, scores in enumerate(self._scores(*held.embed(student, teacher), held, batch)):
                every = torch.cat([one.flatten() for one in scores])
                held.log_mean[place] = every.logsumexp(0) - math.log(len(every))

    def compare(self, student: Tensor, teacher: Tensor, adapter: nn.Module | None, batch: Batch) -> Tensor:
        held = _embeddings(adapter)
        first, second = held.embed(student, teacher)
        scores = self._scores(first, second, held, batch)
        losses = [_nce(*pair, log_mean) for pair, log_mean in zip(scores, held.log_mean, strict=True)]
        if self.bank and self.training:
            held.follow(batch.ids, first, second, self.momentum)
        return torch.stack(losses).sum()

    def _scores(self, first: Tensor, second: Tensor, held: _Embeddings, batch: Batch) -> list[tuple[Tensor, Tensor]]:
        """t.s / tau of pairs s+, ``(B,)``, and s-, ``(B, N)``; of both kinds of anchors if there is a bank."""
        if not self.bank:
            similar = first @ second.T / self.tau
            return [(similar.diagonal(), _others(similar))]
        self._check(batch.ids)
        drawn = hashes(self.seed, held.step, batch.ids, self.negatives) % (self.bank - 1)
        drawn = drawn + (drawn >= batch.ids[:, None])  # all but the sample itself
        scores = []
        for anchor, other, bank in ((first, second, held.teacher_bank), (second, first, held.student_bank)):
            partner = torch.where(batch.ids[:, None] < 0, other, bank[batch.ids])
            negative = torch.einsum("bd,bnd->bn", anchor, bank[drawn])
            scores.append(((anchor * partner).sum(1) / self.tau, negative / self.tau))
        return scores

    def _check(self, ids: Tensor) -> None:
        if self.bank < 2 or int(ids.max()) >= self.bank:
            raise UsageError(
                f"loss 'crd': sample {int(ids.max())} has no place in a bank of {self.bank}",
                hint="bank is the number of samples in the training data, at least 2; 0 for none.",
            )


class _Embeddings(nn.Module):
    """Linear maps of both models' features, and what they gave for every sample."""

    student_bank: Tensor
    teacher_bank: Tensor
    step: Tensor
    log_mean: Tensor

    def __init__(self, student: int, teacher: int, dim: int, samples: int) -> None:
        super().__init__()
        self.student = nn.Linear(student, dim)
        self.teacher = nn.Linear(teacher, dim)
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))
        self.register_buffer("log_mean", torch.zeros(2 if samples else 1))
        for name in ("student_bank", "teacher_bank"):
            self.register_buffer(name, F.normalize(torch.randn(samples, dim), dim=1))

    def embed(self, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
        """Both, of length 1."""
        return F.normalize(self.student(student), dim=1), F.normalize(self.teacher(teacher), dim=1)

    @torch.no_grad()
    def follow(self, ids: Tensor, student: Tensor, teacher: Tensor, momentum: float) -> None:
        """Moves the embeddings of some samples towards new ones."""
        for bank, new in ((self.student_bank, student), (self.teacher_bank, teacher)):
            bank[ids] = F.normalize(momentum * bank[ids] + (1 - momentum) * new, dim=1)
        self.step += 1


def _embeddings(adapter: nn.Module | None) -> _Embeddings:
    assert isinstance(adapter, _Embeddings), "prepare() makes it"
    return adapter


def _nce(positive: Tensor, negative: Tensor, log_mean: Tensor) -> Tensor:
    """log h and log(1 - h) are log-sigmoids of t.s / tau - log(N z)."""
    shift = math.log(negative.shape[1]) + log_mean
    return -(F.logsigmoid(positive - shift) + F.logsigmoid(shift - negative).sum(1)).mean()


def _others(square: Tensor) -> Tensor:
    """``(B, B)`` without its diagonal, ``(B, B - 1)``."""
    distinct = ~torch.eye(len(square), dtype=torch.bool, device=square.device)
    return square[distinct].reshape(len(square), -1)
