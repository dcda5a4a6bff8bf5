"""Shares out the data: what is learnt from, what is calibrated with, what is chosen by, and what is judged by."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from graphopt.analysis.cost import costs
from graphopt.datasets import bind, open_dataset
from graphopt.datasets.binding import dataset_of
from graphopt.datasets.column import LABELS, Column, Dataset
from graphopt.datasets.synthetic import synthetic
from graphopt.errors import ModelError, UsageError

if TYPE_CHECKING:
    import onnx_ir as ir

    from graphopt.datasets import Bound
    from graphopt.verify.feeds import Feeds

__all__ = ["Drawn", "Samples", "draw"]

Array = npt.NDArray[Any]

_HELD_OUT: Final = (0.1, 0.3)  # of the data, where there are no others to judge by: the more, the fewer there are
_WANTED: Final = (1000, 10000)  # held out
_FEWEST: Final = 16
_FITTED, _BYTES = 2048, 1 << 28  # samples to calibrate with and their bytes, unless more are asked for
_WORK, _ENOUGH = 1 << 36, 512  # multiply-accumulates of all these samples; below so many nothing is saved
_NOISE: Final = 64


@dataclasses.dataclass(frozen=True, eq=False)
class Samples:
    """Samples that fit a model.

    Attributes:
        bound: The samples.
        slices: By name, a value for each.
        noise: Added to inputs of floats, as a share of their standard deviation.
        order: Numbers of samples of which :attr:`dataset` consists, some of them several times; None for all, once.
    """

    bound: Bound
    slices: Mapping[str, Array] = dataclasses.field(default_factory=dict)
    noise: float = 0.0
    order: Array | None = None

    def __len__(self) -> int:
        return len(self.bound)

    @property
    def labels(self) -> Array | None:
        """One a sample, if there are any."""
        return self.bound.labels

    def batches(self, batch: int) -> Iterator[Feeds]:
        """Feeds, in the order of the data, the same each time."""
        random = np.random.default_rng(0)
        for feeds in self.bound.batches(batch):
            if not self.noise:
                yield feeds
                continue
            yield {
                name: (one + self.noise * float(one.std()) * random.standard_normal(one.shape)).astype(one.dtype)
                if getattr(one, "dtype", np.dtype(bool)).kind == "f"
                else one
                for name, one in feeds.items()
            }

    def noisy(self, noise: float) -> Samples:
        """The same with noise."""
        return dataclasses.replace(self, noise=noise)

    def pick(self, numbers: Array) -> Samples:
        """Some of them, by number."""
        ascending = np.sort(numbers)
        bound = self.bound.pick(ascending)
        kept = ascending[: len(bound)]
        return Samples(bound, {name: values[kept] for name, values in self.slices.items()}, self.noise)

    @property
    def dataset(self) -> Dataset:
        """The same as a dataset, which reads samples when they are asked for."""
        bound = self.bound
        if bound.whole:
            feeds = [dict(feed) for feed in bound.batches(1)]
            labels = bound.labels
            if labels is not None and len(labels) == len(feeds):
                feeds = [{**feed, LABELS: label} for feed, label in zip(feeds, labels, strict=True)]
            return Dataset(bound.name, bound.name, lambda _: {}, feeds=feeds)
        first = bound.gather(np.arange(1))
        order = np.arange(len(bound)) if self.order is None else self.order
        columns = {name: _column(bound, name, array, order) for name, array in first.items()}
        if bound.labels is not None:
            columns[LABELS] = Column.of(bound.labels[order])
        return Dataset(bound.name, bound.name, lambda _: columns)


def _column(bound: Bound, name: str, first: Array, order: Array) -> Column:
    if name in bound.shared:
        return Column.of(np.asarray(first))
    shape = (len(order), *first.shape[1:])
    return Column(shape, first.dtype, lambda rows: np.asarray(bound.gather(order[rows])[name]))


@dataclasses.dataclass(frozen=True, eq=False)
class Drawn:
    """The data, shared out. No sample is in two parts, but ``fit`` is a part of ``train``.

    Attributes:
        train: To learn from.
        fit: To rank and refit with.
        calibrate: To quantize with; ``fit`` and perhaps more.
        choose: To choose by.
        final: To judge the result by; nothing is chosen by it.
        is_synthetic: Whether noise stands in for data.
        notes: What a user should know.
    """

    train: Samples
    fit: Samples
    calibrate: Samples
    choose: Samples
    final: Samples
    is_synthetic: bool
    notes: Sequence[str]

    @property
    def fitted(self) -> int:
        """How many samples are refitted with."""
        return len(self.fit if self.fit.order is None else self.fit.order)


def draw(
    data: Any,
    evaluation: Any,
    model: ir.Model,
    *,
    slices: Sequence[str] = (),
    preprocess: str = "",
    samples: int = 0,
    balanced: bool = False,
    seed: int = 0,
) -> Drawn:
    """Shares out the data.

    Args:
        data: To learn from: whatever :func:`graphopt.datasets.bind` takes; None for noise.
        evaluation: Half to choose and half to judge by, best what the model has never seen; None to hold some of
            ``data`` out.
        model: The model.
        slices: Columns that hold slices.
        preprocess: What to do to the data of files.
        samples: To calibrate with; 0 for as many as are affordable.
        balanced: Calibrate with as many samples of each class and slice as of any other, the rare ones several times.
        seed: Of the drawing.

    Raises:
        UsageError: A column of slices is missing.
        ModelError: The data cannot be read, do not fit the model, or are too few.
    """
    notes = []
    source = data
    if source is None:
        notes.append("no data were given: noise stood in for them, and nobody can say what the accuracy is")
        source = synthetic(model, _NOISE, seed)
    given = _samples(source, model, slices, preprocess)
    if evaluation is None:
        train, held_out = _split(given, _share(len(given)), seed)
    else:
        train, held_out = given, _samples(evaluation, model, slices, preprocess)
    choose, final = _split(held_out, 0.5, seed + 1)
    if evaluation is None:
        notes.append(
            f"{len(held_out):,} samples of the data were set aside, half to choose and half to judge by: if the "
            "original has learnt from them, it looks better there than it is"
        )
    count, most = (samples, samples) if samples else _affordable(train, model)
    chosen = _balanced(train, count, seed) if balanced and not train.bound.whole else None
    fit, calibrate = (
        train.pick(_random(train, size, seed)) if chosen is None else dataclasses.replace(train, order=chosen)
        for size in (count, most)
    )
    return Drawn(train, fit, calibrate, choose, final, data is None, [*notes, *given.bound.notes])


def _samples(source: Any, model: ir.Model, slices: Sequence[str], preprocess: str) -> Samples:
    dataset = open_dataset(source, preprocess=preprocess) if isinstance(source, str | Path) else dataset_of(source)
    if not slices:
        return Samples(bind(dataset, model, samples=None))
    found: dict[str, Column] = {}

    def columns(needed: Any) -> Mapping[str, Column]:
        all_of_them = dict(dataset.columns(needed))
        for name in slices:
            if name not in all_of_them:
                raise UsageError(
                    f"{dataset.where}: there is no column '{name}' of slices",
                    hint=f"The data have {', '.join(all_of_them) or 'none'}.",
                )
            found[name] = all_of_them.pop(name)
        return all_of_them

    bound = bind(dataclasses.replace(dataset, columns=columns), model, samples=None)
    if not found:
        raise UsageError(f"{dataset.where}: whole feeds have no columns of slices", hint="Give arrays.")
    short = [name for name, one in found.items() if one.shape and one.shape[0] <= int(bound.rows[-1])]
    odd = [name for name, one in found.items() if len(one.shape) != 1]
    if odd:
        raise ModelError(
            f"{dataset.where}: '{odd[0]}' has the shape {list(found[odd[0]].shape)}", hint="Give one value a sample."
        )
    if short:
        raise ModelError(f"{dataset.where}: '{short[0]}' has no value for each sample")
    return Samples(bound, {name: np.asarray(one.read(bound.rows)) for name, one in found.items()})


def _split(samples: Samples, share: float, seed: int) -> tuple[Samples, Samples]:
    """Two parts without a common sample, the second with that share."""
    group = samples.bound.group
    count = max(1, round(share * len(samples) / group)) * group
    if count >= len(samples):
        raise ModelError(
            f"{samples.bound.name}: {len(samples)} samples cannot be shared out to learn from and to judge by",
            hint="Give more.",
        )
    order = np.random.default_rng(seed).permutation(len(samples))
    return samples.pick(order[count:]), samples.pick(order[:count])


def _share(count: int) -> float:
    """The share of so many samples to hold out."""
    (least, most), (few, many) = _HELD_OUT, _WANTED
    return min(max(least, min(most, few / count)), many / count) if count > _FEWEST else 0.5


def _affordable(samples: Samples, model: ir.Model) -> tuple[int, int]:
    """How many to refit with, and to quantize with.

    Every variant that is built runs all of the former through the original and itself; of the latter it takes a few
    hundred, and judges by others. 512 texts of 128 tokens were as good for a transformer as 1,843.
    """
    one = {name: array for name, array in next(samples.batches(1)).items() if hasattr(array, "shape")}
    group = samples.bound.group
    work = costs(model, input_shapes={name: tuple(array.shape) for name, array in one.items()}).macs
    light = max(_ENOUGH, _WORK * group // max(1, work))
    size: int = sum(array.nbytes for array in one.values())
    most = max(_FEWEST, min(_FITTED, _BYTES * group // max(1, size)))
    return min(most, light), most


def _random(samples: Samples, count: int, seed: int) -> Array:
    return np.random.default_rng(seed).permutation(len(samples))[: max(count, samples.bound.group)]


def _balanced(samples: Samples, count: int, seed: int) -> Array | None:
    """As many samples of each class (and slice) as of any other: the rare ones several times. None if all are alike."""
    labels = samples.labels
    keys = [values.astype(str) for values in samples.slices.values()]
    if labels is not None and labels.ndim == 1 and labels.dtype.kind in "iu":
        keys.append(labels.astype(str))
    if not keys:
        return None
    joined = np.array(["\0".join(row) for row in zip(*keys, strict=True)])
    groups = [np.flatnonzero(joined == one) for one in np.unique(joined)]
    random = np.random.default_rng(seed)
    each = -(-count // len(groups))
    drawn = [np.resize(random.permutation(own), each) for own in groups]
    return np.concatenate(drawn)[random.permutation(each * len(groups))]
