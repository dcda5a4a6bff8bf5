"""Samples that fit a model: batches, again and again the same ones."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np

from graphopt.datasets.column import Array, Column, Rows
from graphopt.errors import UsageError

if TYPE_CHECKING:
    from graphopt.datasets.transform import Transform
    from graphopt.verify.feeds import Feeds

__all__ = ["Bound", "Calls", "Part", "Parts", "Source"]

_BLOCK: Final = 64  # samples that are read at once where nobody says how many


class Source(Protocol):
    """Where the samples of a :class:`Bound` come from."""

    @property
    def whole(self) -> bool:
        """Whether each sample is a whole feed."""

    @property
    def shared(self) -> frozenset[str]:
        """Inputs that are the same for all samples."""

    def feeds(self, rows: Rows) -> Feeds:
        """The feeds of these samples, as one batch."""

    def labels(self, rows: Rows) -> Array | None:
        """Their labels."""


@dataclass(frozen=True, slots=True)
class Part:
    """One input: the column that fills it, and what is done to its rows."""

    name: str
    column: Column
    transform: Transform

    def read(self, rows: Rows) -> Array:
        """As the model takes them, samples first; a column of rank 0 as it is."""
        return self.transform(self.column.read(rows))

    def keep(self, rows: Rows) -> Part:
        """The same, with these rows in memory; no others can be read any more."""
        if not self.column.shape:
            return replace(self, column=Column.of(self.column.read(rows)))
        kept = self.column.read(rows)
        return replace(self, column=replace(self.column, read=lambda some: kept[np.searchsorted(rows, some)]))


@dataclass(frozen=True, slots=True)
class Parts:
    """Samples along the leading axes of arrays.

    Attributes:
        parts: The inputs.
        truth: All labels.
        stacked: Inputs whose rows are whole feeds, so that the leading axis goes.
    """

    parts: Sequence[Part]
    truth: Array | None = None
    stacked: frozenset[str] = frozenset()

    @property
    def whole(self) -> bool:
        """Whether each sample is a whole feed."""
        return bool(self.stacked)

    @property
    def shared(self) -> frozenset[str]:
        """Inputs that are the same for all samples."""
        return frozenset(part.name for part in self.parts if not part.column.shape)

    def feeds(self, rows: Rows) -> Feeds:
        """The feeds of these samples, as one batch."""
        read = {part.name: part.read(rows) for part in self.parts}
        return {name: array[0] if name in self.stacked else array for name, array in read.items()}

    def labels(self, rows: Rows) -> Array | None:
        """Their labels."""
        return None if self.truth is None else self.truth[rows]


@dataclass(frozen=True, slots=True)
class Calls:
    """Whole feeds, and perhaps the labels of each."""

    calls: Sequence[Mapping[str, Any]]
    truths: Sequence[Array] = ()
    whole = True
    shared: frozenset[str] = frozenset()

    def feeds(self, rows: Rows) -> Feeds:
        """The one feed."""
        return dict(self.calls[int(rows[0])])

    def labels(self, rows: Rows) -> Array | None:
        """Those of all these feeds, one after another."""
        return np.concatenate([np.atleast_1d(self.truths[row]) for row in rows.tolist()]) if self.truths else None


class Bound:
    """A subset of a dataset that fits a model; :func:`graphopt.datasets.bind` makes one.

    ``len()`` is the number of samples, each a row of the data or, where the data are whole feeds, such a feed.

    Attributes:
        name: Of the data, for reports.
        notes: What a user should know: samples left out, or fewer than asked for.
    """

    def __init__(self, name: str, source: Source, rows: Rows, *, group: int | None, notes: Sequence[str] = ()) -> None:
        """Args:
        name: Of the data.
        source: Where samples come from.
        rows: Which, ascending.
        group: How many make a batch, where the model or the data decide; None where the caller may.
        notes: See above.
        """
        self.name = name
        self.notes = tuple(notes)
        self._source = source
        self._rows = rows
        self._group = group
        self._digest = ""

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def rows(self) -> Rows:
        """Where each sample is in the data that it comes from, ascending."""
        return self._rows

    @property
    def group(self) -> int:
        """How many samples the model takes at once, where that is fixed; else 1."""
        return self._group or 1

    @property
    def group_is_fixed(self) -> bool:
        """Whether the model takes just :attr:`group` samples at once, and no other number."""
        return self._group is not None

    @property
    def whole(self) -> bool:
        """Whether each sample is a whole feed, whose arrays need not have samples along their leading axes."""
        return self._source.whole

    @property
    def shared(self) -> frozenset[str]:
        """Inputs that are the same for all samples, so that they have no axis of samples."""
        return self._source.shared

    @property
    def labels(self) -> Array | None:
        """One a sample, in the order of the batches (of whole feeds: those of each, one after another), or None."""
        return self._source.labels(self._rows)

    def batches(self, batch: int = 32) -> Iterator[Feeds]:
        """The samples in the order of the data, ``batch`` at a time; each call begins anew with the same.

        A model with a fixed leading dimension gets as many at a time as it takes, whatever ``batch`` is.

        Raises:
            UsageError: ``batch`` is less than 1.
        """
        if batch < 1:
            raise UsageError(f"a batch of {batch} samples is none", hint="Give 1 or more.")
        return self._batches(self._group or batch)

    def _batches(self, size: int) -> Iterator[Feeds]:
        for start in range(0, len(self._rows), size):
            yield self._source.feeds(self._rows[start : start + size])

    def at(self, numbers: Rows) -> Feeds:
        """The samples of these numbers (from 0 on, in any order, repeats are fine) as one batch in that order.

        Raises:
            UsageError: The model takes another number of samples at once.
            IndexError: There is no such sample.
        """
        if len(numbers) != (self._group or len(numbers)):
            raise UsageError(f"{self.name}: {len(numbers)} samples are asked for, and the model takes {self._group}")
        return self.gather(numbers)

    def gather(self, numbers: Rows) -> Feeds:
        """The same, of any number of samples, whatever the model takes at once."""
        ascending, places = np.unique(numbers, return_inverse=True)
        feeds = self._source.feeds(self._rows[ascending])
        if self.whole or np.array_equal(ascending, numbers):
            return feeds
        return {name: array if name in self.shared else array[places] for name, array in feeds.items()}

    def labels_at(self, numbers: Rows) -> Array | None:
        """The labels of these samples, in their order (of whole feeds: those of each, one after another)."""
        return self._source.labels(self._rows[numbers])

    @property
    def digest(self) -> str:
        """SHA-256, in hex, of what is fed: names, dtypes, shapes and values; the same for the same samples, always."""
        if not self._digest:
            total = hashlib.sha256(f"{len(self)} samples".encode())
            for feeds in self._batches(self._group or _BLOCK):
                for name in sorted(feeds):
                    total.update(json.dumps(name).encode())
                    _hash(total, feeds[name])
            self._digest = total.hexdigest()
        return self._digest

    def take(self, count: int, seed: int = 0) -> Bound:
        """A random subset; all of it where there are no more.

        Raises:
            UsageError: ``count`` is less than 1, or than the model takes at once.
        """
        if count >= len(self):
            return self
        return self._part(np.random.default_rng(seed).permutation(len(self))[: self._whole(count, f"{count} samples")])

    def pick(self, numbers: Rows) -> Bound:
        """The subset of these samples, by number (from 0 on), in the order of the data.

        Raises:
            UsageError: They are fewer than the model takes at once.
        """
        return self._part(numbers[: self._whole(len(numbers), f"{len(numbers)} samples")])

    def split(self, fraction: float, seed: int = 0) -> tuple[Bound, Bound]:
        """Two random parts without a common sample, the first with ``fraction`` (0 to 1) of them.

        Raises:
            UsageError: One of them would be empty.
        """
        if not 0 < fraction < 1:
            raise UsageError(f"a fraction of {fraction} leaves nothing to one side", hint="Give one between 0 and 1.")
        shares = f"{fraction:g} of {len(self)} samples"
        count = self._whole(round(fraction * len(self)), shares)
        self._whole(len(self) - count, f"what {shares} leave")
        order = np.random.default_rng(seed).permutation(len(self))
        return self._part(order[:count]), self._part(order[count:])

    def _whole(self, count: int, what: str) -> int:
        """As many of ``count`` as fill the groups."""
        whole = count - count % (self._group or 1)
        if whole < 1:
            takes = f"fewer than the {self._group} that the model takes at once" if count > 0 else "none"
            raise UsageError(f"{self.name}: {what}: that is {takes}", hint="Give more samples.")
        return whole

    def _part(self, positions: Rows) -> Bound:
        return Bound(self.name, self._source, self._rows[np.sort(positions)], group=self._group, notes=self.notes)


def _hash(total: hashlib._Hash, value: Any) -> None:
    """Takes in a feed: an array, a list of them, or None."""
    if value is None:
        total.update(b"none")
    elif isinstance(value, (list, tuple)):
        total.update(f"{len(value)} arrays".encode())
        for entry in value:
            _hash(total, entry)
    else:
        array = np.asarray(value)
        total.update(json.dumps([array.dtype.name, array.shape]).encode())
        texts = array.dtype.hasobject  # whose bytes are addresses
        total.update(json.dumps(array.tolist()).encode() if texts else np.ascontiguousarray(array).tobytes())
