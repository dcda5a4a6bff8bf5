"""Shapes of arrays against those that a model declares."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from graphopt.errors import ModelError
from graphopt.verify import dims

if TYPE_CHECKING:
    from graphopt.datasets.bound import Part
    from graphopt.datasets.column import Rows
    from graphopt.verify.feeds import Input

__all__ = ["Fit", "Fitted", "check_finite", "fit", "fit_call"]


@dataclass(frozen=True, slots=True)
class Fit:
    """An input, and the shape of the array for it: samples first."""

    entry: Input
    shape: tuple[int, ...]

    @property
    def extra(self) -> int | None:
        """Axes that the array has more than the input; None where the input's rank is not known."""
        return None if self.entry.shape is None else len(self.shape) - len(self.entry.shape)

    def mismatch(self, where: str, hint: str = "") -> ModelError:
        """The error for a shape that does not fit."""
        return ModelError(
            f"{where}: input '{self.entry.name}' has the shape {list(self.shape)}, the model takes "
            f"{self.entry.shown_shape}",
            hint=hint,
        )


@dataclass(frozen=True, slots=True)
class Fitted:
    """How arrays are fed.

    Attributes:
        samples: How many there are.
        group: How many make a batch; None for any number.
        stacked: Inputs whose arrays have an axis more, the leading one.
    """

    samples: int
    group: int | None
    stacked: frozenset[str]


def fit(fits: Sequence[Fit], where: str) -> Fitted:
    """How these arrays are fed.

    Raises:
        ModelError: They do not fit the model, or each other.
    """
    for one in fits:
        _check_rank(one, where)
    samples = _samples([one for one in fits if one.shape], where)
    stacked = frozenset(one.entry.name for one in fits if one.extra == 1)
    group = 1 if stacked else _group(fits, where)
    batch = [Fit(one.entry, _fed(one, group or samples, stacked)) for one in fits]
    for one, fed in zip(fits, batch, strict=True):
        if not fed.entry.accepts(fed.shape):
            raise one.mismatch(where, _hint(one, bool(stacked)))
    if not stacked:
        _check_batch_symbols(fits, where)
    _check_symbols(batch, where, but=_leading(fits) if group is None else frozenset())
    return Fitted(samples, group, stacked)


def fit_call(fits: Sequence[Fit], where: str) -> None:
    """Checks the arrays of one whole feed.

    Raises:
        ModelError: They do not fit the model, or each other.
    """
    for one in fits:
        if not one.entry.accepts(one.shape):
            raise one.mismatch(where, "A feed is one whole call of the model.")
    _check_symbols(fits, where)


def check_finite(part: Part, rows: Rows, step: int, where: str) -> None:
    """Looks for NaN and infinities among floats that were given; those computed here have none.

    Raises:
        ModelError: There is one.
    """
    given = part.column.dtype
    if part.column.derived or given.kind not in "fV" or part.transform.dtype.kind not in "fV":
        return
    for start in range(0, len(rows), step):
        some = rows[start : start + step]
        values = np.asarray(part.read(some), np.float64 if given == np.float64 else np.float32)
        bad = ~np.isfinite(values)
        if bad.any():
            row = int(some[np.nonzero(bad.reshape(len(some), -1).any(1))[0][0]]) if part.column.shape else 0
            kind = "NaN" if np.isnan(values[bad][0]) else "an infinity"
            raise ModelError(
                f"{where}: input '{part.name}' has {kind} in sample {row}",
                hint="Leave such samples out, or replace the values: numpy.nan_to_num does.",
            )


def _check_rank(one: Fit, where: str) -> None:
    if one.extra in (0, 1) or (one.extra is None and one.shape):
        return
    rank = len(one.entry.shape or ())
    raise one.mismatch(
        where,
        f"Give {rank} axes, samples first, or {rank + 1} where each sample is a whole feed."
        if rank
        else "Give one value, or one a sample.",
    )


def _samples(fits: Sequence[Fit], where: str) -> int:
    if not fits:
        raise ModelError(f"{where}: there are no samples: no array has an axis for them")
    first = fits[0]
    for other in fits:
        if other.shape[0] != first.shape[0]:
            raise ModelError(
                f"{where}: '{first.entry.name}' has {first.shape[0]} samples and '{other.entry.name}' has "
                f"{other.shape[0]}, along the leading axes of {list(first.shape)} and {list(other.shape)}",
                hint="Samples come first; what is a whole feed a sample, such as a state, takes one axis more.",
            )
    if first.shape[0] == 0:
        raise ModelError(f"{where}: there are no samples: '{first.entry.name}' has the shape {list(first.shape)}")
    return first.shape[0]


def _group(fits: Sequence[Fit], where: str) -> int | None:
    """The model's batch, where it is fixed."""
    fixed = {
        one.entry.name: one.entry.shape[0] for one in fits if one.entry.shape and isinstance(one.entry.shape[0], int)
    }
    sizes = set(fixed.values())
    if len(sizes) > 1 or 0 in sizes:
        raise ModelError(
            f"{where}: the model's inputs do not agree on a batch: "
            f"{', '.join(f'{size} for {name!r}' for name, size in fixed.items())}",
            hint="Give all arrays one axis more, the leading one, along which each sample is a whole feed.",
        )
    return sizes.pop() if sizes else None


def _fed(one: Fit, batch: int, stacked: frozenset[str]) -> tuple[int, ...]:
    """The shape of one feed."""
    if one.entry.name in stacked or not one.shape:
        return one.shape[1:]
    return (batch, *one.shape[1:])


def _leading(fits: Sequence[Fit]) -> frozenset[str]:
    return frozenset(one.entry.shape[0] for one in fits if one.entry.shape and isinstance(one.entry.shape[0], str))


def _check_batch_symbols(fits: Sequence[Fit], where: str) -> None:
    """A leading symbol that stands elsewhere too is no batch: an adjacency matrix (N, N), a state (2, N, 64)."""
    leading = _leading(fits)
    for one in fits:
        for axis, dim in enumerate(one.entry.shape or ()):
            if axis and dim in leading:
                raise one.mismatch(
                    where,
                    f"'{dim}' is the leading dimension of an input, and axis {axis} here: give this array one more "
                    "axis, the leading one, along which each sample is a whole feed.",
                )


def _check_symbols(fits: Sequence[Fit], where: str, but: frozenset[str] = frozenset()) -> None:
    sizes: dict[str, tuple[int, str]] = {}
    pairs = [
        (dim, size, one)
        for one in fits
        for dim, size in zip(one.entry.shape or (), one.shape, strict=False)
        if isinstance(dim, str) and dim not in but
    ]
    for dim, size, one in pairs:
        if dims.is_expression(dim):
            continue
        known, name = sizes.setdefault(dim, (size, one.entry.name))
        if known != size:
            raise ModelError(
                f"{where}: '{dim}' is {known} for input '{name}' and {size} for '{one.entry.name}'",
                hint="The model wants the same size for both.",
            )
    for dim, size, one in pairs:
        wanted = dims.evaluate(dim, {name: size for name, (size, _) in sizes.items()})
        if wanted is not None and wanted != size:
            raise ModelError(f"{where}: '{dim}' of input '{one.entry.name}' should be {wanted} and is {size}")


def _hint(one: Fit, is_stacked: bool) -> str:
    shape = one.entry.shape or ()
    if is_stacked and one.extra == 0 and shape and isinstance(shape[0], int) and shape[0] != 1:
        return (
            "Give it one axis more, the leading one, along which each sample is a whole feed, as other arrays have it."
        )
    if len(shape) == 4 and len(one.shape) == 4 and set(one.shape[1:]) == set(shape[1:]):
        return "The layout seems to be the other one: say which the model takes with layout=nchw or layout=nhwc."
    return ""
