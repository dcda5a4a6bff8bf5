"""How data are shared out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from harness import parse

import graphopt
from graphopt.compression.samples import Drawn, draw
from graphopt.errors import ModelError, UsageError


@pytest.fixture
def drawn(digits: Path) -> Drawn:
    model = graphopt.load(digits / "model.onnx")
    return draw(digits / "train.npz", digits / "test.npz", model, seed=0)


def test_half_to_choose_half_to_judge(drawn: Drawn) -> None:
    chosen, judged = drawn.choose.bound.rows, drawn.final.bound.rows
    assert not set(chosen.tolist()) & set(judged.tolist())
    assert len(chosen) + len(judged) == 697
    assert abs(len(chosen) - len(judged)) <= 1
    assert len(drawn.train) == 1100


def test_some_are_held_out_where_there_are_none_to_judge_by(digits: Path) -> None:
    drawn = draw(digits / "train.npz", None, graphopt.load(digits / "model.onnx"), seed=0)
    rows = [set(one.bound.rows.tolist()) for one in (drawn.train, drawn.choose, drawn.final)]
    assert sum(map(len, rows)) == len(set.union(*rows)) == 1100
    assert set(drawn.fit.bound.rows.tolist()) <= rows[0]
    assert any("set aside" in note for note in drawn.notes)


def test_as_a_dataset_samples_are_the_same(drawn: Drawn, digits: Path) -> None:
    bound = graphopt.datasets.bind(drawn.choose.dataset, graphopt.load(digits / "model.onnx"), samples=None)
    ours, theirs = (np.concatenate([feeds["x"] for feeds in one.batches(50)]) for one in (drawn.choose, bound))
    np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_array_equal(bound.labels, drawn.choose.labels)


def test_balanced_samples_repeat_the_rare(digits: Path) -> None:
    data = dict(np.load(digits / "train.npz"))
    rare = np.flatnonzero(data["y"] == 3)[:12]
    rows = np.concatenate([np.flatnonzero(data["y"] != 3), rare])
    given = {name: array[rows] for name, array in data.items()}
    model = graphopt.load(digits / "model.onnx")
    fit = draw(given, digits / "test.npz", model, samples=200, balanced=True).fit
    bound = graphopt.datasets.bind(fit.dataset, model, samples=None)
    assert bound.labels is not None
    assert np.bincount(bound.labels).tolist() == [20] * 10
    x = np.concatenate([feeds["x"] for feeds in bound.batches(64)])
    known = {one.tobytes(): label for one, label in zip(given["x"], given["y"], strict=True)}
    assert [known[one.tobytes()] for one in x] == bound.labels.tolist()
    plain = draw(given, digits / "test.npz", model, samples=200).fit
    assert plain.labels is not None
    assert (plain.labels == 3).sum() < 8


def test_slices_go_with_their_samples(digits: Path) -> None:
    model = graphopt.load(digits / "model.onnx")
    drawn = draw(digits / "train-sliced.npz", digits / "test-sliced.npz", model, slices=["pen"])
    x = np.concatenate([feeds["x"] for feeds in drawn.final.batches(64)])
    expected = np.where(x.mean((1, 2, 3)) > 0.3, "thick", "thin")
    np.testing.assert_array_equal(drawn.final.slices["pen"], expected)


def test_noise_is_the_same_each_time(drawn: Drawn) -> None:
    noisy = drawn.choose.noisy(0.5)
    first, again, plain = (next(one.batches(16))["x"] for one in (noisy, noisy, drawn.choose))
    np.testing.assert_array_equal(first, again)
    assert 0.3 * plain.std() < (first - plain).std() < 0.7 * plain.std()


def test_a_model_of_a_fixed_batch_gets_whole_batches() -> None:
    model = parse("agraph (float[4,3] x) => (float[4,3] y) { y = Relu (x) }")
    drawn = draw({"x": np.ones((50, 3), np.float32)}, None, model)
    for part in (drawn.train, drawn.choose, drawn.final):
        assert len(part) % 4 == 0
        assert all(feeds["x"].shape == (4, 3) for feeds in part.batches(7))


@pytest.mark.parametrize("count", [1, 2])
def test_too_few_samples_are_told(count: int) -> None:
    model = parse("agraph (float[N,3] x) => (float[N,3] y) { y = Relu (x) }")
    with pytest.raises(ModelError, match="cannot be shared out"):
        draw({"x": np.ones((count, 3), np.float32)}, None, model)


def test_whole_feeds_have_no_slices() -> None:
    model = parse("agraph (float[N,3] x) => (float[N,3] y) { y = Relu (x) }")
    with pytest.raises(UsageError, match="whole feeds have no columns"):
        draw([{"x": np.ones((2, 3), np.float32)}] * 8, None, model, slices=["a"])


def test_a_model_of_much_work_is_refitted_with_fewer() -> None:
    """2 ** 26 multiply-accumulates a sample: 1,024 of them are affordable."""
    x = np.zeros((3000, 64, 64), np.float32)
    weights = {"w": np.zeros((64, 16384), np.float32)}
    model = parse("agraph (float[N,64,64] x) => (float[N,64,16384] y) { y = MatMul (x, w) }", weights)
    given = {"x": x, "y": np.zeros(3000, np.int64)}
    found = draw(given, None, model)
    assert (found.fitted, len(found.calibrate)) == (1024, 2048)
    assert set(found.fit.bound.rows.tolist()) <= set(found.calibrate.bound.rows.tolist())
    assert draw(given, None, model, samples=1500).fitted == 1500
