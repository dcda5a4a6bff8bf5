"""How good a student is on samples that it does not learn from."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from graphopt.distillation.batch import Batch, TopK
from graphopt.distillation.parallel import World
from graphopt.distillation.reading import Reader
from graphopt.distillation.sampling import whole_batches
from graphopt.errors import ModelError

__all__ = ["Accuracy", "Agreement", "Metric", "Model", "evaluate"]


class Model(Protocol):
    """What is evaluated and trained: see :mod:`graphopt.distillation.student`."""

    @property
    def module(self) -> nn.Module:
        """Holds the parameters."""

    @property
    def learns_statistics(self) -> bool:
        """Whether the module trains in training mode: dropouts drop, normalizations take the batch's statistics."""

    def outputs(self, feeds: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Outputs and inner tensors by name."""


class Metric(Protocol):
    """A share of right answers; the more, the better."""

    @property
    def name(self) -> str:
        """For reports."""

    def __call__(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """How many answers are right, and how many there are."""

    def check(self, batch: Batch) -> None:
        """Whether the batch, which holds all labels there are, has what is needed.

        Raises:
            ModelError: It has not.
        """


@dataclasses.dataclass(frozen=True, slots=True)
class Accuracy:
    """How often the class with the highest score, along the last axis, is the label. Labels below 0 do not count.

    Attributes:
        output: The student's.
        column: The column of the labels ``(B, columns)``; -1 where they have none.
        name: For reports.
    """

    output: str
    column: int = -1
    name: str = "accuracy"

    def __call__(self, batch: Batch) -> tuple[Tensor, Tensor]:
        labels = self._labels(batch.labels)
        counts = labels >= 0
        if batch.mask is not None and batch.mask.shape == labels.shape:
            counts = counts & batch.mask
        return ((batch.student[self.output].argmax(-1) == labels) & counts).sum(), counts.sum()

    def check(self, batch: Batch) -> None:
        """See :class:`Metric`: labels are classes that the output has."""
        labels = self._labels(batch.labels)
        shape = batch.student[self.output].shape
        if labels.is_floating_point() or labels.ndim != len(shape) - 1:
            raise ModelError(
                f"labels of the shape {list(labels.shape)} and type {str(labels.dtype).removeprefix('torch.')} are no "
                f"classes for the output '{self.output}' with the shape {list(shape)}",
                hint="Give one whole number a sample (or a token), or choose another metric.",
            )
        wrong = (labels >= shape[-1]).flatten(1).any(1) if labels.ndim > 1 else labels >= shape[-1]
        if wrong.any():
            sample = int(wrong.nonzero()[0, 0])
            number = int(batch.ids[sample]) if len(batch.ids) == len(labels) else sample
            raise ModelError(
                f"sample {number} has the label {int(labels[sample].max())}, and the output '{self.output}' has "
                f"{shape[-1]} classes, 0 to {shape[-1] - 1}",
                hint="Count classes from 0.",
            )

    def _labels(self, labels: Tensor | None) -> Tensor:
        if labels is None:
            raise ModelError("there are no labels to tell the accuracy by", hint="Give data with labels.")
        if self.column < 0:
            return labels
        if labels.ndim < 2 or self.column >= labels.shape[1]:
            raise ModelError(f"labels of the shape {list(labels.shape)} have no column {self.column}")
        return labels[:, self.column]


@dataclasses.dataclass(frozen=True, slots=True)
class Agreement:
    """How often the student and the first teacher prefer the same class, along the last axis.

    Attributes:
        output: The student's.
        teacher: The teacher's.
        name: For reports.
    """

    output: str
    teacher: str
    name: str = "agreement"

    def __call__(self, batch: Batch) -> tuple[Tensor, Tensor]:
        wanted = batch.teachers[0][self.teacher]
        if isinstance(wanted, TopK):
            best = wanted.indices.gather(-1, wanted.probabilities.argmax(-1, keepdim=True))[..., 0]
        else:
            best = wanted.argmax(-1)
        same = batch.student[self.output].argmax(-1) == best
        counts = batch.mask if batch.mask is not None and batch.mask.shape == same.shape else torch.ones_like(same)
        return (same & counts).sum(), counts.sum()

    def check(self, batch: Batch) -> None:
        """See :class:`Metric`: there is a teacher that has the output."""
        if not batch.teachers or self.teacher not in batch.teachers[0]:
            raise ModelError(
                f"no teacher gives '{self.teacher}' to compare the student with", hint="Give labels, or a teacher."
            )


@torch.no_grad()
def evaluate(
    student: Model,
    objective: nn.Module | None,
    reader: Reader,
    metrics: Sequence[Metric],
    *,
    batch: int = 256,
    world: World | None = None,
) -> dict[str, float]:
    """The mean loss, as ``loss``, and the metrics, as shares, by name.

    Batches are shared out among the processes. The objective sees -1 for the numbers of the samples: they are none of
    those it may remember.
    """
    world = world or World()
    student.module.eval()
    total = torch.zeros(2 + 2 * len(metrics), dtype=torch.float64, device=reader.device)
    ids = whole_batches(reader.count, reader.group or batch)
    if objective is not None:
        objective.eval()
    for reading in reader.batches(ids[world.rank :: world.size], 0):
        found = dataclasses.replace(
            reading.batch, student=student.outputs(reading.feeds), ids=torch.full_like(reading.batch.ids, -1)
        )
        count = float(len(reading.batch.ids))
        loss = objective(found)[0] * count if objective is not None else torch.zeros(())
        entries = [loss, torch.tensor(count), *(part for metric in metrics for part in metric(found))]
        total += torch.stack([one.to(total.device, total.dtype) for one in entries])
    sums = world.add(total).tolist()
    named = {metric.name: sums[2 + 2 * n] / max(1.0, sums[3 + 2 * n]) for n, metric in enumerate(metrics)}
    return named if objective is None else {"loss": sums[0] / sums[1]} | named
