"""What least squares needs to know of a layer's rows, gathered batch by batch, and the fit itself.

With rows ``x`` and wanted results ``y``, less their means where the layer has a bias: ``G = sum x x'``,
``C = sum x y'``. A weight ``W`` then misses ``y`` by ``sum y'y - 2 tr(W C) + tr(W G W')``, and the best one near
``W0`` is ``W0 + (C' - W0 G) (G + s I)^-1``: ridge regression of what ``W0`` misses (Hoerl and Kennard, 1970). Where
there are fewer rows than columns the rows themselves are kept, and ``x' (x x' + s I)^-1`` does the same.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from graphopt.pruning.inverse import inverse

__all__ = ["Fit", "Moments", "Rows", "Samples", "best_fit"]

Array = npt.NDArray[Any]

RIDGES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""Strengths of the ridge, as shares of the mean variance of a column; the held-out rows choose one."""

_FIRST = 2  # of RIDGES, the one to begin with
_STEPS = 10  # of refinement


class Samples(abc.ABC):
    """Rows of a layer and the results they should give.

    Attributes:
        count: How many rows.
        row_sum: Their sum, ``(groups, columns)``.
        result_sum: The sum of the results, ``(groups, outputs)``.
    """

    def __init__(self, groups: int, columns: int, outputs: int) -> None:
        self.count = 0
        self.row_sum: Array = np.zeros((groups, columns))
        self.result_sum: Array = np.zeros((groups, outputs))

    def add(self, rows: Array, results: Array | None = None) -> None:
        """Adds ``(groups, n, columns)`` rows and, unless there are no outputs, ``(groups, n, outputs)`` results."""
        self.count += rows.shape[1]
        self.row_sum += rows.sum(axis=1, dtype=np.float64)
        if results is not None:
            self.result_sum += results.sum(axis=1, dtype=np.float64)

    @abc.abstractmethod
    def join(self, other: Any) -> None:
        """Adds the rows of another of the same kind."""
        self.count += other.count
        self.row_sum += other.row_sum
        self.result_sum += other.result_sum

    @abc.abstractmethod
    def variance(self, *, centred: bool) -> float:
        """The squares of the results, less their mean if ``centred``, added up."""

    @abc.abstractmethod
    def error(self, weight: Array, bias: Array | None) -> float:
        """By how much a weight and a bias miss the results: squares, added up."""

    @abc.abstractmethod
    def regress(self, weight: Array, ridge: float, *, centred: bool) -> Array:
        """The weight near ``weight``, of the same shape, that comes closest to the results."""

    def bias(self, weight: Array) -> Array:
        """The bias ``(groups, outputs)`` that suits a weight best."""
        missed: Array = self.result_sum - np.einsum("goc,gc->go", weight, self.row_sum)
        return missed / max(1, self.count)


class Moments(Samples):
    """Rows as sums of products: memory for the square of the columns, however many rows."""

    def __init__(self, groups: int, columns: int, outputs: int = 0, dtype: npt.DTypeLike = np.float64) -> None:
        super().__init__(groups, columns, outputs)
        self.gram: Array = np.zeros((groups, columns, columns), dtype)
        self.cross: Array = np.zeros((groups, columns, outputs), dtype)
        self.energy: Array = np.zeros((groups, outputs))

    def add(self, rows: Array, results: Array | None = None) -> None:
        super().add(rows, results)
        turned = rows.transpose(0, 2, 1)
        self.gram += turned @ rows  # made in float32, added up in float64
        if results is not None:
            self.cross += turned @ results
            self.energy += np.square(results, dtype=np.float64).sum(axis=1)

    def join(self, other: Moments) -> None:
        super().join(other)
        self.gram += other.gram
        self.cross += other.cross
        self.energy += other.energy

    def variance(self, *, centred: bool) -> float:
        mean = float(np.square(self.result_sum).sum()) / max(1, self.count)
        return float(self.energy.sum()) - (mean if centred else 0.0)

    def error(self, weight: Array, bias: Array | None) -> float:
        total = float(self.energy.sum() - 2 * np.einsum("goc,gco->", weight, self.cross))
        total += float(np.einsum("goc,goc->", weight @ self.gram, weight))
        if bias is not None:
            off = self.result_sum - np.einsum("goc,gc->go", weight, self.row_sum)
            total += float(self.count * np.square(bias).sum() - 2 * (bias * off).sum())
        return total

    def covariance(self, *, centred: bool = True) -> Array:
        """The sum of products ``(groups, columns, columns)``, of rows less their mean if ``centred``."""
        if not centred:
            return self.gram
        mean = self.row_sum / max(1, self.count)
        spread: Array = self.gram - (self.row_sum[:, :, None] * mean[:, None, :]).astype(self.gram.dtype)
        return spread

    def regress(self, weight: Array, ridge: float, *, centred: bool) -> Array:
        gram, cross = self.covariance(centred=centred), self.cross
        if centred:
            cross = cross - (self.row_sum[:, :, None] * (self.result_sum / max(1, self.count))[:, None, :])
        missed = cross - gram @ weight.transpose(0, 2, 1)
        gram = gram if centred else gram.copy()
        diagonal = np.einsum("gcc->gc", gram)  # a view
        diagonal += ridge * np.maximum(diagonal.mean(axis=1, keepdims=True), 1e-12)
        change: Array = inverse(gram) @ missed
        return weight + change.transpose(0, 2, 1)


class Rows(Samples):
    """Rows as they are, where they do not take too much memory.

    What follows a layer may cut its results off: a ReLU makes no difference between -1 and -2. ``add`` takes bounds
    (``floor``, ``ceiling``, broadcast to the results) beyond which results are as good as at the bound, and
    :meth:`refine` makes use of them.
    """

    def __init__(self, groups: int, columns: int, outputs: int) -> None:
        super().__init__(groups, columns, outputs)
        self._parts: dict[str, list[Array]] = {"rows": [], "results": [], "floor": [], "ceiling": []}

    def add(
        self, rows: Array, results: Array | None = None, floor: Array | None = None, ceiling: Array | None = None
    ) -> None:
        """Adds rows and results as :meth:`Samples.add` does, and the bounds of the results."""
        super().add(rows, results)
        for name, array in (("rows", rows), ("results", results), ("floor", floor), ("ceiling", ceiling)):
            if array is not None:
                self._parts[name].append(np.asarray(array, np.float32))

    def join(self, other: Rows) -> None:
        super().join(other)
        for name, parts in self._parts.items():
            parts += other._parts[name]

    def variance(self, *, centred: bool) -> float:
        results = self._cut(self._all("results"))
        if centred:
            results = results - results.mean(axis=1, keepdims=True)
        return float(np.square(results, dtype=np.float64).sum())

    def error(self, weight: Array, bias: Array | None) -> float:
        missed = self._cut(self._all("results")) - self._cut(self._give(weight, bias))
        return float(np.square(missed, dtype=np.float64).sum())

    def regress(self, weight: Array, ridge: float, *, centred: bool) -> Array:
        return self._regression(ridge, centred)(weight, self._all("results"))

    @property
    def is_bounded(self) -> bool:
        """Whether there are bounds."""
        return bool(self._parts["floor"] or self._parts["ceiling"])

    def refine(self, weight: Array, bias: Array, ridge: float, steps: int) -> tuple[Array, Array]:
        """A weight and a bias that give better results where the bounds are respected.

        Where the wanted result lies beyond a bound, whatever lies beyond it is right. Each step wants of such results
        what the last step gave (or the bound), which never makes the error larger: majorization, as in Zhang et al.,
        *Accelerating Very Deep Convolutional Networks* (arXiv 1505.06798).
        """
        regression = self._regression(ridge, True)
        results = self._all("results")
        for _ in range(steps):
            given = self._give(weight, bias)
            wanted = results
            if self._parts["floor"]:
                floor = self._all("floor")
                wanted = np.where(results <= floor, np.minimum(given, floor), wanted)
            if self._parts["ceiling"]:
                ceiling = self._all("ceiling")
                wanted = np.where(results >= ceiling, np.maximum(given, ceiling), wanted)
            weight = regression(weight, wanted)
            bias = wanted.mean(axis=1, dtype=np.float64) - np.einsum("goc,gc->go", weight, self.row_sum / self.count)
        return weight, bias

    def _give(self, weight: Array, bias: Array | None) -> Array:
        given: Array = self._all("rows") @ weight.transpose(0, 2, 1).astype(np.float32)
        return given if bias is None else given + bias[:, None, :].astype(np.float32)

    def _cut(self, results: Array) -> Array:
        if self._parts["floor"]:
            results = np.maximum(results, self._all("floor"))
        return np.minimum(results, self._all("ceiling")) if self._parts["ceiling"] else results

    def _regression(self, ridge: float, centred: bool) -> Callable[[Array, Array], Array]:
        """What gives the best weight near another one for some results: the costly part done once."""
        rows = self._all("rows")
        if centred:
            rows = rows - rows.mean(axis=1, keepdims=True)
        turned = rows.transpose(0, 2, 1)
        wide = rows.shape[1] < rows.shape[2]
        gram = (rows @ turned if wide else turned @ rows).astype(np.float64)
        diagonal = np.einsum("gcc->gc", gram)  # a view
        diagonal += ridge * np.maximum(diagonal.sum(axis=1, keepdims=True) / rows.shape[2], 1e-12)
        inverted = inverse(gram).astype(np.float32)

        def regress(weight: Array, results: Array) -> Array:
            missed = results - rows @ weight.transpose(0, 2, 1).astype(np.float32)
            if centred:
                missed = missed - missed.mean(axis=1, keepdims=True)
            change = turned @ (inverted @ missed) if wide else inverted @ (turned @ missed)
            found: Array = weight + change.transpose(0, 2, 1)
            return found

        return regress

    def _all(self, name: str) -> Array:
        parts = self._parts[name]
        if len(parts) > 1:
            parts[:] = [np.concatenate(parts, axis=1)]
        return parts[0]


@dataclasses.dataclass(frozen=True, slots=True)
class Fit:
    """A refitted weight.

    Attributes:
        weight: ``(groups, outputs, columns)``.
        bias: ``(groups, outputs)``; ``None`` where none was to be fitted.
        ridge: The strength that held-out rows chose; ``None`` where the old weight was better than any new one.
        before: Share of the results' variance that the old weight misses on held-out rows, with the best bias.
        after: What the new one misses.
        rows: How many rows it was fitted to.
    """

    weight: Array
    bias: Array | None
    ridge: float | None
    before: float
    after: float
    rows: int

    def to_arrays(self) -> dict[str, Array]:
        """The fit as arrays, to be kept in a file."""
        numbers = np.array([np.nan if self.ridge is None else self.ridge, self.before, self.after, self.rows])
        return {"weight": self.weight, "numbers": numbers} | ({} if self.bias is None else {"bias": self.bias})

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Array]) -> Fit:
        """What :meth:`to_arrays` gave."""
        ridge, before, after, rows = arrays["numbers"].tolist()
        return cls(arrays["weight"], arrays.get("bias"), None if np.isnan(ridge) else ridge, before, after, int(rows))


def best_fit(train: Samples, held_out: Samples, weight: Array, *, intercept: bool, movable: bool = True) -> Fit:
    """The weight near ``weight`` that comes closest to the results.

    The strength of the ridge is the one that does best on ``held_out``; where none beats ``weight`` with the best bias,
    that one stays. The fit itself then uses all rows.

    Args:
        train: Most of the rows; the others are added to them.
        held_out: The others, at least one.
        weight: ``(groups, outputs, columns)``.
        intercept: Whether there is a bias that can be set.
        movable: Whether the weight can be; else it is only the bias.
    """
    weight = weight.astype(np.float64)
    scale = max(held_out.variance(centred=intercept), 1e-30)

    def missed(candidate: Array) -> float:
        return held_out.error(candidate, train.bias(candidate) if intercept else None) / scale

    before = missed(weight)
    if not movable:
        train.join(held_out)
        return Fit(weight, train.bias(weight) if intercept else None, None, before, before, train.count)
    found: dict[int, float] = {}

    def attempt(place: int) -> float:
        if not 0 <= place < len(RIDGES):
            return np.inf
        if place not in found:
            found[place] = missed(train.regress(weight, RIDGES[place], centred=intercept))
        return found[place]

    place = _FIRST
    step = 1 if attempt(place + 1) < attempt(place) else -1
    while attempt(place + step) < attempt(place):
        place += step
    after, ridge = (found[place], RIDGES[place]) if found[place] < before else (before, None)
    steps = 0
    if intercept and isinstance(train, Rows) and train.is_bounded:
        first = weight if ridge is None else train.regress(weight, ridge, centred=True)
        strength = RIDGES[_FIRST] if ridge is None else ridge
        refined = held_out.error(*train.refine(first, train.bias(first), strength, _STEPS)) / scale
        if refined < after:
            after, ridge, steps = refined, strength, _STEPS
    train.join(held_out)
    chosen = weight if ridge is None else train.regress(weight, ridge, centred=intercept)
    bias = train.bias(chosen) if intercept else None
    if steps and isinstance(train, Rows) and bias is not None and ridge is not None:
        chosen, bias = train.refine(chosen, bias, ridge, steps)
    return Fit(chosen, bias, ridge, before, after, train.count)
