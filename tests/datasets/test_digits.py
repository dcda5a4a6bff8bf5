"""scikit-learn's digits."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from harness import parse

from graphopt.datasets import bind, open_dataset
from graphopt.errors import EnvironmentProblem, UsageError

MODEL = parse("agraph (float[N,1,S,S] i) => (float[N,1,S,S] b) { b = Identity(i) }")


def test_digits() -> None:
    datasets = pytest.importorskip("sklearn.datasets")
    bound = bind("digits", MODEL, samples=None)
    images = np.concatenate([feeds["i"] for feeds in bound.batches(500)])
    assert images.shape == (1797, 1, 8, 8)
    assert (images[:, 0] * 16 == datasets.load_digits().images).all()
    assert bound.labels is not None
    assert bound.labels[:5].tolist() == [0, 1, 2, 3, 4]
    large = next(bind("digits:size=16", MODEL, samples=None).batches(500))["i"]
    assert large.shape == (500, 1, 16, 16)
    assert (large[:, :, 1::2, ::2] == images[:500]).all()
    half = parse("agraph (float16[N,1,S,S] i) => (float16[N,1,S,S] b) { b = Identity(i) }")
    assert next(bind("digits", half).batches())["i"].dtype == np.float16


def test_split() -> None:
    pytest.importorskip("sklearn.datasets")
    found = {name: bind(f"digits{name}", MODEL, samples=None) for name in ("", ":split=train", ":split=test")}
    pixels = {name: np.concatenate([feeds["i"] for feeds in bound.batches(500)]) for name, bound in found.items()}
    labels = {name: np.asarray(bound.labels).tolist() for name, bound in found.items()}
    keys = {
        name: [(image.tobytes(), label) for image, label in zip(pixels[name], labels[name], strict=True)]
        for name in found
    }
    assert [len(keys[name]) for name in found] == [1797, 1258, 539]
    assert not set(keys[":split=train"]) & set(keys[":split=test"])
    assert sorted(keys[":split=train"] + keys[":split=test"]) == sorted(keys[""])
    assert min(np.bincount(labels[":split=test"])) > 40
    assert labels[":split=test"][:12] == [
        0,
        1,
        6,
        0,
        3,
        6,
        7,
        8,
        9,
        1,
        2,
        8,
    ]  # for good: models/digits.onnx saw the rest


def test_refusals(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="no multiple of 8"):
        open_dataset("digits:size=28")
    with pytest.raises(UsageError, match="'split' cannot be 'valid'"):
        open_dataset("digits:split=valid")
    with pytest.raises(UsageError, match="does not use the option 'tokenizer'"):
        open_dataset("digits:tokenizer=x")
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(EnvironmentProblem, match="scikit-learn"):
        open_dataset("digits")
