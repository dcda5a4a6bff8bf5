"""Before training: one batch goes all the way, so that what does not fit is told at once, in the user's words."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor, nn

from graphopt.datasets import Bound
from graphopt.distillation.batch import Batch, TopK
from graphopt.distillation.evaluation import Metric, Model
from graphopt.distillation.reading import Reader
from graphopt.errors import ModelError

__all__ = ["check_inputs", "rehearse"]

_MISFITS = (RuntimeError, IndexError, ValueError, KeyError, TypeError)
"""What torch raises where shapes, types and names do not fit each other."""


def check_inputs(who: str, model: ir.Model, first: ir.Model, data: Bound) -> None:
    """Checks that a model takes the samples that are bound to the first teacher.

    Raises:
        ModelError: It takes another type, or another number of samples at once.
    """
    wanted = {value.name: value for value in first.graph.inputs}
    fed = data.group if data.group_is_fixed else None
    for value in model.graph.inputs:
        other = wanted.get(value.name)
        if other is None:
            continue
        if None not in (value.dtype, other.dtype) and value.dtype != other.dtype:
            raise ModelError(
                f"{who} takes '{value.name}' as {_name(value)}, the first teacher as {_name(other)}",
                hint="Convert the inputs of one of them: both get the same data.",
            )
        count = value.shape[0] if value.shape is not None and len(value.shape) else None
        if isinstance(count, int) and count > 0 and count != fed and not data.whole and value.name not in data.shared:
            raise ModelError(
                f"{who} takes {count} samples of '{value.name}' at once, the first teacher {fed or 'any number'}",
                hint="Export it with a free batch dimension.",
            )


def _name(value: ir.Value) -> str:
    return str(value.dtype).lower()


@torch.no_grad()
def rehearse(
    student: Model,
    objective: nn.Module,
    train: Reader,
    evaluation: Reader | None,
    metrics: Sequence[Metric],
    batch: int,
) -> list[str]:
    """Prepares the objective on the first samples, and computes loss and metrics once; nothing else changes.

    Returns:
        The labels of the parts of the loss.

    Raises:
        ModelError: Something does not fit; the message has all shapes.
    """
    student.module.eval()
    first = _first(student, train, batch)
    with _explained("the loss cannot be prepared for", first):
        objective.prepare(first)  # type: ignore[operator]
    objective.to(train.device).eval()
    _check(metrics if train.has_labels else (), first, train)
    labels = _labels_of_parts(objective, first)
    if evaluation is not None:
        held_out = _first(student, evaluation, batch)
        _check(metrics, held_out, evaluation)
        _labels_of_parts(objective, dataclasses.replace(held_out, ids=torch.full_like(held_out.ids, -1)))
    return labels


def _first(student: Model, reader: Reader, batch: int) -> Batch:
    reading = reader.read(np.arange(min(reader.group or batch, reader.count)), 0)
    with _explained("the student cannot be run on", dataclasses.replace(reading.batch, student=reading.feeds)):
        return dataclasses.replace(reading.batch, student=student.outputs(reading.feeds))


def _labels_of_parts(objective: nn.Module, batch: Batch) -> list[str]:
    with _explained("the loss cannot be computed from", batch):
        _, parts = objective(batch)
    return list(parts)


def _check(metrics: Sequence[Metric], batch: Batch, reader: Reader) -> None:
    # All labels, so that a bad one is found now and not in the last step of an epoch.
    rows = torch.from_numpy(reader.rows(np.arange(reader.count)))
    for metric in metrics:
        metric.check(batch if reader.labels is None else dataclasses.replace(batch, labels=reader.labels, ids=rows))


@contextlib.contextmanager
def _explained(what: str, batch: Batch) -> Iterator[None]:
    try:
        yield
    except _MISFITS as error:
        values = [("student", batch.student), *((f"teacher {n}", one) for n, one in enumerate(batch.teachers))]
        shapes = [f"{who} '{name}' {_shape(value)}" for who, named in values for name, value in named.items()]
        if batch.labels is not None:
            shapes.append(f"labels {_shape(batch.labels)}")
        raise ModelError(
            f"{what} {', '.join(shapes) or 'nothing'}: {str(error) or type(error).__name__}",
            hint="Student, teacher and labels have to mean the same outputs; name those that the loss compares.",
        ) from error


def _shape(value: Tensor | TopK) -> str:
    one = value if isinstance(value, Tensor) else value.probabilities
    return f"{list(one.shape)}"
