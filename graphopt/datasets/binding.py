"""Checks data against what a model takes, and draws the samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from graphopt.datasets import transform
from graphopt.datasets.arrays import from_arrays, from_feeds
from graphopt.datasets.bound import Bound, Calls, Part, Parts
from graphopt.datasets.column import LABELS, Column, Dataset, Rows
from graphopt.datasets.fitting import Fit, check_finite, fit, fit_call
from graphopt.datasets.opening import open_dataset
from graphopt.datasets.options import Options
from graphopt.errors import ModelError, UsageError
from graphopt.verify.feeds import Feeds, Input, signature

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["bind", "dataset_of"]

_KEEP: Final = 512 << 20  # bytes of samples up to which they stay in memory
_CHECKED: Final = 64  # samples at once, where values are looked at


def bind(
    source: Dataset | str | Path | Mapping[str, Any] | Sequence[Feeds],
    model: ir.Model,
    *,
    samples: int | None = 256,
    seed: int = 0,
    at_most: bool = False,
) -> Bound:
    """Fits data to a model's inputs and draws samples, without replacement and in the order of the data.

    An array of the rank that an input declares has the samples along its leading axis; they are fed in batches, of the
    model's size where its leading dimension is fixed. With one axis more, its leading axis is the samples too, and each
    of them is a whole feed (a state of shape (2, batch, 64) given as (samples, 2, 1, 64)). An array of rank 0 is the
    same for all samples. Inputs that have an initializer may be left out.

    ``int32`` becomes ``int64``, and ``float64`` becomes ``float32``, where the model wants it; nothing else is
    converted without an option that says how. What is drawn stays in memory up to 512 MiB, and is read again beyond.

    Args:
        source: A dataset, its spec or path (see :func:`graphopt.datasets.open_dataset`), arrays by input name with
            ``y`` for labels, or whole feeds.
        model: The model.
        samples: How many to draw; None for all.
        seed: Of the drawing.
        at_most: Whether fewer will do, so that nothing need be said of it.

    Raises:
        UsageError: Options that do not fit the data or the model, or ``samples`` below 1.
        ModelError: The data cannot be read, or do not fit: names, ranks, shapes, dtypes, numbers of samples, NaN.
        EnvironmentProblem: A reader needs the extra ``graphopt[data]``.
    """
    if samples is not None and samples < 1:
        raise UsageError(f"{samples} samples are none", hint="Give 1 or more.")
    dataset = dataset_of(source)
    interface = _Interface.of(model)
    if dataset.feeds is not None:
        return _bind_calls(dataset, dataset.feeds, interface, samples, seed, at_most)
    parts, fits, truth = _parts(dataset, interface)
    found = fit(fits, dataset.where)
    if truth is not None and (not truth.shape or truth.shape[0] != found.samples):
        raise ModelError(
            f"{dataset.where}: there are {found.samples} samples and labels of the shape {list(truth.shape)}",
            hint=f"Give '{LABELS}' one entry a sample.",
        )
    rows, notes = _draw(dataset, found.samples, found.group or 1, samples, seed, at_most)
    labels = None if truth is None else truth.read(np.arange(found.samples))
    held = sum(part.column.bytes_of(len(rows)) for part in parts)
    kept = [part.keep(rows) if held <= _KEEP or part.column.once else part for part in parts]
    for part in kept:
        check_finite(part, rows, _CHECKED, dataset.where)
    return Bound(dataset.name, Parts(kept, labels, found.stacked), rows, group=found.group, notes=notes)


@dataclass(frozen=True, slots=True)
class _Interface:
    """What a model takes, by name: the inputs it needs, and all it knows."""

    needed: Mapping[str, Input]
    known: Mapping[str, Input]

    @classmethod
    def of(cls, model: ir.Model) -> _Interface:
        known = {str(value.name): signature(value) for value in model.graph.inputs}
        return cls({name: entry for name, entry in known.items() if name not in model.graph.initializers}, known)

    def check(self, names: Sequence[str], where: str) -> None:
        """That these names are all that is needed, and no stranger."""
        given = ", ".join(name for name in names) or "nothing"
        hint = f"The model takes {', '.join(self.needed) or 'nothing'}; the data give {given}."
        for name in names:
            if name not in self.known:
                raise ModelError(f"{where}: the model has no input '{name}'", hint=hint)
        for name in self.needed:
            if name not in names:
                raise ModelError(f"{where}: input '{name}' is missing", hint=hint)


def dataset_of(source: Dataset | str | Path | Mapping[str, Any] | Sequence[Feeds]) -> Dataset:
    """What :func:`bind` takes, as a dataset.

    Raises:
        UsageError: It is of another kind.
        ModelError: It cannot be read.
    """
    if isinstance(source, Dataset):
        return source
    if isinstance(source, str | Path):
        return open_dataset(source)
    if isinstance(source, Mapping):
        return from_arrays(source, "arrays")
    if isinstance(source, list | tuple):
        return from_feeds(source, "feeds")
    raise UsageError(
        f"data cannot be {type(source).__name__}",
        hint="Give a path, a spec, a mapping of input names to arrays, or a list of feeds.",
    )


def _parts(dataset: Dataset, interface: _Interface) -> tuple[list[Part], list[Fit], Column | None]:
    """The inputs with their columns, and the labels."""
    needed, where = list(interface.needed.values()), dataset.where
    columns = dict(dataset.columns(needed))
    truth = columns.pop(LABELS, None) if LABELS not in interface.known else None
    if "x" in columns and "x" not in interface.known:
        name = dataset.options.input or (needed[0].name if len(needed) == 1 else "x")
        columns = {name if key == "x" else key: column for key, column in columns.items()}
    interface.check(list(columns), where)
    options = dataset.options
    chosen = ""
    if options.is_numeric or options.layout or options.input:
        chosen = transform.target([interface.known[name] for name in columns], options, where).name
    parts, fits = [], []
    for name, column in columns.items():
        entry = interface.known[name]
        if entry.kind != "tensor":
            raise ModelError(
                f"{where}: input '{name}' is a {entry.kind}, no tensor", hint="Give a list of whole feeds."
            )
        done = transform.plan(entry, column, options if name == chosen else Options(), where)
        parts.append(Part(name, column, done))
        fits.append(Fit(entry, done.shape(column.shape)))
    return parts, fits, truth


def _draw(
    dataset: Dataset, count: int, group: int, samples: int | None, seed: int, at_most: bool
) -> tuple[Rows, list[str]]:
    """The rows to take, and what to say about it."""
    wanted = count if samples is None else min(samples, count)
    whole = wanted - wanted % group
    if whole == 0:
        raise ModelError(
            f"{dataset.where}: the model takes {group} samples at once, and there are {wanted}",
            hint="Give more, or a model with an open leading dimension.",
        )
    notes = []
    if samples is not None and count < samples and not at_most:
        notes.append(f"{dataset.name} has {count} samples, fewer than the {samples} asked for")
    if whole < wanted:
        notes.append(f"{wanted - whole} of {wanted} samples are left out: the model takes {group} at once")
    if whole == count:
        return np.arange(count), notes
    return np.sort(np.random.default_rng(seed).choice(count, whole, replace=False)), notes


def _bind_calls(
    dataset: Dataset, feeds: Sequence[Feeds], interface: _Interface, samples: int | None, seed: int, at_most: bool
) -> Bound:
    """Feeds that are whole already."""
    calls, truths = [], []
    for number, feed in enumerate(feeds):
        where = f"{dataset.where}: feed {number}"
        call = dict(feed)
        truth = call.pop(LABELS, None) if LABELS not in interface.known else None
        interface.check(list(call), where)
        if truth is not None:
            truths.append(np.asarray(truth))
        calls.append(_call(call, interface, where))
    if truths and len(truths) != len(calls):
        raise ModelError(f"{dataset.where}: {len(truths)} of {len(calls)} feeds have labels", hint="Give all, or none.")
    rows, notes = _draw(dataset, len(calls), 1, samples, seed, at_most)
    return Bound(dataset.name, Calls(calls, truths), rows, group=1, notes=notes)


def _call(call: Mapping[str, Any], interface: _Interface, where: str) -> Feeds:
    """One feed, each array in the dtype that the model takes."""
    made: dict[str, Any] = {}
    fits = []
    for name, value in call.items():
        entry = interface.known[name]
        if entry.kind != "tensor":
            made[name] = value
            continue
        column = Column.of(np.asarray(value)[None])
        part = Part(name, column, transform.Transform(entry.dtype.numpy()))
        transform.check_dtype(entry, column, Options(), where)
        check_finite(part, np.arange(1), 1, where)
        made[name] = np.asarray(part.read(np.arange(1))[0])
        fits.append(Fit(entry, np.shape(made[name])))
    fit_call(fits, where)
    return made
