"""The parts of the scoreboard of pruning that decide what is compared: the cache's key, the match of MACs, the bars."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from bench.pruning import accuracy, criteria, models, networks, peers
from bench.pruning import data as datasets

from graphopt.errors import EnvironmentProblem


def test_the_key_of_the_cache_changes_with_the_recipe() -> None:
    recipe = models.MODELS["digits"]
    keys = {models.recipe_hash(one) for one in (recipe, dataclasses.replace(recipe, epochs=1))}
    assert len(keys) == 2
    assert models.recipe_hash(dataclasses.replace(recipe)) in keys


def test_the_key_of_the_cache_depends_on_code_and_not_on_words(tmp_path: Path) -> None:
    def essence(text: str) -> str:
        path = tmp_path / "code.py"
        path.write_text(text)
        return models.essence(path)

    plain = essence('"""A."""\ndef f():\n    return 1\n')
    assert plain == essence('"""B."""\n\n# c\ndef f():\n    """D."""\n    return (1)\n')
    assert plain != essence('"""A."""\ndef f():\n    return 2\n')


@pytest.mark.parametrize(("wanted", "channels"), [(81, 9), (55, 7), (57, 8), (48, 7), (36, 6), (10, 3), (1, 1)])
def test_bisection_finds_the_nearest_macs(wanted: int, channels: int) -> None:
    def prune(ratio: float) -> bytes:
        return bytes(10 - int(ratio * 10))

    assert len(peers.bisected(prune, lambda model: len(model) ** 2, wanted)) == channels


def test_bisection_starts_below_a_ratio_that_a_tool_refuses() -> None:
    def prune(ratio: float) -> bytes:
        return bytes(10 if ratio > 0.88 else 10 - int(ratio * 10))

    assert len(peers.bisected(prune, len, 4)) == 4


def test_bisection_gives_the_cheapest_where_none_is_cheap_enough() -> None:
    assert peers.bisected(lambda ratio: b"same", len, 2) == b"same"


def test_macs_are_those_of_one_image() -> None:
    model = models.exported(networks.LeNet5(), np.zeros((2, 1, 28, 28), np.float32))
    convolutions = 28 * 28 * 6 * 25 + 10 * 10 * 16 * 6 * 25
    assert peers.macs(model, {"input": (1, 1, 28, 28)}) == convolutions + 400 * 120 + 120 * 84 + 84 * 10


def test_a_score_is_right() -> None:
    logits = np.array([[2.0, 0.0], [0.0, 1.0], [3.0, 1.0], [0.0, 0.0]], np.float32)
    found = models.score(logits, np.array([0, 1, 1, 0]))
    assert found.accuracy == 0.75
    assert found.classes == (1.0, 0.5)
    losses = [np.log1p(np.exp(-margin)) for margin in (2.0, 1.0, -2.0, 0.0)]
    assert found.loss == pytest.approx(np.mean(losses))


def test_divergence_is_that_of_the_predictions() -> None:
    before, after = np.log([[0.5, 0.5], [0.9, 0.1]]), np.log([[0.25, 0.75], [0.9, 0.1]])
    assert models.divergence(before, after + 3) == pytest.approx(0.5 * (0.5 * np.log(2) + 0.5 * np.log(2 / 3)))


def _summary(**changes: float | str) -> accuracy.Summary:
    values = {"reached": 2.0, "mean": 99.5, "least": 99.0, "drop": 1.0, "seconds": 10.0, "failure": ""}
    return accuracy.Summary(model="digits", tool=peers.GRAPHOPT, wanted=2.0, **{**values, **changes})  # type: ignore[arg-type]


def test_a_run_within_the_bars_misses_none() -> None:
    assert accuracy.missed(_summary()) == []


@pytest.mark.parametrize(
    "change", [{"mean": 99.2}, {"least": 98.7}, {"seconds": 61.0}, {"reached": 1.9}, {"failure": "no such operator"}]
)
def test_each_bar_can_be_missed(change: dict[str, float | str]) -> None:
    assert len(accuracy.missed(_summary(**change))) == 1


def test_the_worst_seed_counts() -> None:
    runs = [
        accuracy.Run("digits", seed, "x", 2.0, reached=2.0 + seed, kept=99.0 - seed, drop=seed, seconds=1.0 + seed)
        for seed in (0, 1)
    ]
    (found,) = accuracy.summaries(runs)
    assert (found.mean, found.least, found.drop, found.reached, found.seconds) == (98.5, 98.0, 1, 2.0, 2.0)


def test_what_does_not_work_is_a_dash_in_the_table_of_criteria() -> None:
    figures = {("l2", "global", 2.0, False): None, ("l2", "global", 2.0, True): 99.25}
    assert list(criteria.markdown(figures, [2.0]))[-1] == "| `l2` | global | – | 99.2 |"


@pytest.mark.parametrize("name", ["mnist", "fashion", "mails"])
def test_absent_data_are_named(name: str, tmp_path: Path) -> None:
    read: Callable[[Path, int], datasets.Data] = datasets.SOURCES[name]
    with pytest.raises(EnvironmentProblem, match="is missing"):
        read(tmp_path, 0)
