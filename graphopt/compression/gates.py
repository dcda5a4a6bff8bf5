"""Whether a compressed model does harm that its overall score hides: class by class, slice by slice, sample by sample.

Compression hits rare classes and unusual samples first (Hooker et al., *Characterising Bias in Compressed Models*,
arXiv 2010.03058), which a mean does not show. A gate is a limit to one kind of harm.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from graphopt.compression.metrics import METRICS, Metric, classes
from graphopt.errors import UsageError

__all__ = ["Audit", "Check", "Limits", "Part", "audit", "calibration_error", "flips", "has_nan", "probabilities"]

Array = npt.NDArray[Any]

_BINS: Final = 15
_SHOWN: Final = 20
_FEWEST: Final = 10  # samples of a class or slice below which its drop says nothing, and is not judged


@dataclasses.dataclass(frozen=True, slots=True)
class Limits:
    """How much harm is allowed; None where it is not judged.

    Attributes:
        drop: Of the metric: percentage points where it is a share, else in its own unit.
        relative_drop: Of the metric, as a share of what it was.
        class_drop: Percentage points that the accuracy of any class may lose.
        slice_drop: Points (or units) that the metric may lose on any slice.
        flips: Share of samples that may get another class than before.
        calibration: By how much the expected calibration error may rise, 0 to 1.
        noise_drop: Percentage points that the metric may lose on noisy inputs, beyond what the original loses there.
        gap: Points (or units) by which the difference between the best and the worst slice may grow.
        fewest: Samples of a class or slice below which it is not judged.
    """

    drop: float | None = None
    relative_drop: float | None = None
    class_drop: float | None = None
    slice_drop: float | None = None
    flips: float | None = None
    calibration: float | None = None
    noise_drop: float | None = None
    gap: float | None = None
    fewest: int = _FEWEST

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value is not None and (not isinstance(value, int | float) or not value >= 0):
                raise UsageError(f"a limit of {field.name.replace('_', '-')}={value} is none", hint="Give 0 or more.")


@dataclasses.dataclass(frozen=True, slots=True)
class Check:
    """One gate.

    Attributes:
        name: What is limited.
        before: Of the original.
        after: Of the compressed model.
        harm: What counts, in the unit of the limit.
        limit: How much of it is allowed; None if it is not judged.
        where: The class or slice that is worst.
    """

    name: str
    before: float
    after: float
    harm: float
    limit: float | None
    where: str = ""

    @property
    def passed(self) -> bool:
        """Whether it is within the limit; what is no number is not."""
        return self.limit is None or self.harm <= self.limit + 1e-12


@dataclasses.dataclass(frozen=True, slots=True)
class Part:
    """A class or a slice.

    Attributes:
        name: Its name.
        samples: How many samples it has.
        before: The score of the original on them.
        after: That of the compressed model.
    """

    name: str
    samples: int
    before: float
    after: float


@dataclasses.dataclass(frozen=True, slots=True)
class Audit:
    """What was found.

    Attributes:
        metric: Name of the metric.
        samples: How many there were.
        checks: The gates.
        by_class: Accuracy by class; empty where there are none.
        slices: By column of slices, the metric on each.
        changed: The samples whose prediction changed most, worst first: numbers of samples.
    """

    metric: str
    samples: int
    checks: Sequence[Check]
    by_class: Sequence[Part]
    slices: Mapping[str, Sequence[Part]]
    changed: Sequence[int]

    @property
    def passed(self) -> bool:
        """Whether all gates were passed."""
        return all(check.passed for check in self.checks)

    @property
    def failed(self) -> list[Check]:
        """Those that were not."""
        return [check for check in self.checks if not check.passed]


def audit(
    before: Array,
    after: Array,
    labels: Array | None,
    limits: Limits,
    *,
    metric: Metric = METRICS["accuracy"],
    slices: Mapping[str, Array] | None = None,
    noisy: tuple[Array, Array] | None = None,
    is_probability: bool = False,
) -> Audit:
    """Compares what two models say of the same samples.

    Args:
        before: Outputs of the original, ``(N, ...)``.
        after: Those of the compressed model, of the same shape.
        labels: ``(N, ...)``; None leaves what needs them out.
        limits: How much harm is allowed.
        metric: What is good.
        slices: By name, a value for each sample: the samples of one value are a slice.
        noisy: Outputs of both on noisy inputs.
        is_probability: Whether outputs of classes are probabilities; logits otherwise.

    Raises:
        UsageError: A limit needs what is not there: labels, slices, noisy outputs, classes.
        ModelError: Labels do not fit.
    """
    _check_limits(limits, labels, slices, noisy, before)
    checks: list[Check] = []
    by_class: list[Part] = []
    told: dict[str, list[Part]] = {}
    if labels is not None:
        checks += _overall(metric, before, after, labels, limits)
        if _has_classes(before, labels) and (labels >= 0).any():
            by_class = _by_class(before, after, labels)
            checks.append(_worst("worst class", by_class, limits.class_drop, limits.fewest, METRICS["accuracy"]))
            if before.ndim == 2:
                old, new = (calibration_error(one, labels, is_probability=is_probability) for one in (before, after))
                checks.append(Check("calibration error", old, new, new - old, limits.calibration))
        for name, values in (slices or {}).items():
            told[name] = _by_slice(metric, before, after, labels, values)
            if not told[name]:
                continue
            checks.append(_worst(f"worst slice of {name}", told[name], limits.slice_drop, limits.fewest, metric))
            checks.append(_gap(name, told[name], limits, metric))
        if noisy is not None:
            checks.append(_noise(metric, before, after, labels, noisy, limits))
    if (lost := has_nan(after)).any():
        share = float(lost.mean())
        checks.append(Check("NaN", 0.0, share, share, 0.0))
    changed: list[int] = []
    if before.ndim == 2 and before.shape[1] > 1:
        order, share = flips(before, after, is_probability=is_probability)
        checks.append(Check("flips", 0.0, share, share, limits.flips))
        changed = order[:_SHOWN].tolist()
    return Audit(metric.name, len(before), [one for one in checks if one.name], by_class, told, changed)


def calibration_error(outputs: Array, labels: Array, *, is_probability: bool = False, bins: int = _BINS) -> float:
    """The expected calibration error: how far confidence is from accuracy, over equal bins of confidence, weighted.

    Source: Guo et al., arXiv 1706.04599.

    Args:
        outputs: ``(N, C)``.
        labels: ``(N,)``; those below 0 do not count.
        is_probability: Whether outputs are probabilities; logits otherwise.
        bins: How many.
    """
    known = labels >= 0
    shares = probabilities(outputs[known], is_probability)
    confidence, right = shares.max(1), shares.argmax(1) == labels[known]
    if np.isnan(confidence).any():
        return float("nan")
    which = np.minimum((confidence * bins).astype(np.int64), bins - 1)
    count = np.bincount(which, minlength=bins)
    off = np.bincount(which, confidence, bins) - np.bincount(which, right, bins)
    return float(np.abs(off).sum() / max(1, count.sum()))


def flips(before: Array, after: Array, *, is_probability: bool = False) -> tuple[Array, float]:
    """Samples whose class changed, and their share.

    Args:
        before: ``(N, C)``.
        after: ``(N, C)``.
        is_probability: Whether they are probabilities; logits otherwise.

    Returns:
        Numbers of samples, those first of whose former class the most probability is gone; and the share of all.
    """
    old, new = before.argmax(1), after.argmax(1)
    rows = np.arange(len(old))
    lost = probabilities(before, is_probability)[rows, old] - probabilities(after, is_probability)[rows, old]
    changed = np.flatnonzero(old != new)
    return changed[np.argsort(-lost[changed], kind="stable")], float((old != new).mean()) if len(old) else 0.0


def has_nan(outputs: Array) -> Array:
    """Which samples are NaN anywhere.

    Args:
        outputs: ``(N, ...)``.
    """
    if outputs.dtype.kind != "f":
        return np.zeros(len(outputs), bool)
    return np.asarray(np.isnan(outputs).any(tuple(range(1, outputs.ndim))))


def probabilities(outputs: Array, is_probability: bool) -> Array:
    if is_probability:
        return outputs
    wide = outputs.astype(np.float64)
    powers = np.exp(wide - wide.max(1, keepdims=True, initial=-np.inf))
    found: Array = powers / powers.sum(1, keepdims=True)
    return found


def _has_classes(outputs: Array, labels: Array) -> bool:
    axis = 1 if outputs.ndim == 4 else -1
    return (
        labels.dtype.kind in "iu" and outputs.ndim >= 2 and np.delete(outputs.shape, axis).tolist() == [*labels.shape]
    )


def _check_limits(
    limits: Limits, labels: Array | None, slices: Mapping[str, Array] | None, noisy: object, outputs: Array
) -> None:
    needs: Sequence[tuple[str, bool, str]] = (
        ("drop", labels is not None, "labels"),
        ("relative_drop", labels is not None, "labels"),
        ("class_drop", labels is not None and _has_classes(outputs, labels), "labels of classes"),
        (
            "calibration",
            labels is not None and outputs.ndim == 2 and _has_classes(outputs, labels),
            "labels of classes",
        ),
        ("slice_drop", labels is not None and bool(slices), "labels and slices"),
        ("gap", labels is not None and bool(slices), "labels and slices"),
        ("noise_drop", labels is not None and noisy is not None, "labels and outputs on noisy inputs"),
        ("flips", outputs.ndim == 2 and outputs.shape[1] > 1, "an output of classes"),
    )
    for name, there, what in needs:
        if getattr(limits, name) is not None and not there:
            raise UsageError(f"the limit {name.replace('_', '-')} needs {what}", hint="Give them, or leave it out.")


def _harm(metric: Metric, before: float, after: float) -> float:
    """What was lost, in percentage points or units."""
    return (before - after) * metric.is_better * (100 if metric.is_share else 1)


def _overall(metric: Metric, before: Array, after: Array, labels: Array, limits: Limits) -> list[Check]:
    old, new = metric.score(before, labels), metric.score(after, labels)
    found = [Check(metric.name, old, new, _harm(metric, old, new), limits.drop)]
    if limits.relative_drop is not None:
        share = (old - new) * metric.is_better / max(abs(old), 1e-30)
        found.append(Check(f"{metric.name}, relative", old, new, share, limits.relative_drop))
    return found


def _by_class(before: Array, after: Array, labels: Array) -> list[Part]:
    old, new = classes(before, labels) == labels, classes(after, labels) == labels
    return [
        Part(str(one), int(own.sum()), float(old[own].mean()), float(new[own].mean()))
        for one in np.unique(labels[labels >= 0]).tolist()
        for own in [labels == one]
    ]


def _by_slice(metric: Metric, before: Array, after: Array, labels: Array, values: Array) -> list[Part]:
    if len(values) != len(before):
        raise UsageError(f"there are {len(values)} values of a slice and {len(before)} samples")
    kinds, which = np.unique(values, return_inverse=True)
    if len(kinds) > max(_FEWEST, len(values) // 2):
        raise UsageError(
            f"there are {len(kinds):,} slices of {len(values):,} samples, which say nothing",
            hint="Give a column of few values that repeat: round numbers, or sort them into ranges.",
        )
    parts = [
        Part(str(one), int(own.sum()), metric.score(before[own], labels[own]), metric.score(after[own], labels[own]))
        for number, one in enumerate(kinds.tolist())
        for own in [which == number]
    ]
    return [part for part in parts if not math.isnan(part.before)]  # none of its labels count


def _judged(parts: Sequence[Part], fewest: int) -> list[Part]:
    return [part for part in parts if part.samples >= fewest] or list(parts)


def _worst(name: str, parts: Sequence[Part], limit: float | None, fewest: int, metric: Metric) -> Check:
    """The part that lost most."""
    worst = max(_judged(parts, fewest), key=lambda part: _harm(metric, part.before, part.after))
    return Check(name, worst.before, worst.after, _harm(metric, worst.before, worst.after), limit, worst.name)


def _gap(name: str, parts: Sequence[Part], limits: Limits, metric: Metric) -> Check:
    """By how much the distance between the best and the worst part has grown."""
    judged = _judged(parts, limits.fewest)

    def spread(score: Callable[[Part], float]) -> float:
        return max(map(score, judged)) - min(map(score, judged))

    old, new = spread(lambda part: part.before), spread(lambda part: part.after)
    return Check(f"gap between slices of {name}", old, new, (new - old) * (100 if metric.is_share else 1), limits.gap)


def _noise(
    metric: Metric, before: Array, after: Array, labels: Array, noisy: tuple[Array, Array], limits: Limits
) -> Check:
    """What noise takes from the compressed model beyond what it takes from the original."""
    old, new = (
        _harm(metric, metric.score(a, labels), metric.score(b, labels))
        for a, b in zip((before, after), noisy, strict=True)
    )
    scores = [metric.score(one, labels) for one in noisy]
    return Check("noise", scores[0], scores[1], new - old, limits.noise_drop)
