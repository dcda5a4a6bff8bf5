"""What is good: how well outputs fit labels, as one number."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from graphopt.errors import ModelError, UsageError
from graphopt.importing import imported, names_function

__all__ = ["METRICS", "Metric", "classes", "metric"]

Array = npt.NDArray[Any]


class Metric(NamedTuple):
    """A measure of outputs against labels.

    Attributes:
        name: Its name.
        score: Called with the outputs ``(N, ...)`` and the labels ``(N, ...)``.
        is_better: 1 if more is better, -1 if less is.
        is_share: Whether it lies between 0 and 1, so that drops are told in percentage points.
    """

    name: str
    score: Callable[[Array, Array], float]
    is_better: int = 1
    is_share: bool = True


def classes(outputs: Array, labels: Array) -> Array:
    """The class of each row, or of each token or pixel: the highest score along the axis that labels lack.

    Args:
        outputs: ``(N, C)``, ``(N, T, C)`` or ``(N, C, H, W)``.
        labels: ``(N,)``, ``(N, T)`` or ``(N, H, W)``, integers.

    Raises:
        ModelError: The shapes do not fit.
    """
    axis = 1 if outputs.ndim == 4 else -1
    if (
        outputs.ndim < 2
        or np.delete(outputs.shape, axis).tolist() != list(labels.shape)
        or labels.dtype.kind not in "iu"
    ):
        raise ModelError(
            f"labels of the shape {list(labels.shape)} and type {labels.dtype} are no classes for outputs of the shape "
            f"{list(outputs.shape)}",
            hint="Give one whole number a sample (or a token, or a pixel), or choose another metric or output.",
        )
    found: Array = outputs.argmax(axis)
    return found


def _counted(outputs: Array, labels: Array) -> tuple[Array, Array]:
    """Predicted and true classes, flat, without labels below 0.

    Raises:
        ModelError: The shapes do not fit, or there is no such class.
    """
    found = classes(outputs, labels)
    known = labels >= 0
    truth = labels[known].astype(np.int64)  # bincount takes no uint64
    count = outputs.shape[1 if outputs.ndim == 4 else -1]
    if truth.max(initial=0) >= count:
        raise ModelError(
            f"there is a label {truth.max()}, and the output has {count} classes, which count from 0",
            hint="Count labels from 0, and give a negative number to those that do not count.",
        )
    return found[known], truth


def _accuracy(outputs: Array, labels: Array) -> float:
    found, truth = _counted(outputs, labels)
    return float((found == truth).mean()) if len(truth) else float("nan")


def _overlaps(outputs: Array, labels: Array) -> tuple[Array, Array, Array]:
    """For each class that is there or found: true positives, what was found, what there is."""
    found, truth = _counted(outputs, labels)
    count = int(max(found.max(initial=0), truth.max(initial=0))) + 1
    right = np.bincount(truth[found == truth], minlength=count)
    there, told = np.bincount(truth, minlength=count), np.bincount(found, minlength=count)
    any_of = (there + told) > 0
    return right[any_of], told[any_of], there[any_of]


def _f1(outputs: Array, labels: Array) -> float:
    """The mean over classes of 2 TP / (2 TP + FP + FN)."""
    right, told, there = _overlaps(outputs, labels)
    return float((2 * right / (told + there)).mean()) if len(there) else float("nan")


def _miou(outputs: Array, labels: Array) -> float:
    """The mean over classes of TP / (TP + FP + FN)."""
    right, told, there = _overlaps(outputs, labels)
    return float((right / (told + there - right)).mean()) if len(there) else float("nan")


def _same_shape(outputs: Array, labels: Array) -> tuple[Array, Array]:
    fits = _without_ones(outputs) == _without_ones(labels)
    if not fits or labels.dtype.kind not in "biuf" or outputs.dtype.kind not in "biuf":
        raise ModelError(
            f"labels of the shape {list(labels.shape)} and type {labels.dtype} do not fit outputs of the shape "
            f"{list(outputs.shape)} and type {outputs.dtype}",
            hint="Give a number for each number of the output.",
        )
    return outputs.astype(np.float64), labels.reshape(outputs.shape).astype(np.float64)


def _without_ones(array: Array) -> list[int]:
    return [len(array), *(size for size in array.shape[1:] if size != 1)]


def _mae(outputs: Array, labels: Array) -> float:
    found, wanted = _same_shape(outputs, labels)
    return float(np.abs(found - wanted).mean())


def _rmse(outputs: Array, labels: Array) -> float:
    found, wanted = _same_shape(outputs, labels)
    return float(np.sqrt(np.square(found - wanted).mean()))


def _map(outputs: Array, labels: Array) -> float:
    """The mean over labels of the average precision: that of each true sample's rank, averaged over true samples."""
    scores, truths = _same_shape(outputs, labels)
    found = []
    for column in range(scores.shape[-1]):
        order = np.argsort(-scores[..., column].reshape(-1), kind="stable")
        truth = truths[..., column].reshape(-1)[order] > 0.5
        if truth.any():
            precision = np.cumsum(truth) / np.arange(1, len(truth) + 1)
            found.append(float(precision[truth].mean()))
    return float(np.mean(found)) if found else float("nan")


METRICS: Final[Mapping[str, Metric]] = {
    one.name: one
    for one in (
        Metric("accuracy", _accuracy),
        Metric("f1", _f1),
        Metric("miou", _miou),
        Metric("map", _map),
        Metric("mae", _mae, -1, is_share=False),
        Metric("rmse", _rmse, -1, is_share=False),
    )
}
"""Accuracy; macro F1; mean intersection over union of pixels; mean average precision of several labels ``(N, C)`` (not
of boxes); mean absolute and root mean squared error."""


def metric(name: str) -> Metric:
    """The metric of a name; ``module:function`` **runs that code** and takes more to be better.

    Raises:
        UsageError: There is none.
    """
    from graphopt.pipeline.spec import close_match

    if name in METRICS:
        return METRICS[name]
    if names_function(name):
        return Metric(name, _checked(name, imported(name)), is_share=False)
    raise UsageError(f"there is no metric '{name}'", hint=close_match(name, list(METRICS)))


def _checked(name: str, function: Callable[..., Any]) -> Callable[[Array, Array], float]:
    """A function of the user's that must give a number; what it raises is not caught."""

    def score(outputs: Array, labels: Array) -> float:
        found = function(outputs, labels)
        try:
            return float(found)
        except (TypeError, ValueError) as error:
            raise UsageError(
                f"{name} gives a {type(found).__name__}, which is no score", hint="Return one number: more is better."
            ) from error

    return score
