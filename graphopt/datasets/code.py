"""Data from a function of the user's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from graphopt.datasets.arrays import KEYS, from_arrays, from_feeds
from graphopt.datasets.column import Dataset
from graphopt.datasets.options import Options
from graphopt.errors import ModelError, UsageError
from graphopt.importing import imported

__all__ = ["open_function"]


def open_function(spec: str, pairs: Mapping[str, str]) -> Dataset:
    """What ``module:function`` returns: a mapping of arrays, or an iterable of whole feeds that ends.

    This imports the module, from the current folder if it lies there, and calls the function without arguments: it runs
    whatever code they hold. What the code raises is not caught.

    Raises:
        UsageError: It cannot be imported, or options are given for whole feeds.
        ModelError: It returns something else.
    """
    options = Options.of(pairs, spec, KEYS)
    made = imported(spec)()
    if isinstance(made, Mapping):
        return from_arrays(made, spec, options)
    if isinstance(made, Iterable) and not isinstance(made, (str, bytes)):
        if pairs:
            raise UsageError(
                f"{spec} gives whole feeds, to which no options apply", hint="Prepare them in the function."
            )
        return from_feeds(list(made), spec)
    raise ModelError(f"{spec} gives {type(made).__name__}", hint="Return a mapping of arrays, or an iterable of feeds.")
