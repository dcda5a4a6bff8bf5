"""The benches of distillation: what they compute themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bench.distillation import classic, networks, recovery, speed
from bench.distillation.ledger import Figures, Ledger


def test_a_run_that_is_over_is_not_measured_again(tmp_path: Path) -> None:
    measured: list[int] = []

    def measure() -> Figures:
        measured.append(1)
        return {"accuracy": 0.5}

    settings = {"seed": 0, "channels": (1, 2)}
    first = Ledger("some", tmp_path).run(settings, measure)
    assert Ledger("some", tmp_path).run(settings, measure) == first
    assert len(measured) == 1
    Ledger("some", tmp_path).run(settings | {"seed": 1}, measure)
    Ledger("other", tmp_path).run(settings, measure)
    assert len(measured) == 3


def test_views_are_the_images_moved_by_up_to_two_pixels() -> None:
    x = np.random.default_rng(0).standard_normal((6, 1, 9, 9)).astype(np.float32)
    views = classic.shifted(x, 3).reshape(3, 6, 1, 9, 9)
    assert np.array_equal(views[0], x)
    padded = np.pad(x, [(0, 0), (0, 0), (2, 2), (2, 2)], constant_values=x.min())
    for view in views[1:]:
        for image, whole in zip(view, padded, strict=True):
            moved = [whole[:, down : down + 9, right : right + 9] for down in range(5) for right in range(5)]
            assert any(np.array_equal(image, one) for one in moved)
    assert not np.array_equal(views[1], views[2])
    assert np.array_equal(classic.shifted(x, 3).reshape(views.shape), views)


def test_gains_are_against_labels_alone_at_the_same_seed() -> None:
    scores = {
        ("1000", "alone", 0): 90.0,
        ("1000", "alone", 1): 92.0,
        ("1000", "logits", 0): 93.0,
        ("1000", "logits", 1): 94.0,
        ("1000+", "logits", 1): 97.0,
    }
    found = {(one.regime, one.way): one for one in classic.summaries(scores)}
    assert found["1000", "logits"].gains == (3.0, 2.0)
    assert found["1000", "logits"].mean == 93.5
    assert found["1000+", "logits"].gains == (5.0,)


def test_bars_that_are_missed_are_named() -> None:
    worse = classic.Summary("all", "logits", (99.2, 99.2), (-0.1, 0.0))
    assert len(classic.missed(99.3, 19.0, [worse])) == 4
    assert classic.missed(99.5, 21.0, [classic.Summary("all", "logits", (99.4,), (0.1,))]) == []


@pytest.mark.parametrize(("kept", "expected"), [([99.6, 99.5], []), ([99.6, 99.3], ["digits at 2x: 99.45 %"])])
def test_recovery_judges_the_mean_over_seeds(kept: list[float], expected: list[str]) -> None:
    runs: dict[Any, list[Figures]] = {("digits", 2.0, "distilled"): [{"kept": one} for one in kept]}
    assert [one.partition(",")[0] for one in recovery.missed(runs)] == expected


def test_ratios_of_steps_are_taken_within_a_round() -> None:
    times = {speed.PLAIN: [(9.0, 1.0), (9.0, 2.0)], speed.CACHED: [(1.0, 1.1), (1.0, 2.2)]}
    times[speed.TORCH] = [(1.0, 3.3), (1.0, 4.4)]
    assert speed.missed(times) == []
    times[speed.CACHED] = [(1.0, 1.3), (1.0, 2.6)]
    assert len(speed.missed(times)) == 2


def test_the_student_of_the_classic_case_is_small() -> None:
    weights = sum(one.numel() for one in networks.Student().parameters())
    assert weights * 100 < sum(one.numel() for one in networks.Vgg16().parameters())
