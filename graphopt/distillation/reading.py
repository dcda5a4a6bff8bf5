"""Batches for a run: the samples, what the teachers say of them, the labels."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Generator, Iterable, Mapping
from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from torch import Tensor

from graphopt.distillation.ahead import ahead
from graphopt.distillation.batch import Batch, TopK
from graphopt.distillation.sampling import Arrays, Augmentation, Ids
from graphopt.distillation.teacher import Teacher
from graphopt.errors import UsageError

if TYPE_CHECKING:
    from graphopt.datasets import Bound
    from graphopt.distillation.ensemble import Ensemble

__all__ = ["Reader", "Reading"]

_HELD: Final = 1 << 30  # bytes of inputs up to which all samples stay in memory, or in that of the device
_BLOCK: Final = 256  # samples that are read at once
_TELLING: Final = 16  # samples by whose changes an augmentation is known


@dataclasses.dataclass(frozen=True, slots=True)
class Reading:
    """A batch before the student has seen it.

    Attributes:
        feeds: The inputs, on the device.
        batch: All else; ``student`` is empty.
    """

    feeds: Mapping[str, Tensor]
    batch: Batch


class Reader:
    """Reads batches of samples in any order.

    What fits is held as one tensor an input, from which a batch is selected. Where samples must be read or changed, or
    a teacher must be run, a thread works a batch ahead.

    Attributes:
        count: Of samples.
        group: How many the model takes at once, where that is fixed; else None.
        device: Where tensors go.
        views: How many variants of each sample there are.
        has_labels: Whether samples have labels.
        labels: All of them, one a sample, on the device; None where there are none, or samples are whole feeds.
    """

    def __init__(
        self,
        data: Bound,
        ensemble: Ensemble | None,
        *,
        device: torch.device,
        augmentation: Augmentation | None = None,
        mask: str = "",
        held: int = _HELD,
    ) -> None:
        """Args:
        data: The samples.
        ensemble: The teachers, if there are any.
        device: Where tensors go.
        augmentation: Random changes to the inputs.
        mask: The input ``(B, T)`` that tells which tokens count.
        held: Bytes of inputs up to which they are held.

        Raises:
            UsageError: There are no samples, or whole feeds are to be changed.
        """
        self.count = len(data)
        if not self.count:
            raise UsageError(f"{data.name}: there are no samples", hint="Give data with at least one.")
        if augmentation is not None and data.whole:
            raise UsageError(
                f"{data.name}: whole feeds cannot be augmented", hint="Give arrays whose leading axis is the samples."
            )
        self.group = data.group if data.group_is_fixed else None
        self.device = device
        self.views = 1 if augmentation is None else augmentation.views
        self.has_labels = data.labels is not None
        self._data = data
        self._ensemble: Ensemble | None = None
        self._augmentation = augmentation
        self._mask = mask
        self._shared = data.shared
        labels = None if data.whole else data.labels
        self.labels: Tensor | None = None if labels is None else _as_tensor(labels).to(device)
        self._held = self._hold(held)
        self._works = self._held is None or augmentation is not None
        self._depth = int(self._works)
        if ensemble is not None:
            self.ask(ensemble)

    def ask(self, ensemble: Ensemble) -> None:
        """Has teachers say what they make of each sample from now on."""
        self._ensemble = ensemble
        asks = any(isinstance(one, Teacher) for one in ensemble.teachers)
        self._depth = int(self._works or asks)

    def rows(self, ids: Ids) -> Ids:
        """Where these samples are in the data that the user gave, for messages."""
        return self._data.rows[ids]

    def feeds(self, ids: Ids, view: int) -> dict[str, Tensor]:
        """The inputs of these samples in one batch, on the device."""
        return self._feeds(ids, torch.from_numpy(ids).to(self.device), view)

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256, in hex, of the samples, their labels and what changes them at random."""
        total = hashlib.sha256(self._data.digest.encode())
        if self._data.labels is not None:
            total.update(np.ascontiguousarray(self._data.labels).tobytes())
        if self._augmentation is not None:
            total.update(f"{self._augmentation.seed} {self.views}".encode())
            # A function has no name to tell it by: what it makes of some samples does.
            some = np.arange(self.group or min(_TELLING, self.count))
            for view in range(self.views):
                for name, one in sorted(self.feeds(some, view).items()):
                    total.update(name.encode() + one.cpu().numpy().tobytes())
        return total.hexdigest()

    def batches(self, ids: Iterable[Ids], view: int) -> Generator[Reading, None, None]:
        """The batches with these samples."""
        for _, reading in ahead(ids, lambda one: self.read(one, view), self._depth):
            yield reading

    @torch.no_grad()
    def read(self, ids: Ids, view: int) -> Reading:
        """One batch."""
        numbers = torch.from_numpy(ids).to(self.device)
        feeds = self._feeds(ids, numbers, view)
        if self.labels is not None:
            labels: Tensor | None = self.labels.index_select(0, numbers)
        else:
            found = self._data.labels_at(ids) if self._data.whole else None
            labels = None if found is None else _as_tensor(found).to(self.device)
        targets = [] if self._ensemble is None else self._ensemble.targets(ids, view, feeds)
        weights = torch.empty(0) if self._ensemble is None else self._ensemble.weights(targets, labels)
        teachers = [{name: _moved(value, self.device) for name, value in one.items()} for one in targets]
        mask = feeds[self._mask].bool() if self._mask else None
        return Reading(feeds, Batch({}, teachers, weights.to(self.device), labels, numbers, mask))

    def _feeds(self, ids: Ids, numbers: Tensor, view: int) -> dict[str, Tensor]:
        if self._held is not None and self._augmentation is None:
            return {
                name: one if name in self._shared else one.index_select(0, numbers) for name, one in self._held.items()
            }
        if self._held is not None:
            arrays = {
                name: one.numpy() if name in self._shared else one.numpy()[ids] for name, one in self._held.items()
            }
        else:
            arrays = self._data.at(ids)
        if self._augmentation is not None:
            arrays = self._augmentation(arrays, ids, view, self._shared)
        return {name: torch.from_numpy(np.ascontiguousarray(one)).to(self.device) for name, one in arrays.items()}

    def _hold(self, most: int) -> dict[str, Tensor] | None:
        """All samples, if they fit and have an axis of samples."""
        if self._data.whole:
            return None
        step = self.group or min(_BLOCK, self.count)
        first = self._data.at(np.arange(step))
        size = sum(np.asarray(one).nbytes for name, one in first.items() if name not in self._shared)
        if size * self.count > most * step:
            return None
        # What is to be changed is changed by NumPy, on the host.
        device = self.device if self._augmentation is None else torch.device("cpu")
        blocks = [self._data.at(np.arange(n, min(n + step, self.count))) for n in range(0, self.count, step)]
        return {
            name: torch.from_numpy(np.ascontiguousarray(_joined(name, blocks, self._shared))).to(device)
            for name in first
        }


def _joined(name: str, blocks: list[Arrays], shared: frozenset[str]) -> np.ndarray:
    return blocks[0][name] if name in shared else np.concatenate([one[name] for one in blocks])


def _moved(value: Tensor | TopK, device: torch.device) -> Tensor | TopK:
    if isinstance(value, Tensor):
        return value.to(device)
    return dataclasses.replace(
        value,
        probabilities=value.probabilities.to(device),
        indices=value.indices.to(device),
        rest=value.rest.to(device),
    )


def _as_tensor(labels: np.ndarray) -> Tensor:
    """Integers as int64, other numbers as float32.

    Raises:
        UsageError: They are no numbers.
    """
    if labels.dtype.kind not in "biuf":
        raise UsageError(f"labels of the type {labels.dtype} cannot be learnt", hint="Give numbers: classes from 0 on.")
    return torch.from_numpy(np.ascontiguousarray(labels, np.float32 if labels.dtype.kind == "f" else np.int64))
