"""Finding the guilty item."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from graphopt.verify.bisect import first_bad


@pytest.mark.parametrize("guilty", range(13))
def test_the_guilty_one_is_found_in_few_trials(guilty: int) -> None:
    trials = []

    def is_good(prefix: Sequence[int]) -> bool:
        trials.append(prefix)
        return guilty not in prefix

    assert first_bad(list(range(13)), is_good) == guilty
    assert len(trials) <= 6


def test_nobody_is_guilty_when_nothing_is_wrong_already_at_the_start() -> None:
    assert first_bad([1, 2, 3], lambda prefix: False) is None
