"""Losses on relations between the samples of a batch: channels and sizes of the two models may differ.

Features of any shape count as one vector a sample. Where too few samples are left for a last batch, its loss is 0.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Final

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from graphopt.distillation.batch import Batch
from graphopt.distillation.losses.features import FeatureLoss
from graphopt.distillation.losses.options import option
from graphopt.errors import UsageError

__all__ = ["RelationLoss", "Rkd", "SimilarityPreserving"]

_SAME: Final = 1e-12  # squared distances that are smaller, by the mean square of the vectors, are rounding


@dataclasses.dataclass(eq=False, kw_only=True)
class RelationLoss(FeatureLoss):
    """A loss between vectors ``(B, D)`` that need not have the same length.

    Attributes:
        smallest: The fewest samples that can be compared.
    """

    smallest: ClassVar[int] = 2

    def fitted(self, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
        if len(student) != len(teacher):
            raise self.mismatch(student.shape, teacher.shape)
        return student.flatten(1), teacher.flatten(1)

    def prepare(self, batch: Batch) -> None:
        if len(batch.ids) < self.smallest:
            raise UsageError(
                f"loss '{self.name}' compares samples of a batch with each other; this one has {len(batch.ids)}",
                hint=f"Give batches of at least {self.smallest} samples.",
            )
        super().prepare(batch)

    def forward(self, batch: Batch) -> Tensor:
        return super().forward(batch) if len(batch.ids) >= self.smallest else self.value(batch).sum() * 0


@dataclasses.dataclass(eq=False, kw_only=True)
class SimilarityPreserving(RelationLoss):
    """||G_t - G_s||_F^2 / B^2, where G = F F^T ``(B, B)``, each row divided by its norm.

    Source: Tung, Mori, "Similarity-preserving knowledge distillation", arXiv 1907.09682.
    """

    name: ClassVar[str] = "sp"

    def compare(self, student: Tensor, teacher: Tensor, adapter: nn.Module | None, batch: Batch) -> Tensor:
        first, second = (F.normalize(one @ one.T, dim=1) for one in (student, teacher))
        return (second - first).square().mean()


@dataclasses.dataclass(eq=False, kw_only=True)
class Rkd(RelationLoss):
    """distance * mean over pairs of huber(d_s, d_t) + angle * mean over triplets of huber(a_s, a_t).

    d_ij = ||f_i - f_j|| / (its mean over all pairs), a_ijk = cos of the angle at f_j between f_i and f_k, over distinct
    samples; the Huber loss turns linear at 1. The paper sums; its code also averages the zeros of equal indices. Memory
    grows with the cube of the batch.

    Source: Park et al., "Relational knowledge distillation", arXiv 1904.05068.

    Attributes:
        distance: Weight of the distances.
        angle: Weight of the angles; 0 saves their time.
    """

    name: ClassVar[str] = "rkd"
    smallest: ClassVar[int] = 3

    distance: float = option(1.0, least=0)
    angle: float = option(2.0, least=0)

    def compare(self, student: Tensor, teacher: Tensor, adapter: nn.Module | None, batch: Batch) -> Tensor:
        (d_s, a_s), (d_t, a_t) = (_relations(one, bool(self.angle)) for one in (student, teacher))
        loss = self.distance * F.smooth_l1_loss(d_s, d_t) + self.angle * F.smooth_l1_loss(a_s, a_t)
        return loss.to(student.dtype)


def _relations(vectors: Tensor, angles: bool) -> tuple[Tensor, Tensor]:
    """Distances of all pairs by their mean, and the cosines at the first of each three; or a 0 in their place.

    From inner products, in double precision: differences of all pairs of vectors would take B times the memory.
    """
    vectors = vectors.double()
    vectors = vectors - vectors.mean(0)
    products = vectors @ vectors.T
    lengths = products.diagonal()
    squares = lengths[:, None] + lengths - 2 * products
    distances = torch.maximum(squares, lengths.mean().detach() * _SAME + _SAME**2).sqrt()
    distinct = ~torch.eye(len(vectors), dtype=torch.bool, device=vectors.device)
    relative = distances[distinct] / distances[distinct].mean()
    if not angles:
        return relative, relative.new_zeros(1)
    # at j, of (i - j) and (k - j): [j, i, k]
    inner = products[None] - products[:, :, None] - products[:, None, :] + lengths[:, None, None]
    cosines = inner / (distances[:, :, None] * distances[:, None, :])
    return relative, cosines[distinct[:, :, None] & distinct[:, None, :] & distinct[None]]
