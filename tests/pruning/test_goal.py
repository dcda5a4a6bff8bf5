"""Goals: what people may write, and what it means."""

from __future__ import annotations

from typing import Any

import pytest

from graphopt.errors import UsageError
from graphopt.pruning.goal import Goal


@pytest.mark.parametrize(
    ("given", "limits"),
    [
        ("macs=0.5", {"macs": 0.5}),
        (" macs = 0.5 , params=0.25,", {"macs": 0.5, "params": 0.25}),
        ({"latency": 0.4, "bytes": 1}, {"latency": 0.4, "bytes": 1.0}),
        ("bytes=2MB", {"bytes": 2e6}),
        ("bytes=4MiB", {"bytes": 4 * 2**20}),
        ("latency=3.5ms", {"latency": 3.5}),
        ("macs=1e9", {"macs": 1e9}),
        (Goal({"macs": 0.5}), {"macs": 0.5}),
    ],
)
def test_what_can_be_written(given: Any, limits: dict[str, float]) -> None:
    assert Goal.of(given).limits == limits
    assert Goal.of(str(Goal.of(given))) == Goal.of(given)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("", "is no goal"),
        (",", "is no goal"),
        ("macs", "is no goal"),
        ("=0.5", "is no goal"),
        ("macs=", "is no goal"),
        ({}, "is no goal"),
        (0.5, "is no goal"),
        ("macs=0.5,macs=0.4", "two limits"),
        ("mac=0.5", "cannot limit 'mac'\nDid you mean 'macs'"),
        ("macs=0", "macs=0 is no limit"),
        ("macs=-1", "no limit"),
        ("macs=nan", "no limit"),
        ("macs=inf", "no limit"),
        ("macs=50%", "no limit"),
        ({"macs": None}, "no limit"),
        ("params=2MB", "no limit"),
        ("macs=5ms", "no limit"),
        ("latency=0.05ms", "latency=0.05ms cannot be told from a share"),
    ],
)
def test_what_cannot(given: Any, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        Goal.of(given)
    assert words.lower() in str(caught.value).lower()
