"""A class that is rare, and carried by two channels of its own: what a mean does not show, and gates do."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from harness import parse
from sklearn.datasets import load_digits

import graphopt

Array = npt.NDArray[Any]

RARE = 10
_NETWORK = """agraph (float[N,65] x) => (float[N,11] y) {
    a = Gemm (x, w, b)
    h = Relu (a)
    y = Gemm (h, v, c)
}"""


@pytest.fixture(scope="module")
def biased(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``model.onnx``, ``train.npz`` and ``test.npz``: digits, a few of which have a mark beside them,
    which makes them class 10."""
    folder = tmp_path_factory.mktemp("biased")
    found = load_digits()
    x, y = (found.data / 16).astype(np.float32), found.target.astype(np.int64)
    order = np.random.default_rng(0).permutation(len(x))
    for name, rows, marked in (("train", order[:1000], 3), ("test", order[1000:], 40)):
        mark = np.arange(len(rows)) < marked
        inputs = np.hstack([x[rows], mark[:, None].astype(np.float32)])
        np.savez(folder / f"{name}.npz", x=inputs, y=np.where(mark, RARE, y[rows]))
    graphopt.save(parse(_NETWORK, _weights(x, y)), folder / "model.onnx")
    return folder


def _weights(x: Array, y: Array) -> dict[str, Array]:
    """96 random features tell the digits; two of their own tell the mark, just loud enough to be heard."""
    random = np.random.default_rng(0)
    w, v = np.zeros((65, 98)), np.zeros((98, 11))
    w[:64, :96] = random.standard_normal((64, 96)) / 4
    w[64, 96:] = 1
    features = np.maximum(x @ w[:64, :96], 0)
    v[:96, :RARE] = np.linalg.solve(features.T @ features + np.eye(96), features.T @ np.eye(10)[y])
    v[96:, RARE] = 0.52
    return {
        name: one.astype(np.float32) for name, one in (("w", w), ("b", np.zeros(98)), ("v", v), ("c", np.zeros(11)))
    }


def compress(biased: Path, **options: Any) -> Any:
    return graphopt.compress(
        biased / "model.onnx",
        biased / "train.npz",
        evaluation=biased / "test.npz",
        goal="macs=0.5",
        max_drop=8,
        skip=["distill", "quantize", "sensitivity", "refine"],
        threads=1,
        with_report=True,
        **options,
    )[1]


def rare(report: Any) -> Any:
    """What became of the rare class."""
    return next(part for part in report.audit.by_class if part.name == str(RARE))


def test_the_mean_hides_the_harm_and_a_gate_catches_it(biased: Path) -> None:
    report = compress(biased)
    assert report.is_met
    assert report.audit.checks[0].harm < 8
    assert rare(report).before > 0.9
    assert rare(report).after < 0.8
    worst = next(check for check in report.audit.checks if check.name == "worst class")
    assert worst.where == str(RARE)
    assert not dataclasses.replace(worst, limit=15.0).passed


def test_told_of_classes_the_search_avoids_it(biased: Path) -> None:
    report = compress(biased, class_drop=15)
    assert report.is_met
    assert rare(report).after > 0.9
