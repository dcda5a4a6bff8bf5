"""Labels that are numbers of classes."""

from __future__ import annotations

import torch
from torch import Tensor

from graphopt.distillation.batch import Batch
from graphopt.distillation.losses.base import Loss
from graphopt.errors import UsageError

__all__ = ["IGNORED", "class_labels"]

IGNORED = -100
"""The label of what does not count, unless told otherwise."""


def class_labels(loss: Loss, batch: Batch, scores: Tensor, column: int = -1, ignored: int = IGNORED) -> Tensor:
    """The label of each row of scores ``(N, C)``, int64 ``(N,)``.

    Raises:
        UsageError: There are none, they are no integers, they are not as many, or one is no class.
    """
    labels = loss.labels(batch, column)
    if labels.is_floating_point():
        raise UsageError(
            f"loss '{loss.name}' needs numbers of classes; the labels are {labels.dtype}".replace("torch.", ""),
            hint="Give integers, or another loss: bce for several classes at once, mse for quantities.",
        )
    masked = batch.mask is not None and labels.shape == batch.mask.shape and labels.numel() != len(scores)
    counted = batch.mask if masked and batch.mask is not None else torch.ones_like(labels, dtype=torch.bool)
    flat = labels[counted].long()
    if len(flat) != len(scores):
        raise UsageError(
            f"loss '{loss.name}': labels of shape {tuple(labels.shape)} do not fit '{loss.student}', "
            f"which has {len(scores)} rows of {scores.shape[1]} classes",
            hint="Choose a column of the labels (column=0), or say where the classes lie (axis=1).",
        )
    wrong = ((labels < 0) | (labels >= scores.shape[1])) & (labels != ignored) & counted
    if bool(wrong.any()):
        place = tuple(wrong.nonzero()[0].tolist())
        number = int(batch.ids[place[0]])
        which = f"sample {number} of those to learn from" if number >= 0 else "a held-out sample"
        raise UsageError(
            f"loss '{loss.name}': label {int(labels[place])} of {which} is not one of the "
            f"{scores.shape[1]} classes of '{loss.student}'",
            hint=f"Classes are numbered from 0; {ignored} marks what does not count.",
        )
    return flat
