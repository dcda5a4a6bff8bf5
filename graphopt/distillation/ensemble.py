"""Several teachers, and how much each counts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from graphopt.distillation.batch import TopK
from graphopt.distillation.teacher import Feeds, Ids, Targets
from graphopt.errors import UsageError
from graphopt.torch.outputs import Kind, log_probabilities

__all__ = ["Ensemble", "Prediction"]

Prediction: TypeAlias = tuple[str, Kind]
"""The output by which a teacher is rated, and what its values are."""


class Ensemble:
    """Teachers with fixed weights, or with weights for each sample.

    For each sample a teacher counts the more, the surer it is of the right class (CA-MKD, Zhang et al.,
    arXiv 2201.00007): ``w_k = (1 - softmax_k(CE_k)) / (K - 1)`` over the K teachers' cross-entropies.

    Args:
        teachers: One or more.
        weights: One a teacher, 0 or more; brought to a sum of 1. None for equal ones.
        rated: For weights by sample: of each teacher, the output of classes ``(B, C)``.

    Raises:
        UsageError: Numbers that do not match, no teacher, weights that cannot be such.
    """

    def __init__(
        self, teachers: Sequence[Targets], weights: Sequence[float] | None = None, rated: Sequence[Prediction] = ()
    ) -> None:
        self.teachers = tuple(teachers)
        count = len(self.teachers)
        given = [1.0] * count if weights is None else list(weights)
        if not count:
            raise UsageError("there is no teacher")
        if len(given) != count or (rated and len(rated) != count):
            raise UsageError(f"there are {count} teachers and {len(given) if not rated else len(rated)} weights")
        if not all(math.isfinite(weight) and weight >= 0 for weight in given) or not sum(given) > 0:
            raise UsageError(f"weights of teachers cannot be {given}", hint="Give numbers from 0 up, not all 0.")
        if rated and weights is not None:
            raise UsageError("the weights of the teachers are given, and also to be found for each sample")
        self._weights = torch.tensor([weight / sum(given) for weight in given])
        self._rated = tuple(rated)

    @property
    def by_sample(self) -> bool:
        """Whether weights depend on the sample, and so on labels."""
        return bool(self._rated)

    def targets(self, ids: Ids, view: int, feeds: Feeds) -> list[Mapping[str, Tensor | TopK]]:
        """What each teacher says, see :class:`~graphopt.distillation.teacher.Targets`."""
        return [teacher.targets(ids, view, feeds) for teacher in self.teachers]

    def weights(self, targets: Sequence[Mapping[str, Tensor | TopK]], labels: Tensor | None) -> Tensor:
        """``(teachers,)``, or ``(B, teachers)`` by sample; they add up to 1.

        Args:
            targets: What :meth:`targets` gave.
            labels: ``(B,)`` int64; needed for weights by sample.

        Raises:
            UsageError: They are needed and not given.
        """
        if not self._rated:
            return self._weights
        if labels is None:
            raise UsageError("weights of teachers by sample need labels", hint="Give labels, or fixed weights.")
        if len(self._rated) == 1:
            return torch.ones(len(labels), 1)
        losses = [
            _cross_entropy(found[name], kind, labels) for found, (name, kind) in zip(targets, self._rated, strict=True)
        ]
        share = torch.softmax(torch.stack(losses, -1), -1)
        return (1 - share) / (len(losses) - 1)


def _cross_entropy(predicted: Tensor | TopK, kind: Kind, labels: Tensor) -> Tensor:
    """``(B,)``, where the labels are; a class outside the largest has at most what these leave."""
    if isinstance(predicted, Tensor):
        places = labels[:, None].to(predicted.device)
        return -log_probabilities(predicted.float(), kind).gather(-1, places)[:, 0].to(labels.device)
    hit = predicted.indices == labels[:, None].to(predicted.indices.device)
    found = torch.where(hit.any(-1), (predicted.probabilities * hit).sum(-1), predicted.rest)
    return -found.clamp(min=torch.finfo(found.dtype).tiny).log().to(labels.device)
