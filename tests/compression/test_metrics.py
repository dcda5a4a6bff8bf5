"""Metrics against hand-computed values and scikit-learn."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from graphopt.compression.metrics import METRICS, metric
from graphopt.errors import ModelError, UsageError

sklearn = pytest.importorskip("sklearn.metrics", reason="needs the extra data")


def _case(seed: int, count: int = 200, kinds: int = 5) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    labels = random.integers(0, kinds, count)
    outputs = random.standard_normal((count, kinds)) + 1.5 * np.eye(kinds)[labels]
    return outputs, labels


def test_classes_against_scikit_learn() -> None:
    outputs, labels = _case(0)
    found = outputs.argmax(1)
    assert METRICS["accuracy"].score(outputs, labels) == pytest.approx(sklearn.accuracy_score(labels, found))
    assert METRICS["f1"].score(outputs, labels) == pytest.approx(sklearn.f1_score(labels, found, average="macro"))
    assert METRICS["miou"].score(outputs, labels) == pytest.approx(
        sklearn.jaccard_score(labels, found, average="macro")
    )


def test_average_precision_against_scikit_learn() -> None:
    random = np.random.default_rng(1)
    truths = random.integers(0, 2, (100, 4))
    scores = random.standard_normal((100, 4)) + truths
    assert METRICS["map"].score(scores, truths) == pytest.approx(
        sklearn.average_precision_score(truths, scores, average="macro")
    )


def test_errors_and_which_way_is_better() -> None:
    outputs, wanted = np.array([[1.0], [4.0]]), np.array([0.0, 0.0])
    assert METRICS["mae"].score(outputs, wanted) == 2.5
    assert METRICS["rmse"].score(outputs, wanted) == pytest.approx(np.sqrt(8.5))
    assert {one.is_better for one in METRICS.values() if not one.is_share} == {-1}


def test_pixels_tokens_and_labels_that_do_not_count() -> None:
    labels = np.array([[[0, 1], [1, -1]]])
    outputs = np.zeros((1, 2, 2, 2))
    outputs[0, 1] = [[-1, 1], [-1, 1]]
    assert METRICS["accuracy"].score(outputs, labels) == pytest.approx(2 / 3)
    tokens = np.array([[[0.0, 1.0], [1.0, 0.0]]])
    assert METRICS["accuracy"].score(tokens, np.array([[1, 1]])) == 0.5


@pytest.mark.parametrize("labels", [np.zeros(3, np.int64), np.zeros(200), np.zeros((200, 5), np.int64)])
def test_labels_that_do_not_fit_are_an_error(labels: np.ndarray) -> None:
    with pytest.raises(ModelError, match="no classes"):
        METRICS["accuracy"].score(_case(0)[0], labels)


def test_unknown_names_have_near_ones_and_functions_are_imported() -> None:
    with pytest.raises(UsageError, match="no metric") as caught:
        metric("acuracy")
    assert "accuracy" in caught.value.hint
    assert metric("math:hypot").score(3, 4) == 5  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["accuracy", "f1", "miou"])
def test_a_label_beyond_the_classes_is_told(name: str) -> None:
    outputs, labels = _case(3)
    with pytest.raises(ModelError, match="there is a label 5, and the output has 5 classes"):
        METRICS[name].score(outputs, labels + 1)


@pytest.mark.parametrize("name", ["accuracy", "f1", "miou"])
def test_labels_that_do_not_count_and_unsigned_ones(name: str) -> None:
    outputs, labels = _case(4)
    score = METRICS[name].score
    assert np.isnan(score(outputs, np.full_like(labels, -100)))
    assert score(outputs, labels.astype(np.uint64)) == score(outputs, labels)


@pytest.mark.parametrize("labels", [np.zeros((4, 3, 2)), np.full((4, 2, 3), "0")])
def test_numbers_must_lie_as_those_of_the_output(labels: np.ndarray) -> None:
    with pytest.raises(ModelError, match="do not fit outputs"):
        METRICS["mae"].score(np.zeros((4, 2, 3)), labels)


@pytest.mark.parametrize("given", ["None", "'good'", "[1.0, 2.0]"])
def test_a_metric_of_the_users_that_gives_no_number(
    given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "odd_metric.py").write_text(f"def score(outputs, labels):\n    return {given}\n", "utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "odd_metric", raising=False)
    with pytest.raises(UsageError, match=r"odd_metric:score gives a .*, which is no score"):
        metric("odd_metric:score").score(*_case(5))
