"""Metrics on the user's data, beside closeness or instead of it."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from harness import parse

from graphopt.errors import ModelError, UsageError
from graphopt.verify import Verifier, metrics

WEIGHT = np.random.default_rng(0).standard_normal((6, 3)).astype(np.float32)
TEXT = "agraph (float[N,6] x) => (float[N,3] y_pred) { y_pred = MatMul(x, w) }"


def _data(folder: Path, files: int = 1) -> Path:
    random = np.random.default_rng(1)
    for number in range(files):
        x = random.standard_normal((40, 6)).astype(np.float32)
        np.savez(folder / f"{number}.npz", x=x, y=(x @ WEIGHT).argmax(1))
    return folder if files > 1 else folder / "0.npz"


def _check(data: Path, factor: float = 1, **options: Any) -> Any:
    with Verifier(parse(TEXT, {"w": WEIGHT}), feeds_file=data, **options) as verifier:
        changed = WEIGHT * factor
        if factor < 0:
            changed[:, 0] = -9
        return verifier.check(parse(TEXT, {"w": changed.astype(np.float32)}))


def test_reported_beside_closeness(tmp_path: Path) -> None:
    verdict = _check(_data(tmp_path, files=3), 1.5, metric="accuracy")
    assert verdict.status == "different", "twice the logits are another function, whatever the accuracy"
    assert (verdict.metric.original, verdict.metric.candidate, verdict.metric.drop) == (1.0, 1.0, 0.0)
    assert verdict.to_dict()["metric"]["name"] == "accuracy"


def test_judges_alone_when_a_drop_is_allowed(tmp_path: Path) -> None:
    data = _data(tmp_path)
    assert _check(data, 1.5, metric="accuracy", max_drop=0.0).equal
    verdict = _check(data, -1, metric="accuracy", max_drop=0.2)
    assert verdict.status == "different"
    assert verdict.metric.drop > 0.2
    assert "accuracy went from 1 to" in verdict.message


def test_truth_is_needed(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.zeros((2, 6), np.float32))
    with pytest.raises(ModelError, match="'y'"):
        _check(tmp_path / "a.npz", metric="accuracy")


def test_function_of_the_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine_metric.py").write_text(
        textwrap.dedent("""
        def worst(outputs, y):
            return float(outputs["y_pred"].min())
        worst.higher_is_better = False
        def broken(outputs, y):
            return outputs["nothing"]
        """)
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    data = _data(tmp_path)
    verdict = _check(data, 2, metric="mine_metric:worst", max_drop=0)
    assert verdict.metric.candidate == pytest.approx(2 * verdict.metric.original)
    assert verdict.metric.drop == pytest.approx(verdict.metric.candidate - verdict.metric.original)
    with pytest.raises(UsageError, match="broken' failed: KeyError"):
        _check(data, metric="mine_metric:broken")
    for name in ("mine_metric:none", "no_such_module:f"):
        with pytest.raises(UsageError, match="cannot be imported"):
            _check(data, metric=name)


def _value(name: str, prediction: Any, truth: Any) -> float:
    metric, _ = metrics.resolve(name)
    return metric({"p": np.asarray(prediction)}, np.asarray(truth))


def test_accuracy() -> None:
    assert _value("accuracy", [[0.1, 0.9], [0.8, 0.2]], [1, 1]) == 0.5
    assert _value("accuracy", [1, 2, 3, 4], [1, 2, 0, 0]) == 0.5
    assert _value("accuracy", [0.9, 0.2], [1, 1]) == 0.5
    tokens = np.zeros((2, 4, 3))
    tokens[..., 1] = 1
    assert _value("accuracy", tokens, np.ones((2, 4), np.int64)) == 1
    pixels = np.zeros((2, 3, 4, 4))
    pixels[:, 2] = 1
    assert _value("accuracy", pixels, np.full((2, 4, 4), 2)) == 1


def test_f1() -> None:
    assert _value("f1", [1, 1, 0, 0], [1, 0, 1, 0]) == pytest.approx(0.5)
    assert _value("f1", [0, 0, 0], [1, 1, 1]) == 0
    assert _value("f1", [0, 1, 2, 2], [0, 1, 2, 1]) == pytest.approx((1 + 2 / 3 + 2 / 3) / 3)


def test_mae() -> None:
    assert _value("mae", [1.0, 2.0], [2.0, 4.0]) == 1.5
    assert metrics.resolve("mae")[1] is False


@pytest.mark.parametrize("name", ["precision", "", ":", "json:", "json:nothing"])
def test_unknown(name: str) -> None:
    with pytest.raises(UsageError):
        metrics.resolve(name)
