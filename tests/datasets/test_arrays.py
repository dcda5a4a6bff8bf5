"""Arrays: files of them, mappings, whole feeds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from harness import parse

from graphopt.datasets import bind, column, open_dataset
from graphopt.errors import ModelError, UsageError

MODEL = parse("agraph (float[N,4] a, int64[N] k) => (float[N,4] b) { b = Identity(a) }")
ONE = parse("agraph (float[N,4] a) => (float[N,4] b) { b = Identity(a) }")
A = np.arange(80, dtype=np.float32).reshape(20, 4)
K = np.arange(20)
Y = np.arange(20) * 2


def fed(source: Any, model: Any = MODEL, **options: Any) -> dict[str, np.ndarray[Any, Any]]:
    (feeds,) = bind(source, model, **options).batches(100)
    return feeds


def test_npz(tmp_path: Path) -> None:
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "d.npz", a=A, k=K, y=Y)
        bound = bind(tmp_path / "d.npz", MODEL, samples=7, seed=3)
        (feeds,) = bound.batches()
        rows = feeds["k"]
        assert len(rows) == 7
        assert (np.diff(rows) > 0).all()
        assert (feeds["a"] == A[rows]).all()
        assert bound.labels is not None
        assert (bound.labels == 2 * rows).all()
        assert bound.name == "d.npz"


def test_npz_is_streamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks that end within the rows wanted, in C and Fortran order and foreign byte order."""
    monkeypatch.setattr(column, "_BLOCK", 50)  # three rows
    for array in (A, np.asfortranarray(A), A.astype(">f4")):
        np.savez(tmp_path / "d.npz", a=array)
        found = fed(str(tmp_path / "d.npz"), ONE)["a"]
        assert found.dtype == np.float32
        assert found.dtype.isnative
        assert (found == A).all()
        few = bind(tmp_path / "d.npz", ONE, samples=5, seed=1)
        assert (next(few.batches())["a"] == A[few._rows]).all()


def test_npz_with_splits(tmp_path: Path) -> None:
    path = tmp_path / "d.npz"
    np.savez(path, x_train=A, y_train=Y, x_test=A[:3] + 1, y_test=Y[:3])
    assert len(bind(path, ONE)) == 20
    test = bind(f"{path}:split=test", ONE)
    assert (next(test.batches())["a"] == A[:3] + 1).all()
    np.savez(path, x=A)
    with pytest.raises(UsageError, match="there is no split"):
        bind(f"{path}:split=test", ONE)


def test_x_is_the_only_input(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=A)
    assert (fed(tmp_path / "d.npz", ONE)["a"] == A).all()
    with pytest.raises(ModelError, match=r"d\.npz: the model has no input 'x'") as caught:
        bind(tmp_path / "d.npz", MODEL)
    assert caught.value.hint == "The model takes a, k; the data give x."
    np.savez(tmp_path / "d.npz", image=A)
    with pytest.raises(ModelError, match="the model has no input 'image'"):
        bind(tmp_path / "d.npz", ONE)


def test_y_that_is_an_input() -> None:
    model = parse("agraph (float[N,4] y) => (float[N,4] b) { b = Identity(y) }")
    bound = bind({"y": A}, model)
    assert bound.labels is None
    assert (next(bound.batches())["y"] == A[:32]).all()


def test_folder_of_npy_is_mapped(tmp_path: Path) -> None:
    for name, array in (("a", A), ("k", K), ("y", Y)):
        np.save(tmp_path / f"{name}.npy", array)
    dataset = open_dataset(str(tmp_path))
    bound = bind(dataset, MODEL)
    assert (next(bound.batches())["a"] == A).all()
    assert bound.labels is not None
    assert (bound.labels == Y).all()
    assert (fed(tmp_path / "a.npy", ONE)["a"] == A).all()


def test_folder_of_calls(tmp_path: Path) -> None:
    np.savez(tmp_path / "1.npz", a=A[:3], k=K[:3])
    np.savez(tmp_path / "2.npz", a=A[3:5], k=K[3:5])
    bound = bind(tmp_path, MODEL)
    assert [feeds["k"].tolist() for feeds in bound.batches(1)] == [[0, 1, 2], [3, 4]]


@pytest.mark.parametrize("name", ["none.npz", "text.npz", "half.npz", "text.npy", "empty", "data.csv"])
def test_files_that_are_none(tmp_path: Path, name: str) -> None:
    np.savez(tmp_path / "whole.npz", a=A)
    (tmp_path / "text.npz").write_text("no archive")
    (tmp_path / "text.npy").write_text("no array")
    (tmp_path / "data.csv").write_text("1,2")
    (tmp_path / "half.npz").write_bytes((tmp_path / "whole.npz").read_bytes()[:100])
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match=name):
        bind(tmp_path / name, ONE)


def test_pickles_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", a=np.array([{"run": "me"}], object))
    np.save(tmp_path / "a.npy", np.array([{"run": "me"}], object))
    for name in ("a.npz", "a.npy"):
        with pytest.raises(ModelError, match=name):
            bind(tmp_path / name, ONE)


def test_what_is_no_array() -> None:
    with pytest.raises(ModelError, match="'a' is no array"):
        bind({"a": [[1.0], [1.0, 2.0]]}, ONE)
    with pytest.raises(ModelError, match="'a' is no array of numbers"):
        bind({"a": [object()]}, ONE)
    with pytest.raises(ModelError, match="feed 1 is ndarray, no mapping"):
        bind([{"a": A}, A], ONE)  # type: ignore[list-item]
    with pytest.raises(UsageError, match="data cannot be int"):
        bind(3, ONE)  # type: ignore[arg-type]
