"""Which multiple of channels is found, from invented times and from this machine's."""

from __future__ import annotations

import math

import numpy as np
import pytest

from graphopt.errors import EnvironmentProblem
from graphopt.pruning.latency.alignment import _counts, choose, preferred_multiple, relative


def blocks(size: int, noise: float = 0.0) -> dict[int, float]:
    """Times of a kernel that pads to blocks."""
    random = np.random.default_rng(0)
    return {count: (math.ceil(count / size) * size) ** 2 * (1 + noise * random.random()) for count in _counts(32)}


@pytest.mark.parametrize("size", [1, 8, 16, 32])
@pytest.mark.parametrize("noise", [0.0, 0.05])
def test_the_size_of_blocks_is_found(size: int, noise: float) -> None:
    if size == 1:
        assert choose(blocks(1, noise), 32) <= 2
    else:
        assert choose(blocks(size, noise), 32) == size


def test_a_single_disturbed_count_changes_nothing() -> None:
    times = blocks(16)
    times[80] *= 3
    times[96] *= 1.02
    assert choose(times | {112: times[112]}, 32) in (16, 32)
    times = blocks(8)
    times[88] *= 5
    assert choose(times, 32) == 8


def test_what_slows_a_whole_round_does_not_count() -> None:
    calm, busy = [1.0, 2.0, 3.0], [10.0, 20.0, 30.0]
    assert relative(list(zip(calm, busy, calm, strict=True))) == pytest.approx([0.5, 1.0, 1.5])


def test_without_times_there_is_no_preference() -> None:
    assert choose({}, 32) == 1


@pytest.mark.parametrize("kind", ["conv", "matmul"])
def test_this_machine_prefers_some_multiple(kind: str) -> None:
    found = preferred_multiple("cpu", kind=kind)  # type: ignore[arg-type]
    assert found in (4, 8, 16, 32)
    assert preferred_multiple("CPU", threads=1, kind=kind) == found  # type: ignore[arg-type]


def test_a_provider_must_be_there() -> None:
    with pytest.raises(EnvironmentProblem):
        preferred_multiple("nosuchprovider")
