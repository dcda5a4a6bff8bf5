"""Losses on inner tensors: a layer of the student is to hold what a layer of the teacher holds.

Channels lie on the second axis of ``(B, C, H, W)`` and on the last of ``(B, C)`` and tokens ``(B, T, C)``, unless
``axis`` says otherwise. Where channels differ in number, a linear map of the student's to the teacher's (a 1x1
convolution, for images) is trained along and thrown away; where sizes of images differ, the larger is averaged
to the smaller one. Of several teachers the losses are averaged by their weights (of each sample's, the means).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from graphopt.distillation.batch import Batch
from graphopt.distillation.losses.base import TaughtLoss
from graphopt.distillation.losses.draws import uniform
from graphopt.distillation.losses.options import option
from graphopt.distillation.losses.shapes import channels_first, pooled, row_mean, rows
from graphopt.errors import UsageError

__all__ = ["AttentionTransfer", "FeatureLoss", "FitNets", "Hidden", "Mgd"]

_IMAGE = 4


@dataclasses.dataclass(eq=False, kw_only=True)
class FeatureLoss(TaughtLoss):
    """A loss between inner tensors.

    Attributes:
        axis: Where the channels lie; 0 for the second axis of images, the last of anything else.
    """

    is_inner: ClassVar[bool] = True

    axis: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.adapters = nn.ModuleDict()

    def adapter(self, student: Tensor, teacher: Tensor) -> nn.Module | None:
        """What is trained along with the student to compare with a teacher, if anything."""
        return None

    def compare(self, student: Tensor, teacher: Tensor, adapter: nn.Module | None, batch: Batch) -> Tensor:
        """The loss against one teacher; features come as :meth:`fitted` gives them."""
        raise NotImplementedError

    def fitted(self, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
        """Both as ``(B, C, ...)`` of one size."""
        if student.ndim != teacher.ndim or len(student) != len(teacher):
            raise self.mismatch(student.shape, teacher.shape)
        first, second = channels_first(student, self.axis), channels_first(teacher, self.axis)
        if first.shape[2:] != second.shape[2:] and student.ndim < _IMAGE and self.axis != 1:
            raise self.mismatch(student.shape, teacher.shape)  # tokens: the mean of neighbours means nothing
        return pooled(first, second)

    def prepare(self, batch: Batch) -> None:
        for number, student, teacher, _, _ in self.pairs(batch):
            adapter = self.adapter(student, teacher)
            if adapter is not None:
                self.adapters[number] = adapter.to(student.device, student.dtype)

    def forward(self, batch: Batch) -> Tensor:
        parts = [
            weight * self.compare(student, teacher, adapter, batch)
            for _, student, teacher, adapter, weight in self.pairs(batch)
        ]
        return torch.stack(parts).sum(0)

    def pairs(self, batch: Batch) -> Iterator[tuple[str, Tensor, Tensor, nn.Module | None, Tensor]]:
        """For each teacher its number, both features, what is trained along, and its weight, a scalar."""
        student = self.value(batch)
        adapters = dict(self.adapters.items())
        for one in self.teachings(batch):
            number = str(one.number)
            yield number, *self.fitted(student, self.full(one)), adapters.get(number), one.weight.mean()


@dataclasses.dataclass(eq=False, kw_only=True)
class _Imitation(FeatureLoss):
    """Squared errors after a regressor.

    Attributes:
        reduction: ``mean`` over all elements, so that a weight means the same at every layer; ``batchmean``: their sum,
            divided by the number of samples (``hidden``: of tokens or pixels), as papers write it.
    """

    is_regression: ClassVar[bool] = True

    reduction: Literal["mean", "batchmean"] = "mean"

    def adapter(self, student: Tensor, teacher: Tensor) -> nn.Module | None:
        return _Pointwise(student.shape[1], teacher.shape[1]) if student.shape[1] != teacher.shape[1] else None

    def reduce(self, errors: Tensor) -> Tensor:
        """Of ``(N, ...)``."""
        flat = errors.flatten(1)
        return row_mean(flat.mean(1) if self.reduction == "mean" else flat.sum(1))


@dataclasses.dataclass(eq=False, kw_only=True)
class FitNets(_Imitation):
    """1/2 (f_t - r(f_s))^2, r a linear map of the channels where they differ in number; the mean over all elements.

    The paper has the sum over the elements of a sample: ``reduction=batchmean``.

    Source: Romero et al., "FitNets: hints for thin deep nets", arXiv 1412.6550.
    """

    name: ClassVar[str] = "fitnets"

    def compare(self, student: Tensor, teacher: Tensor, adapter: nn.Module | None, batch: Batch) -> Tensor:
        return self.reduce((teacher - (adapter(student) if adapter else student)).square() / 2)


@dataclasses.dataclass(eq=False, kw_only=True)
class Hidden(_Imitation):
    """The mean over the tokens that the mask has of the mean over channels of (h_t - r(h_s))^2.

    The sum over channels, as ZipLM writes it, is ``reduction=batchmean``. Values ``(B, T, C)``; others have no mask.

    Source: Kurtic, Frantar, Alistarh, "ZipLM", arXiv 2302.04089; Jiao et al., "TinyBERT", arXiv 1909.10351.
    """

    name: ClassVar[str] = "hidden"
    takes_mask: ClassVar[bool] = True

    def compare(self, student: Tensor, teacher: Tensor, adapter: nn.Module | None, batch: Batch) -> Tensor:
        errors = (teacher - (adapter(student) if adapter else student)).square()
        return self.reduce(rows(errors.movedim(1, -1), batch.mask))


@dataclasses.dataclass(eq=False, kw_only=True)
class Mgd(_Imitation):
    """(f_t - G(M * r(f_s)))^2: the student's features, some places left out, must regenerate the teacher's.

    G is a 3x3 convolution to the teacher's channels, a ReLU and another one; r as in ``fitnets``; M is 0 at a random
    share of the places, drawn from the seed, the step and the sample's id. Images ``(B, C, H, W)`` alone. The mean over
    all elements; the paper has the sum over the elements of a sample, ``reduction=batchmean`` (with weights of 7e-5 for
    classifiers and 2e-5 for detectors).

    Source: Yang et al., "Masked generative distillation", arXiv 2205.01529.

    Attributes:
        ratio: Share of the places that are left out.
        seed: Of the mask.
    """

    name: ClassVar[str] = "mgd"

    ratio: float = option(0.5, least=0, most=0.99)
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.step: Tensor
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))

    def fitted(self, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
        if student.ndim != _IMAGE:
            raise UsageError(
                f"loss 'mgd' needs images (batch, channels, height, width); '{self.student}' is {tuple(student.shape)}",
                hint="Use fitnets or hidden.",
            )
        return super().fitted(student, teacher)

    def adapter(self, student: Tensor, teacher: Tensor) -> nn.Module:
        channels = teacher.shape[1]
        return nn.Sequential(
            super().adapter(student, teacher) or nn.Identity(),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
        )

    def forward(self, batch: Batch) -> Tensor:
        loss = super().forward(batch)
        if self.training:
            self.step += 1
        return loss

    def compare(self, student: Tensor, teacher: Tensor, adapter: nn.Module | None, batch: Batch) -> Tensor:
        assert isinstance(adapter, nn.Sequential), "prepare() makes it"
        places = uniform(self.seed, self.step, batch.ids, student[0, 0].numel())
        kept = (places >= self.ratio).view(len(student), 1, *student.shape[2:])
        return self.reduce((teacher - adapter[1:](adapter[0](student) * kept)).square())


@dataclasses.dataclass(eq=False, kw_only=True)
class AttentionTransfer(FeatureLoss):
    """The mean over samples of || Q_s / ||Q_s|| - Q_t / ||Q_t|| ||_2, where Q = vec(sum_c |A_c|^power).

    Channels may differ in number; features need places besides channels. The paper's beta / 2 is the weight; its code
    takes the mean of the squares over the places instead of the norm.

    Source: Zagoruyko, Komodakis, "Paying more attention to attention", arXiv 1612.03928.

    Attributes:
        power: Of the activations.
    """

    name: ClassVar[str] = "at"

    power: float = option(2.0, above=0)

    def compare(self, student: Tensor, teacher: Tensor, adapter: nn.Module | None, batch: Batch) -> Tensor:
        if student.ndim < 3:
            raise UsageError(
                f"loss 'at' compares places; '{self.student}' is {tuple(student.shape)}, a vector a sample",
                hint="Choose a feature map, or use fitnets, sp or rkd.",
            )
        first, second = (F.normalize(one.abs().pow(self.power).sum(1).flatten(1), dim=1) for one in (student, teacher))
        return row_mean(torch.linalg.vector_norm(first - second, dim=1))


class _Pointwise(nn.Linear):
    """A linear map of the channels of ``(B, C, ...)``."""

    def forward(self, value: Tensor) -> Tensor:
        return super().forward(value.movedim(1, -1)).movedim(-1, 1)
