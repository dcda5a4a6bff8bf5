"""MNIST and its like by name, as data specs."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from datasets.test_fetch import FILES, PIXELS, TRUTH
from harness import parse

from graphopt.datasets import bind, fetch, open_dataset
from graphopt.errors import ModelError, UsageError

MODEL = parse("agraph (float[N,1,28,28] x) => (float[N,1,28,28] y) { y = Identity (x) }")


@pytest.fixture
def local(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files of a collection that no address has."""
    files = {name: (hashlib.sha256(contents).hexdigest(), len(contents)) for name, contents in FILES.items()}
    monkeypatch.setitem(fetch.COLLECTIONS, "mnist", fetch.Collection((), files, "nobody"))
    monkeypatch.setattr(fetch, "default_folder", lambda name: tmp_path / "kept" / name)
    for name, contents in FILES.items():
        (tmp_path / name).write_bytes(contents)
    return tmp_path


def test_both_splits(local: Path) -> None:
    bound = bind(open_dataset(f"mnist:local={local}"), MODEL, samples=None)
    assert len(bound) == 500
    assert bound.labels is not None
    assert np.array_equal(bound.labels, TRUTH)
    batch = next(bound.batches(4))["x"]
    assert np.allclose(batch, PIXELS[:4, None] / np.float32(255))
    test = bind(open_dataset("mnist:split=test"), MODEL, samples=None)  # it has been fetched
    assert len(test) == 7


def test_other_options(local: Path) -> None:
    whole = open_dataset(f"mnist:local={local}", preprocess="scale=1:mean=33")
    batch = next(bind(whole, MODEL, samples=None).batches(2))["x"]
    assert np.allclose(batch, PIXELS[:2, None].astype(np.float32) - 33)
    with pytest.raises(UsageError, match="colour"):
        open_dataset(f"mnist:local={local}:colour=red")
    with pytest.raises(ModelError, match="no such data") as caught:
        open_dataset("emnist")
    assert "fashion-mnist" in caught.value.hint
