"""What a loss sees of one step."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from torch import Tensor

__all__ = ["Batch", "TopK"]


@dataclasses.dataclass(frozen=True)
class TopK:
    """The largest probabilities of a teacher, and what the others have together.

    Attributes:
        probabilities: ``(B, k)``, of all classes at the temperature they were kept at.
        indices: ``(B, k)`` int64, their classes.
        rest: ``(B,)``: 1 less their sum.
        temperature: What the logits were divided by.
    """

    probabilities: Tensor
    indices: Tensor
    rest: Tensor
    temperature: float


@dataclasses.dataclass(frozen=True)
class Batch:
    """One batch as the student and the teachers see it.

    Attributes:
        student: Outputs and inner tensors of the student, by name; with gradients.
        teachers: The same of each teacher, without gradients; logits may be :class:`TopK`.
        weights: ``(teachers,)``, or ``(B, teachers)`` where each sample has its own; they add up to 1.
        labels: ``(B, ...)``, as the data give them, or None.
        ids: ``(B,)`` int64: the number of each sample in the training data, the same in every epoch.
        mask: ``(B, T)`` bool: which tokens count; None for all.
    """

    student: Mapping[str, Tensor]
    teachers: Sequence[Mapping[str, Tensor | TopK]]
    weights: Tensor
    labels: Tensor | None
    ids: Tensor
    mask: Tensor | None = None
