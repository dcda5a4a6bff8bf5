"""Samples for when there are no data: what the model can run on, and images that look like some.

White noise excites a network like nothing it was trained for: neighbouring pixels of real images go together, with a
power that falls with the square of the frequency (D. J. Field, 1987), so that is what images here are made of.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Final

import numpy as np

from graphopt import runtime
from graphopt.datasets.column import Array, Column, Dataset
from graphopt.datasets.transform import layout_of
from graphopt.errors import ModelError, UsageError
from graphopt.verify import fill
from graphopt.verify.feeds import Plan
from graphopt.verify.search import Attempt, Search, refusal

if TYPE_CHECKING:
    import onnx_ir as ir

    from graphopt.verify.feeds import Feeds, Guess, Input

__all__ = ["smooth_image", "synthetic"]

_SHARED: Final = 0.8  # of an image's smooth part, what its channels have in common, as an amplitude
_NOISE: Final = 0.3  # white noise, as an amplitude beside 1
_SMALLEST: Final = 4  # pixels a side below which there is nothing to smooth
_HINT: Final = "Give calibration data; or shapes, where the sizes of the inputs are the trouble."


def synthetic(model: ir.Model, samples: int = 256, seed: int = 0) -> Dataset:
    """Seeded samples on which ONNX Runtime runs the model, made when they are read.

    Inputs are filled as verification fills them (integers below what they select from), with the first guess of sizes
    that runs; float inputs of rank 4 become smooth random images of zero mean and unit variance.

    Raises:
        ModelError: No guess runs, or an input is no tensor.
        UsageError: ``samples`` is less than 1.
    """
    if samples < 1:
        raise UsageError(f"{samples} samples are none", hint="Give 1 or more.")
    plan = Plan.of(model)
    for entry in plan.inputs:
        if entry.kind != "tensor":
            raise ModelError(f"input '{entry.name}' is a {entry.kind}, for which no samples are made", hint=_HINT)
    guess = _running(model, plan, seed)
    first = plan.fill(guess, seed)
    assert first is not None  # it has just run
    batch = _batch(plan, first)
    columns = {
        entry.name: _column(entry, position, first, guess, samples, batch, seed)
        for position, entry in enumerate(plan.inputs)
    }
    return Dataset("synthetic", "synthetic data", lambda _: columns)


def smooth_image(shape: tuple[int, ...], spatial: tuple[int, int], random: np.random.Generator) -> Array:
    """Images with a 1/f amplitude spectrum and some white noise, of zero mean and unit variance each.

    Args:
        shape: (batch, channels, height, width), or with the channels last.
        spatial: Which axes are height and width.
        random: Where the numbers come from.

    Returns:
        float32.
    """
    channels = ({1, 2, 3} - set(spatial)).pop()
    height, width = (shape[axis] for axis in spatial)
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :])
    frequency[0, 0] = np.inf  # no constant part
    count = shape[channels]
    white = random.standard_normal((shape[0], count + 1, height, width))
    smooth = np.fft.irfft2(np.fft.rfft2(white) / frequency, (height, width))
    smooth /= smooth.std((-2, -1), keepdims=True) + np.finfo(np.float32).tiny
    mixed = _SHARED * smooth[:, :1] + (1 - _SHARED**2) ** 0.5 * smooth[:, 1:]
    image = mixed + _NOISE * random.standard_normal(mixed.shape)
    image -= image.mean((1, 2, 3), keepdims=True)
    image /= image.std((1, 2, 3), keepdims=True)
    made: Array = np.moveaxis(image, 1, -1) if channels == 3 else image
    return made.astype(np.float32)


def _running(model: ir.Model, plan: Plan, seed: int) -> Guess:
    session = runtime.open_session(model, optimization="basic")  # to know that it runs, no more is needed
    names = [output.name for output in session.get_outputs()]

    def attempt(feeds: Feeds, _: bool) -> Attempt:
        try:
            session.run_with_ort_values(names, {name: runtime.to_ort_value(array) for name, array in feeds.items()})
        except runtime.ort_errors() as error:
            return Attempt(runtime.trim(error))
        return Attempt()

    search = Search(plan, attempt, seed)
    found = search.first(plan.guesses(), seed)
    if found is None:
        raise ModelError(refusal(search.tried), hint=_HINT)
    return found[0]


def _batch(plan: Plan, first: Feeds) -> int | None:
    """How many samples a feed holds along the leading axes of all inputs; None where the whole feed is the sample."""
    leading = {entry.name: entry.shape[0] for entry in plan.inputs if entry.shape}
    sizes = {first[name].shape[0] for name in leading}
    symbols = {dim for dim in leading.values() if isinstance(dim, str)}
    is_inner = any(dim in symbols for entry in plan.inputs for dim in (entry.shape or ())[1:])
    is_batch = all(isinstance(dim, int) or plan.open_dims.roles.get(dim) == "batch" for dim in leading.values())
    known = all(entry.shape is not None and not entry.uses.kind for entry in plan.inputs)
    return sizes.pop() if len(sizes) == 1 and is_batch and known and not is_inner else None


def _column(
    entry: Input, position: int, first: Feeds, guess: Guess, samples: int, batch: int | None, seed: int
) -> Column:
    shape = first[entry.name].shape
    made = functools.partial(_made, entry, shape, guess, position, seed)
    dtype = entry.dtype.numpy()
    if not shape:
        return Column.of(np.asarray(first[entry.name], dtype))
    if batch is None or batch == 0:
        return Column.each(samples, shape, dtype, made)
    calls = -(-samples // batch)
    return Column.each(calls * batch, shape[1:], dtype, lambda row: made(row // batch)[row % batch])


def _made(entry: Input, shape: tuple[int, ...], guess: Guess, position: int, seed: int, number: int) -> Array:
    random = np.random.default_rng([seed + number, position])
    spatial = _spatial(entry, shape)
    if spatial is None:
        return fill.array(entry, shape, guess, random)
    return smooth_image(shape, spatial, random)


def _spatial(entry: Input, shape: tuple[int, ...]) -> tuple[int, int] | None:
    """The height and width axes of what looks like an image."""
    uses = entry.uses
    if len(shape) != 4 or not entry.dtype.is_floating_point() or uses.kind or uses.choices or uses.is_index:
        return None
    axes = (1, 2) if layout_of(entry.shape or shape) == "nhwc" else (2, 3)
    return axes if min(shape[axis] for axis in axes) >= _SMALLEST else None
