"""Which ranges follow from what activations hold."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from graphopt.quantization.ranges import METHODS, Histogram

Array = npt.NDArray[Any]


def seen(*arrays: Array) -> Histogram:
    found = Histogram()
    for array in arrays:
        found.add(array.astype(np.float32))
    return found


def squared_error(x: Array, low: float, high: float) -> float:
    """Of rounding to 256 levels."""
    scale = (high - low) / 255
    zero = round(-low / scale)
    return float(np.square((np.clip(np.round(x / scale) + zero, 0, 255) - zero) * scale - x).mean())


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", ["normal", "relu", "positive", "negative", "constant", "zero"])
def test_zero_is_inside_and_nothing_outside_what_was_seen(method: str, kind: str) -> None:
    normal = np.random.default_rng(0).standard_normal(5000)
    x = {
        "normal": normal,
        "relu": np.maximum(normal, 0),
        "positive": np.abs(normal) + 3,
        "negative": -np.abs(normal) - 3,
        "constant": np.full(10, 2.5),
        "zero": np.zeros(10),
    }[kind]
    low, high = METHODS[method](seen(x))
    assert min(0, x.min()) - 1e-6 <= low <= 0 <= high <= max(0, x.max()) + 1e-6
    if kind == "zero":
        assert (low, high) == (0, 0)
    else:
        assert squared_error(x, low, high) < 0.01 * np.square(x).mean()


def test_batches_add_up() -> None:
    random = np.random.default_rng(0)
    parts = [random.standard_normal(1000) * scale for scale in (1, 0.1, 20, 3)]
    together, whole = seen(*parts), seen(np.concatenate(parts))
    assert (together.low, together.high) == (whole.low, whole.high)
    assert together.counts.sum() == whole.counts.sum() == 4000
    for method in METHODS.values():
        assert np.allclose(method(together), method(whole), rtol=0.1)


def test_percentile_leaves_out_outliers() -> None:
    x = np.random.default_rng(0).standard_normal(200_000)
    x[0], x[1] = 40, -40
    low, high = METHODS["percentile"](seen(x))
    assert -6 < low < -3 < 3 < high < 6
    assert METHODS["minmax"](seen(x)) == (-40, 40)


def test_zeros_do_not_count_as_what_must_be_told_apart() -> None:
    """Most of what a Relu gives is zero, which is exact in any range."""
    x = np.maximum(np.random.default_rng(0).standard_normal(100_000), 0)
    more = np.concatenate([x, np.zeros(900_000)])
    assert METHODS["entropy"](seen(x)) == METHODS["entropy"](seen(more))
    assert METHODS["entropy"](seen(x))[1] > 3


def test_mse_is_near_the_best() -> None:
    x = np.random.default_rng(0).laplace(size=50_000)
    low, high = METHODS["mse"](seen(x))
    best = min(squared_error(x, x.min() * share, x.max() * share) for share in np.linspace(0.02, 1, 99))
    assert squared_error(x, low, high) < 1.05 * best


def test_what_is_not_finite() -> None:
    assert not seen(np.array([1.0, np.inf])).is_finite
    assert not seen(np.array([np.nan])).is_finite
    assert seen(np.array([1.0])).is_finite
    empty = seen(np.zeros(0))
    assert empty.low > empty.high
