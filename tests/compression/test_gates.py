"""Gates: harm that the mean hides is found, and what is no harm passes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from graphopt.compression.gates import Limits, audit, calibration_error, flips
from graphopt.compression.metrics import METRICS
from graphopt.errors import UsageError

Array = np.ndarray[Any, Any]


def _perfect(labels: Array, kinds: int = 10, size: float = 5.0) -> Array:
    return size * np.eye(kinds)[labels]


def _biased() -> tuple[Array, Array, Array]:
    """A rare class that the compressed model has forgotten: 2 % of the samples."""
    labels = np.repeat([0, 1, 2], [500, 480, 20])
    before = _perfect(labels, 3)
    after = before.copy()
    after[labels == 2] = [5.0, 0.0, 1.0]
    return before, after, labels


def test_the_mean_hides_what_the_class_gate_finds() -> None:
    before, after, labels = _biased()
    lenient = audit(before, after, labels, Limits(drop=2.5))
    assert lenient.passed
    strict = audit(before, after, labels, Limits(drop=2.5, class_drop=10))
    (check,) = strict.failed
    assert (check.name, check.where, check.harm) == ("worst class", "2", 100)
    assert [(part.name, part.samples, part.before, part.after) for part in strict.by_class][-1] == ("2", 20, 1.0, 0.0)


def test_a_class_of_few_samples_is_not_judged() -> None:
    before, after, labels = _biased()
    assert audit(before, after, labels, Limits(class_drop=10, fewest=21)).passed
    assert not audit(before, after, labels, Limits(class_drop=10, fewest=20)).passed


def test_slices_and_the_gap_between_them() -> None:
    labels = np.tile([0, 1], 100)
    before = _perfect(labels, 2)
    after = before.copy()
    groups = np.repeat(["young", "old"], 100)
    after[groups == "old"] = after[groups == "old"][:, ::-1] * (np.arange(100)[:, None] < 30) + after[
        groups == "old"
    ] * (np.arange(100)[:, None] >= 30)
    found = audit(before, after, labels, Limits(slice_drop=20, gap=20), slices={"age": groups})
    assert {check.name: round(check.harm, 6) for check in found.failed} == {
        "worst slice of age": 30.0,
        "gap between slices of age": 30.0,
    }
    assert {part.name: part.after for part in found.slices["age"]} == {"old": 0.7, "young": 1.0}


def test_flips_are_counted_and_the_most_changed_come_first() -> None:
    before = np.array([[4.0, 0.0], [2.0, 0.0], [0.0, 3.0], [9.0, 0.0]])
    after = np.array([[0.0, 4.0], [0.9, 1.0], [0.0, 3.0], [8.0, 0.0]])
    order, share = flips(before, after)
    assert order.tolist() == [0, 1]
    assert share == 0.5
    assert not audit(before, after, None, Limits(flips=0.4)).passed
    assert audit(before, after, None, Limits(flips=0.5)).changed == [0, 1]


def test_calibration_error_by_hand() -> None:
    outputs = np.array([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.6, 0.4]])
    labels = np.array([0, 1, 0, 0])
    # One bin of confidence 0.9 and accuracy 0.5, another of 0.6 and 1.
    assert calibration_error(outputs, labels, is_probability=True) == pytest.approx(0.5 * 0.4 + 0.5 * 0.4)
    assert calibration_error(np.log(outputs), labels) == pytest.approx(0.4)
    wrong = np.ones(4, np.int64)
    assert not audit(outputs, 3 * outputs, wrong, Limits(calibration=0.0)).passed  # as wrong as before, and surer
    assert audit(3 * outputs, outputs, wrong, Limits(calibration=0.0)).passed


def test_noise_beyond_what_it_takes_from_the_original() -> None:
    labels = np.tile([0, 1], 50)
    good = _perfect(labels, 2)
    worse, bad = good.copy(), good.copy()
    worse[:10] = worse[:10, ::-1]
    bad[:40] = bad[:40, ::-1]
    found = audit(good, good, labels, Limits(noise_drop=20), noisy=(worse, bad))
    (check,) = found.failed
    assert check.harm == pytest.approx(30)
    assert audit(good, good, labels, Limits(noise_drop=30), noisy=(worse, bad)).passed


def test_regression_counts_the_other_way_round() -> None:
    wanted = np.zeros(4)
    found = audit(np.full((4, 1), 1.0), np.full((4, 1), 1.5), wanted, Limits(drop=0.4), metric=METRICS["mae"])
    assert [round(check.harm, 6) for check in found.failed] == [0.5]
    assert audit(np.full((4, 1), 1.5), np.full((4, 1), 1.0), wanted, Limits(drop=0.0), metric=METRICS["mae"]).passed


def test_relative_drops() -> None:
    labels = np.tile([0, 1], 50)
    after = _perfect(labels, 2)
    after[:2] = after[:2, ::-1]
    assert not audit(_perfect(labels, 2), after, labels, Limits(relative_drop=0.01)).passed
    assert audit(_perfect(labels, 2), after, labels, Limits(relative_drop=0.02)).passed


def test_a_score_that_is_no_number_does_not_pass() -> None:
    outputs = np.full((4, 1), np.nan)
    assert not audit(np.zeros((4, 1)), outputs, np.zeros(4), Limits(drop=1.0), metric=METRICS["mae"]).passed


@pytest.mark.parametrize(
    "name", ["drop", "class_drop", "slice_drop", "calibration", "noise_drop", "gap", "relative_drop"]
)
def test_a_limit_without_what_it_needs_is_an_error(name: str) -> None:
    with pytest.raises(UsageError, match=name.replace("_", "-")):
        audit(np.zeros((4, 2)), np.zeros((4, 2)), None, Limits(**{name: 1}))
    with pytest.raises(UsageError, match="limit"):
        Limits(**{name: -1})


@pytest.mark.filterwarnings("ignore:invalid value")
def test_nan_never_passes() -> None:
    labels = np.tile([0, 1], 50)
    before = _perfect(labels, 2)
    after = before.copy()
    after[7] = np.nan
    found = audit(before, after, labels, Limits())
    assert [(check.name, check.harm) for check in found.failed] == [("NaN", 0.01)]
    assert audit(before, before, labels, Limits()).passed


def test_a_column_that_hardly_repeats_makes_no_slices() -> None:
    labels = np.tile([0, 1], 50)
    outputs = _perfect(labels, 2)
    with pytest.raises(UsageError, match="there are 100 slices of 100 samples"):
        audit(outputs, outputs, labels, Limits(slice_drop=1), slices={"age": np.linspace(0, 1, 100)})


def test_slices_of_nan_and_of_labels_that_do_not_count() -> None:
    labels = np.repeat([0, 1, -100], 20)
    outputs = _perfect(labels % 2, 2)
    values = np.repeat([np.nan, 1.0, 2.0], 20)
    found = audit(outputs, outputs, labels, Limits(slice_drop=1), slices={"age": values})
    assert [(part.name, part.samples) for part in found.slices["age"]] == [("1.0", 20), ("nan", 20)]
    assert found.passed
