"""Task metrics on the user's data: ``accuracy``, ``f1``, ``mae`` or ``module:function``."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np

from graphopt.errors import UsageError

__all__ = ["LOWER_IS_BETTER", "Metric", "resolve"]

Array = np.ndarray[Any, Any]
Metric = Callable[[Mapping[str, Array], Array], float]
"""(outputs by name, samples stacked on axis 0; ``y``) -> a number."""

LOWER_IS_BETTER: Final = frozenset({"mae"})


def resolve(name: str) -> tuple[Metric, bool]:
    """The metric of a name, and whether more is better.

    A function of the user's is called with the outputs by name and ``y``; it may carry an attribute
    ``higher_is_better = False``.

    Raises:
        UsageError: There is no such metric.
    """
    if name in _BUILT_IN:
        return _BUILT_IN[name], name not in LOWER_IS_BETTER
    module_name, colon, function_name = name.partition(":")
    if not colon:
        known = ", ".join(_BUILT_IN)
        raise UsageError(f"there is no metric '{name}'", hint=f"Use one of {known}, or module:function.")
    try:
        function = getattr(importlib.import_module(module_name), function_name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UsageError(f"metric '{name}' cannot be imported: {error}") from error
    if not callable(function):
        raise UsageError(f"metric '{name}' is not a function")
    return function, bool(getattr(function, "higher_is_better", True))


def _labels(outputs: Mapping[str, Array], y: Array) -> Array:
    """Predicted labels: the first output, its largest entry along the class axis where it has one axis too many."""
    first: Array = next(iter(outputs.values()))
    if first.ndim == y.ndim + 1:
        labels: Array = first.argmax(-1 if first.ndim == 3 else 1)
        return labels
    if first.dtype.kind == "f" and y.dtype.kind in "iub":
        return first > 0.5  # a probability
    return first


def _accuracy(outputs: Mapping[str, Array], y: Array) -> float:
    return float((_labels(outputs, y).reshape(-1) == y.reshape(-1)).mean())


def _f1(outputs: Mapping[str, Array], y: Array) -> float:
    """Binary F1 of label 1 when all labels are 0 or 1, else the unweighted mean over the labels in ``y``."""
    predicted, truth = _labels(outputs, y).reshape(-1), y.reshape(-1)
    classes = np.unique(truth)
    if set(classes.tolist()) <= {0, 1}:
        classes = np.array([1])
    scores = []
    for label in classes:
        hits = np.sum((predicted == label) & (truth == label))
        total = np.sum(predicted == label) + np.sum(truth == label)
        scores.append(2.0 * hits / total if total else 0.0)
    return float(np.mean(scores))


def _mae(outputs: Mapping[str, Array], y: Array) -> float:
    first = next(iter(outputs.values()))
    return float(np.abs(first.astype(np.float64).reshape(y.shape) - y.astype(np.float64)).mean())


_BUILT_IN: Final[Mapping[str, Metric]] = {"accuracy": _accuracy, "f1": _f1, "mae": _mae}
