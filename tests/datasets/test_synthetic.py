"""Made-up samples: they run, they repeat, and images of them are smooth."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from harness import parse, run

import graphopt
from graphopt.datasets import bind
from graphopt.datasets.synthetic import smooth_image, synthetic
from graphopt.errors import ModelError, UsageError


@pytest.mark.parametrize("name", ["silero_vad", "caustic_painn", "ppocrv2_cls", "logreg_iris"])
def test_they_run_and_repeat(models: Path, name: str) -> None:
    model = graphopt.load(models / f"{name}.onnx")
    bound = bind(synthetic(model, 6), model, samples=6)
    assert len(bound) == 6
    for feeds in bound.batches(3):
        run(model, feeds)
    assert bound.digest == bind(synthetic(model, 6), model, samples=6).digest
    assert bound.digest != bind(synthetic(model, 6, seed=9), model, samples=6).digest


def test_samples_differ_and_do_not_depend_on_the_batch() -> None:
    model = parse("agraph (float[N,3,32,32] i, float[N,5] a) => (float[N,5] b) { b = Identity(a) }")
    bound = bind(synthetic(model, 8), model)
    (all_of_them,) = bound.batches(8)
    one_by_one = list(bound.batches(1))
    assert [len(feeds["i"]) for feeds in one_by_one] == [1] * 8
    for number, feeds in enumerate(one_by_one):
        assert (feeds["i"][0] == all_of_them["i"][number]).all()
    assert len({image.tobytes() for image in all_of_them["i"]}) == 8
    assert len({row.tobytes() for row in all_of_them["a"]}) == 8


def test_fixed_batch() -> None:
    model = parse("agraph (float[4,3,8,8] i) => (float[4,3,8,8] b) { b = Identity(i) }")
    bound = bind(synthetic(model, 6), model)
    assert [feeds["i"].shape for feeds in bound.batches()] == [(4, 3, 8, 8)] * 2


@pytest.mark.parametrize(("shape", "spatial"), [((4, 3, 32, 48), (2, 3)), ((4, 32, 48, 3), (1, 2))])
def test_images_are_smooth(shape: tuple[int, ...], spatial: tuple[int, int]) -> None:
    image = smooth_image(shape, spatial, np.random.default_rng(0))
    assert image.shape == shape
    assert image.dtype == np.float32
    assert np.allclose(image.mean((1, 2, 3)), 0, atol=1e-5)
    assert np.allclose(image.std((1, 2, 3)), 1, atol=1e-5)
    for axis in spatial:
        count = shape[axis]
        pairs = np.corrcoef(image.take(range(count - 1), axis).ravel(), image.take(range(1, count), axis).ravel())
        assert 0.5 < pairs[0, 1] < 0.98  # white noise: 0
    channels = np.moveaxis(image, 6 - sum(spatial), 0).reshape(3, -1)
    assert np.corrcoef(channels)[0, 1] > 0.4
    power = np.abs(np.fft.rfft2(image, axes=spatial)) ** 2
    low, high = (power.take(place, spatial[0]).mean() for place in (1, shape[spatial[0]] // 2))
    assert low > 10 * high


def test_integers_stay_below_what_they_select_from() -> None:
    model = parse(
        "agraph (int64[N,6] k) => (float[N,6,2] b) { b = Gather(table, k) }", {"table": np.ones((3, 2), "f4")}
    )
    (feeds,) = bind(synthetic(model, 20), model).batches()
    assert sorted(set(feeds["k"].ravel().tolist())) == [0, 1, 2]
    assert run(model, feeds)[0].shape == (20, 6, 2)


def test_refusals() -> None:
    model = parse("agraph (float[N,4] a) => (float[N,4] b) { b = Identity(a) }")
    with pytest.raises(UsageError, match="0 samples"):
        synthetic(model, 0)
    sequence = parse("agraph (seq(float[N]) s) => (float[M] b) { b = ConcatFromSequence<axis=0>(s) }")
    with pytest.raises(ModelError, match="is a sequence"):
        synthetic(sequence)
    never = parse("agraph (float[2,3] a, float[4,5] c) => (float[M,K] b) { b = MatMul(a, c) }")
    with pytest.raises(ModelError):
        synthetic(never)
