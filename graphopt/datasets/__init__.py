"""The user's data: readers, and the fit between what they read and what a model takes.

A :class:`Dataset` is opened without a model; :func:`bind` checks it against one and draws a seeded subset.
Without any data, :mod:`graphopt.datasets.synthetic` makes some.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from graphopt.datasets.binding import bind
    from graphopt.datasets.bound import Bound
    from graphopt.datasets.column import Dataset
    from graphopt.datasets.opening import open_dataset

__all__ = ["Bound", "Dataset", "bind", "open_dataset"]

_HOME = {
    "Bound": "graphopt.datasets.bound",
    "Dataset": "graphopt.datasets.column",
    "bind": "graphopt.datasets.binding",
    "open_dataset": "graphopt.datasets.opening",
}


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOME[name]), name)
