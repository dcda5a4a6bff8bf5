"""Handwritten digits that come with scikit-learn: small, real, and there without a download."""

from __future__ import annotations

import random
from collections.abc import Mapping

import numpy as np

from graphopt.datasets.arrays import KEYS
from graphopt.datasets.column import LABELS, Column, Dataset, Rows
from graphopt.datasets.extras import missing
from graphopt.datasets.options import Options
from graphopt.errors import UsageError

__all__ = ["open_digits"]

_SIDE = 8
_TRAIN = 0.7  # of all images


def open_digits(pairs: Mapping[str, str]) -> Dataset:
    """1,797 images (N, 1, 8, 8) of float32 in [0, 1], labels 0 to 9; ``size=16`` repeats each pixel.

    ``split=train`` are 1,258 of them, drawn once and for all, and ``split=test`` the other 539.

    Source: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits (UCI), test set.

    Raises:
        UsageError: A size that is no multiple of 8.
        EnvironmentProblem: scikit-learn is not installed.
    """
    options = Options.of(pairs, "digits", (*KEYS, "size", "split"))
    height, width = options.size or (_SIDE, _SIDE)
    if height % _SIDE or width % _SIDE:
        raise UsageError(f"digits: the size {height}x{width} is no multiple of {_SIDE}")
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise missing("digits", "scikit-learn", error) from error
    found = load_digits()
    rows = _rows(options.split, len(found.target))
    images = (found.images[rows] / 16).astype(np.float32)[:, None]
    images = images.repeat(height // _SIDE, axis=2).repeat(width // _SIDE, axis=3)
    columns = {"x": Column.of(images, derived=True), LABELS: Column.of(found.target[rows])}
    name = f"digits/{options.split}" if options.split else "digits"
    return Dataset(name, "digits", lambda _: columns, options)


def _rows(split: str, count: int) -> Rows:
    """The rows of a split, ascending; all without one."""
    # Python promises the same numbers in every release for a seed, which NumPy's generators do not.
    draw = random.Random(0)
    order = sorted(range(count), key=lambda _: draw.random())
    middle = round(_TRAIN * count)
    return np.sort({"train": order[:middle], "test": order[middle:]}.get(split, order))
