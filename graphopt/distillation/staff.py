"""Teachers of a run: what each is asked, and whether what they say is kept."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx_ir as ir
import torch

from graphopt.distillation.ahead import split_cores
from graphopt.distillation.cache import Cache, Contents
from graphopt.distillation.ensemble import Ensemble
from graphopt.distillation.losses import Objective
from graphopt.distillation.reading import Reader
from graphopt.distillation.teacher import Ids, Targets, Teacher
from graphopt.errors import UsageError
from graphopt.torch.outputs import Kind

__all__ = ["Staff", "Teaching", "some"]

_LARGEST = 8 << 30  # bytes of teachers' outputs up to which they are kept unless the user says otherwise
_SOME = 16


@dataclasses.dataclass(frozen=True, slots=True)
class Teaching:
    """What is taught, and how; see :func:`~graphopt.distillation.distiller.distill`."""

    loss: str | None
    balance: str
    weights: Sequence[float] | Literal["sample"] | None
    mask: str
    augment: str | Callable[..., Any]
    views: int | None
    cache: bool | None
    top_k: int | None
    half: bool

    def __post_init__(self) -> None:
        if self.cache is False and (self.top_k is not None or self.half):
            raise UsageError(
                "top-k and half are about what is kept of the teachers' outputs, and nothing is to be kept",
                hint="Leave them out, or let the outputs be kept.",
            )
        if self.top_k is not None and self.top_k < 1:
            raise UsageError(f"the {self.top_k} largest probabilities are none", hint="Give 1 or more.")


class Staff:
    """The teachers of a run; none where the loss asks nothing of any.

    Args:
        models: The teachers' models.
        objective: The loss.
        also: What else to ask of the first one.
        teaching: See there.
        provider: Where they run.
        threads: Of ONNX Runtime.
        device: Number of the CUDA device where they run.
        folder: Gives the folder for what they say; called if it is kept.
        progress: Called with the name of the step and the share of it that is done.

    Attributes:
        teachers: The teachers.
        cached: Bytes of what is kept.
        notes: What a user should know.
    """

    def __init__(
        self,
        models: Sequence[ir.Model],
        objective: Objective,
        also: set[str],
        teaching: Teaching,
        *,
        provider: str,
        threads: int | None,
        device: int,
        folder: Callable[[], Path],
        progress: Callable[[str, float | None], None],
    ) -> None:
        self._models = models
        self._objective = objective
        self._also = also
        self._teaching = teaching
        self._provider = provider
        self._threads = threads
        self._device = device
        self._folder = folder
        self._progress = progress
        self.cached = 0
        self.notes: list[str] = []
        self.teachers = self._opened(threads)

    def teach(self, readers: dict[str, Reader], epochs: int, *, keeps: bool) -> None:
        """Has the teachers tell each reader what they make of its samples.

        Args:
            readers: By name; that of the training samples is the first.
            epochs: How often each training sample is seen.
            keeps: Whether what they say may be kept.

        Raises:
            UsageError: Options that do not fit each other, or a folder of other teachers or data.
            SaveError: What they say cannot be written.
        """
        if not self.teachers:
            return
        first = next(iter(readers.values()))
        sparse = [self._sparse(teacher) for teacher in self.teachers]
        keeps = keeps and self._is_worth_keeping(first, epochs)
        if not keeps and self._threads is None and first.device.type == "cpu":
            ours, students = split_cores()
            torch.set_num_threads(students)
            self.teachers = self._opened(ours)
        for name, reader in readers.items():
            reader.ask(self._ensemble(reader, name, sparse if keeps else None))

    def _opened(self, threads: int | None) -> list[Teacher]:
        """The teachers, each asked for what the loss needs of it; none where it needs nothing of any."""
        needs = self._objective.needs
        if not needs.teacher and not self._also:
            return []
        models = self._models
        known = [_values(model) for model in models]
        found = []
        for number, model in enumerate(models):
            wanted = needs.of(number) | (self._also if number == 0 else set())
            # What all teachers may be asked for, not all of them need have.
            spare = {name for one, name in needs.numbered if one == -1 and any(name in own for own in known)}
            names = sorted(name for name in wanted if name in known[number] or name not in spare)
            if names:
                found.append(Teacher(model, names, provider=self._provider, threads=threads, device=self._device))
        if len(found) < len(models):
            raise UsageError(
                f"the loss asks nothing of {len(models) - len(found)} of {len(models)} teachers",
                hint="Name a value of each, or leave teachers out.",
            )
        return found

    def _is_worth_keeping(self, reader: Reader, epochs: int) -> bool:
        """Whether teachers' outputs go to files: asked for, or each is needed more than once and they fit."""
        teaching = self._teaching
        if teaching.cache is not None or teaching.top_k is not None or teaching.half:
            return teaching.cache is not False
        if reader.views >= epochs:
            return False
        ids = some(reader)
        feeds = reader.feeds(ids, 0)
        size = sum(
            one.numel() * one.element_size() for teacher in self.teachers for one in teacher.tensors(feeds).values()
        )
        total = size * reader.count * reader.views / len(ids)
        if total > _LARGEST:
            self.notes.append(f"the teachers' outputs would take {total / 1e9:.0f} GB: they are asked each time")
        return total <= _LARGEST

    def _ensemble(self, reader: Reader, name: str, sparse: Sequence[Mapping[str, Any]] | None) -> Ensemble:
        """The teachers, or what they said."""
        targets: list[Targets] = list(self.teachers)
        if sparse is not None:
            targets = [
                self._kept(reader, teacher, f"{name}-{number}", sparse[number])
                for number, teacher in enumerate(self.teachers)
            ]
        weights = self._teaching.weights
        if weights != "sample":
            return Ensemble(targets, None if weights is None else list(weights))
        rated = [(output, kind) for teacher in self.teachers for output, kind in _classes(teacher)[:1]]
        return Ensemble(targets, None, rated)

    def _kept(self, reader: Reader, teacher: Teacher, name: str, sparse: Mapping[str, Any]) -> Cache:
        """What a teacher says of all samples, in a folder."""
        cache = Cache.fill(
            self._folder() / name,
            Contents.of(
                teacher,
                reader.digest,
                reader.count,
                views=reader.views,
                half=self._teaching.half,
                k=self._teaching.top_k,
                **sparse,
            ),
            teacher,
            reader.feeds,
            progress=self._progress,
        )
        self.cached += cache.bytes
        return cache

    def _sparse(self, teacher: Teacher) -> dict[str, Any]:
        """Of which outputs the largest probabilities are enough, and at which temperature."""
        if self._teaching.top_k is None:
            return {}
        top = self._objective.needs.top
        classes = [name for name in teacher.names if name in top]
        temperatures = {top[name] for name in classes}
        if len(temperatures) != 1:
            raise UsageError(
                "top-k does not go with the loss",
                hint="It needs kd or soft-ce on an output of classes, all of them at one temperature.",
            )
        return {"classes": classes, "temperature": temperatures.pop()}


def _classes(teacher: Teacher) -> list[tuple[str, Kind]]:
    found: list[tuple[str, Kind]] = [(name, kind) for name, kind in teacher.kinds.items() if kind != "values"]
    if not found:
        raise UsageError(
            "weights by sample need an output of classes of each teacher", hint="Give one weight a teacher instead."
        )
    return found


def _values(model: ir.Model) -> set[str]:
    """Names of all values of the main graph."""
    own = {value.name for node in model.graph for value in node.outputs}
    return {name for name in own | {value.name for value in model.graph.inputs} if name}


def some(reader: Reader) -> Ids:
    """The numbers of some samples: as many as the model takes, or a few."""
    return np.arange(min(reader.group or _SOME, reader.count))
