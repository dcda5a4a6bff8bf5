"""What a run has come to, and how it is told."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

__all__ = ["History", "Moment", "Progress", "Record"]


@dataclasses.dataclass(frozen=True, slots=True)
class Moment:
    """Where a run is.

    Attributes:
        epoch: From 0.
        step: Steps of this epoch that are done.
        steps: Steps of an epoch.
        loss: The mean over those steps.
        record: Of the epoch, once it is over.
    """

    epoch: int
    step: int
    steps: int
    loss: float
    record: Record | None = None


Progress: TypeAlias = Callable[[Moment], None]


@dataclasses.dataclass(frozen=True, slots=True)
class Record:
    """What an epoch has come to.

    Attributes:
        epoch: From 0.
        loss: The mean over its steps.
        parts: The same of each part of the loss.
        evaluation: On held-out samples, see :func:`~graphopt.distillation.evaluation.evaluate`; empty without any.
        seconds: What it took, as far as this process has seen it.
    """

    epoch: int
    loss: float
    parts: Mapping[str, float]
    evaluation: Mapping[str, float]
    seconds: float


@dataclasses.dataclass(frozen=True, slots=True)
class History:
    """A run that is over; the student has the weights of the best epoch.

    Attributes:
        records: One an epoch.
        best: The number of the best one; the last one, where there was nothing to tell by.
        notes: What a user should know.
    """

    records: Sequence[Record]
    best: int
    notes: Sequence[str] = ()
