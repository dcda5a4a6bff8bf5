"""Random changes to inputs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from graphopt.distillation.augmentations import AUGMENTATIONS, augmentation
from graphopt.distillation.sampling import Arrays
from graphopt.errors import UsageError

IDS = np.arange(6)


def images() -> np.ndarray[Any, Any]:
    return np.arange(6 * 2 * 5 * 4, dtype=np.float32).reshape(6, 2, 5, 4)


def change(spec: Any, feeds: Arrays, view: int = 0, seed: int = 0, views: int = 2) -> Arrays:
    made = augmentation(spec, seed, views)
    assert made is not None
    return made(feeds, IDS, view)


def test_none() -> None:
    assert augmentation("", 0, 1) is None


def test_a_function_of_the_sample_and_the_view() -> None:
    x = images()
    first = change("noise", {"x": x})["x"]
    assert np.array_equal(first, change("noise", {"x": x})["x"])
    assert not np.array_equal(first, change("noise", {"x": x}, view=1)["x"])
    assert not np.array_equal(first, change("noise", {"x": x}, seed=1)["x"])
    assert first.dtype == np.float32
    assert np.array_equal(x, images())  # what was given stays


def test_shift_moves_over_the_edge() -> None:
    """Each image is one of those that can be, all planes alike."""
    x = images()
    moved = change("shift:pixels=1", {"x": x})["x"]
    for before, after in zip(x, moved, strict=True):
        padded = np.pad(before, ((0, 0), (1, 1), (1, 1)), "edge")
        can_be = [padded[:, row : row + 5, column : column + 4] for row in range(3) for column in range(3)]
        assert sum(np.array_equal(after, one) for one in can_be) == 1
    assert not np.array_equal(x, moved)
    assert np.array_equal(change("shift:pixels=0", {"x": x})["x"], x)
    assert change("shift:pixels=99", {"x": x})["x"].shape == x.shape


def test_flip() -> None:
    x = images()
    assert np.array_equal(change("flip:share=1", {"x": x})["x"], x[..., ::-1])
    assert np.array_equal(change("flip:share=0", {"x": x})["x"], x)
    some = change("flip", {"x": x})["x"]
    flipped = [np.array_equal(one, before[..., ::-1]) for one, before in zip(some, x, strict=True)]
    assert 0 < sum(flipped) < len(x)


def test_noise_has_the_deviation() -> None:
    x = np.zeros((6, 1000), np.float32)
    assert change("noise:deviation=0.5", {"x": x})["x"].std() == pytest.approx(0.5, rel=0.05)


def test_drop_replaces_tokens() -> None:
    x = np.full((6, 500), 7, np.int64)
    found = change("drop:share=0.3:token=103", {"x": x})["x"]
    assert set(np.unique(found)) == {7, 103}
    assert (found == 103).mean() == pytest.approx(0.3, abs=0.03)
    assert found.dtype == np.int64


def test_a_sum_changes_what_suits_and_nothing_else() -> None:
    feeds = {"x": images(), "n": np.arange(6, dtype=np.int64)}
    found = change("flip:share=1+noise:deviation=0", feeds)
    assert np.array_equal(found["x"], images()[..., ::-1])
    assert np.array_equal(found["n"], feeds["n"])


def test_one_input_by_name() -> None:
    """Masks are integers too: which are the tokens must be told."""
    feeds = {"ids": np.full((6, 50), 7, np.int64), "mask": np.ones((6, 50), np.int64)}
    with pytest.raises(UsageError, match="could be for ids, mask") as caught:
        change("drop", feeds)
    assert "drop:input=ids" in caught.value.hint
    found = change("drop:share=1:input=ids", feeds)
    assert not found["ids"].any()
    assert found["mask"].all()
    assert np.array_equal(change("flip:input=a:share=1", {"a": images(), "b": images()})["b"], images())


def test_functions() -> None:
    def doubled(feeds: Arrays, random: np.random.Generator) -> Arrays:
        assert feeds["x"].shape == (1, 2, 5, 4)
        return {"x": feeds["x"] * 2}

    assert np.array_equal(change(doubled, {"x": images()})["x"], images() * 2)
    assert np.array_equal(change("distillation.test_augmentations:negated", {"x": images()})["x"], -images())


def negated(feeds: Arrays, random: np.random.Generator) -> Arrays:
    return {name: -array for name, array in feeds.items()}


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("rotate", "no augmentation 'rotate'"),
        ("shift:pixel=2", "no option 'pixel'"),
        ("shift:2", "'2' in the augmentation spec 'shift:2' is no option"),
        ("shift:pixels=many", "'shift:pixels=many' is no augmentation"),
        ("shift:pixels=-1", "pixels cannot be below 0"),
        ("flip:share=1.5", "share must be from 0 to 1"),
        ("noise:deviation=inf", "deviation must be 0 or more"),
        ("drop:share=nan", "share must be from 0 to 1"),
        ("shift+", "no augmentation ''"),
        ("nothing_there:f", "nothing_there"),
        ("drop", "'drop' is for integers"),
        ("shift:input=y", "no input 'y'"),
    ],
)
def test_what_makes_no_sense(spec: str, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        change(spec, {"x": images()})
    assert words in caught.value.message
    assert caught.value.hint or "nothing_there" in spec


def test_every_change_says_what_it_suits() -> None:
    for name, made in AUGMENTATIONS.items():
        assert made.name == name
        assert made.suits
        assert made.__doc__
