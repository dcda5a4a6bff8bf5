"""Values for one input: seeded, in the range that its uses allow."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import onnx_ir as ir

from graphopt.verify import dims

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from graphopt.verify.feeds import Guess, Input

__all__ = ["array", "options"]

Array = np.ndarray[Any, Any]

_MASK: Final = re.compile(r"mask", re.IGNORECASE)
_WORDS: Final = ("alpha", "beta", "gamma", "delta", "epsilon")
_SHARE_OF_ONES: Final = 0.7


def array(entry: Input, shape: tuple[int, ...], guess: Guess, random: np.random.Generator) -> Array:
    """An array for an input, of its dtype (ml_dtypes where NumPy has none)."""
    dtype = entry.dtype
    if dtype == ir.DataType.STRING:
        words = [str(choice) for choice in entry.uses.choices] or list(_WORDS)
        return np.array(random.choice(np.array(words, object), shape), object).reshape(shape)
    if dtype == ir.DataType.BOOL:
        if not shape or guess.variant == 0:
            return np.full(shape, guess.variant == 0)
        return random.random(shape) < _SHARE_OF_ONES
    return np.asarray(_numbers(entry, shape, guess, random)).reshape(shape).astype(dtype.numpy())


def options(entry: Input) -> list[Any]:
    """The constants that the graph compares an input with; where there is one only, also another value."""
    found = list(dict.fromkeys(entry.uses.choices))
    if len(found) == 1 and isinstance(found[0], (int, float)):
        found.append(found[0] // 2 if found[0] > 1 else found[0] + 1)
    return found


def _numbers(entry: Input, shape: tuple[int, ...], guess: Guess, random: np.random.Generator) -> Any:
    uses, dtype = entry.uses, entry.dtype
    if uses.kind == "parts":
        return _parts(dims.size(uses.limits[0], guess.sizes, 1), shape)
    if uses.kind == "resized":
        return _resized([dims.size(limit, guess.sizes, 4) for limit in uses.limits], shape)
    if uses.is_index or uses.limits:
        bounds = [dims.size(limit, guess.sizes, guess.cap) for limit in uses.limits] or [guess.cap]
        return random.integers(uses.low, max(uses.low + 1, min(bounds)), shape)
    if uses.choices and not isinstance(uses.choices[0], str):
        found = options(entry)
        return np.full(shape, found[guess.choice % len(found)])
    if uses.kind:
        return KINDS[uses.kind](shape, random)
    if _MASK.search(entry.name):
        return np.ones(shape) if guess.variant == 0 else random.random(shape) < _SHARE_OF_ONES
    if dtype.is_floating_point():
        return random.random(shape) if guess.style == "unit" else random.standard_normal(shape)
    if dtype.bitwidth <= 8:
        low = -(1 << dtype.bitwidth - 1) if dtype.is_signed() else 0
        return random.integers(low, low + (1 << dtype.bitwidth), shape)
    return random.integers(0, guess.cap, shape)


def _parts(total: int, shape: tuple[int, ...]) -> Array:
    """Sizes that add up, as Split wants them; a scalar is the size of each."""
    if not shape:
        return np.array(max(1, total // 2))
    parts = np.full(shape, total // max(1, shape[0]))
    parts[-1:] += total - parts.sum()
    return parts


def _resized(sizes: list[int], shape: tuple[int, ...]) -> Array:
    """The input's own sizes, the spatial ones doubled; kernels for other axes are few."""
    if shape != (len(sizes),):
        return np.full(shape, 4)
    return np.array([size if axis < 2 and len(sizes) > 2 else 2 * size for axis, size in enumerate(sizes)])


def _reshape(shape: tuple[int, ...], _: np.random.Generator) -> Array:
    target = np.ones(shape)
    target.reshape(-1)[:1] = -1
    return target


def _scales(shape: tuple[int, ...], _: np.random.Generator) -> Array:
    scales = np.ones(shape)
    scales.reshape(-1)[2:] = 2
    return scales


KINDS: Final[Mapping[str, Callable[[tuple[int, ...], np.random.Generator], Array]]] = {
    "reshape": _reshape,
    "scales": _scales,
    "ones": lambda shape, _: np.ones(shape),
    "zeros": lambda shape, _: np.zeros(shape),
    "sizes": lambda shape, _: np.full(shape, 4),
    "ends": lambda shape, _: np.full(shape, 1 << 20),
    "trips": lambda shape, _: np.full(shape, 3),
    "depth": lambda shape, _: np.full(shape, 8),
    "axes": lambda shape, _: np.arange(math.prod(shape)).reshape(shape),
    "divisor": lambda shape, random: random.integers(1, 9, shape),
    "shift": lambda shape, random: random.integers(0, 4, shape),
    "unit": lambda shape, random: random.uniform(0.1, 0.5, shape),
}
"""How to fill inputs that are sizes, axes and the like; the names are those of ``values.KINDS``."""
