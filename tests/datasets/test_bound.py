"""Bound data: the same batches each time, subsets, splits, digests, and what stays in memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from harness import parse

from graphopt.datasets import Bound, bind, binding
from graphopt.errors import UsageError

MODEL = parse("agraph (float[N,4] a) => (float[N,4] b) { b = Identity(a) }")
FIXED = parse("agraph (float[3,4] a) => (float[3,4] b) { b = Identity(a) }")
A = np.arange(120, dtype=np.float32).reshape(30, 4)
DATA: dict[str, Any] = {"a": A, "y": np.arange(30)}


def rows(bound: Bound) -> list[int]:
    return [int(value) // 4 for feeds in bound.batches() for value in feeds["a"][:, 0]]


def test_each_iteration_is_the_same_and_fresh() -> None:
    bound = bind(DATA, MODEL, samples=10)
    half = bound.batches(5)
    next(half)
    assert len(list(bound.batches(5))) == 2
    assert (next(half)["a"] == list(bound.batches(5))[1]["a"]).all()
    first = next(bound.batches())
    first["a"][:] = 0  # what a caller does to a batch stays there
    assert next(bound.batches())["a"].any()
    assert (DATA["a"] == np.arange(120).reshape(30, 4)).all()
    with pytest.raises(UsageError, match="batch of 0"):
        bound.batches(0)


def test_digest() -> None:
    digest = bind(DATA, MODEL).digest
    assert len(digest) == 64
    assert digest == bind({"a": A}, MODEL).digest  # labels are no input
    list(bind(DATA, MODEL).batches(7))
    moved = A.copy()
    moved[29, 3] += 1
    assert bind({"a": moved}, MODEL).digest != digest
    other = parse("agraph (float[N,4] c) => (float[N,4] b) { b = Identity(c) }")
    assert bind({"c": A}, other).digest != digest
    assert digest == "f196fdae1d6b6fb6bf5329aed8b93a9db351bd68c7dabc81b77398430fb89be0"  # on any machine


def test_take() -> None:
    bound = bind(DATA, MODEL)
    few = bound.take(5, seed=1)
    assert len(few) == 5
    assert few.labels is not None
    assert few.labels.tolist() == rows(few) == sorted(rows(few))
    assert rows(bound.take(5, seed=1)) == rows(few) != rows(bound.take(5, seed=2))
    assert rows(bound.take(99)) == rows(bound)
    with pytest.raises(UsageError, match="0 samples"):
        bound.take(0)
    assert len(bind(DATA, FIXED).take(8)) == 6
    with pytest.raises(UsageError, match="fewer than the 3"):
        bind(DATA, FIXED).take(2)


def test_split() -> None:
    bound = bind(DATA, MODEL)
    train, test = bound.split(0.6, seed=0)
    assert len(train) == 18
    assert sorted(rows(train) + rows(test)) == list(range(30))
    assert train.digest != test.digest
    again, _ = bound.split(0.6, seed=0)
    assert rows(again) == rows(train)
    fixed = bind(DATA, FIXED).split(0.5)
    assert [len(part) for part in fixed] == [15, 15]
    assert all(feeds["a"].shape == (3, 4) for part in fixed for feeds in part.batches())
    for fraction in (0, 1, 0.001, 0.999):
        with pytest.raises(UsageError):
            bound.split(fraction)


def test_large_data_stay_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.save(tmp_path / "a.npy", A)
    kept = bind(tmp_path, MODEL, samples=12, seed=4)
    monkeypatch.setattr(binding, "_KEEP", 10)
    mapped = bind(tmp_path, MODEL, samples=12, seed=4)
    assert rows(kept) == rows(mapped)
    assert kept.digest == mapped.digest
    file = np.load(tmp_path / "a.npy", mmap_mode="r+")
    file[:] = 7
    file.flush()
    assert (next(mapped.batches())["a"] == 7).all()
    assert (next(kept.batches())["a"] != 7).any()
    assert rows(kept.take(3)) == sorted(rows(kept.take(3)))


def test_samples_by_number() -> None:
    bound = bind(DATA, MODEL, samples=10, seed=3)
    every = rows(bound)
    numbers = np.array([7, 0, 7, 9, 2])
    assert [int(value) // 4 for value in bound.at(numbers)["a"][:, 0]] == [every[number] for number in numbers]
    labels = bound.labels_at(numbers)
    assert labels is not None
    assert labels.tolist() == [every[number] for number in numbers]
    assert bind({"a": A}, MODEL).labels_at(numbers) is None
    with pytest.raises(IndexError):
        bound.at(np.array([10]))


def test_samples_by_number_in_groups_and_whole_feeds() -> None:
    fixed = bind(DATA, FIXED)
    assert fixed.group_is_fixed
    assert not bind(DATA, MODEL).group_is_fixed
    assert fixed.at(np.array([2, 1, 0]))["a"][:, 0].tolist() == [8, 4, 0]
    with pytest.raises(UsageError, match="2 samples are asked for, and the model takes 3"):
        fixed.at(np.array([2, 1]))
    calls = bind([{"a": A[:2], "y": [0, 1]}, {"a": A[2:7], "y": [2, 3, 4, 5, 6]}], MODEL)
    assert calls.whole
    assert not fixed.whole
    assert calls.at(np.array([1]))["a"].shape == (5, 4)
    labels = calls.labels_at(np.array([1]))
    assert labels is not None
    assert labels.tolist() == [2, 3, 4, 5, 6]


def test_an_input_that_all_samples_share() -> None:
    model = parse("agraph (float[N,4] a, float s) => (float[N,4] b) { b = Mul(a, s) }")
    bound = bind({"a": A, "s": np.float32(3)}, model)
    assert bound.shared == {"s"}
    feeds = bound.at(np.array([4, 1, 1]))
    assert feeds["s"].shape == ()
    assert feeds["a"][:, 0].tolist() == [16, 4, 4]
