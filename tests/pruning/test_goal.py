"""Goals: what people may write, and what it means."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphopt.errors import UsageError
from graphopt.pruning.goal import MEASURES, Goal, Limit


@pytest.mark.parametrize(
    ("given", "limits", "text"),
    [
        ("macs=0.5", {"macs": Limit(0.5)}, "macs=0.5"),
        (" macs = 0.5 , params=0.25,", {"macs": Limit(0.5), "params": Limit(0.25)}, "macs=0.5,params=0.25"),
        ({"latency": 0.4, "bytes": 1}, {"latency": Limit(0.4), "bytes": Limit(1.0)}, "latency=0.4,bytes=1"),
        ("bytes=2MB", {"bytes": Limit(2e6, "B")}, "bytes=2MB"),
        ("bytes=2000000", {"bytes": Limit(2e6, "B")}, "bytes=2MB"),
        ("bytes=0.5MB", {"bytes": Limit(5e5, "B")}, "bytes=500kB"),
        ("bytes=1B", {"bytes": Limit(1.0, "B")}, "bytes=1B"),
        ("memory=4MiB", {"memory": Limit(4 * 2**20, "B")}, "memory=4.194304MB"),
        ("memory=64k", {"memory": Limit(64e3, "B")}, "memory=64kB"),
        ("latency=3.5ms", {"latency": Limit(3.5, "ms")}, "latency=3.5ms"),
        ("latency=3.5", {"latency": Limit(3.5, "ms")}, "latency=3.5ms"),
        ("latency=0.4ms", {"latency": Limit(0.4, "ms")}, "latency=0.4ms"),
        ("latency=1ms", {"latency": Limit(1.0, "ms")}, "latency=1ms"),
        ("latency=400 us", {"latency": Limit(0.4, "ms")}, "latency=0.4ms"),
        ("latency=.002s", {"latency": Limit(2.0, "ms")}, "latency=2ms"),
        ("macs=1e9", {"macs": Limit(1e9)}, "macs=1G"),
        ("params=1.5M", {"params": Limit(1.5e6)}, "params=1.5M"),
        (Goal({"macs": Limit(0.5)}), {"macs": Limit(0.5)}, "macs=0.5"),
        ({"latency": Limit(0.4, "ms"), "macs": Limit(7.0)}, {"latency": Limit(0.4, "ms"), "macs": Limit(7.0)},
         "latency=0.4ms,macs=7"),
    ],
)  # fmt: skip
def test_what_can_be_written(given: Any, limits: dict[str, Limit], text: str) -> None:
    assert Goal.of(given).limits == limits
    assert str(Goal.of(given)) == text
    assert Goal.of(text) == Goal.of(given)


@settings(max_examples=300)
@given(
    st.sampled_from(sorted(MEASURES)),
    st.floats(1e-15, 1e15),
    st.sampled_from(["", "ms", "us", "s", "B", "kB", "MiB", "K", "g"]),
)
def test_every_goal_reads_back_as_itself(name: str, number: float, unit: str) -> None:
    try:
        goal = Goal.of(f"{name}={number!r}{unit}")
    except UsageError:
        assert unit  # of another measure
        return
    assert Goal.of(str(goal)) == goal
    assert goal.limits[name].is_share == (not unit and float(f"{number:.12g}") <= 1)


def test_half_of_an_operation_is_no_share() -> None:
    with pytest.raises(UsageError, match="is no limit"):
        Goal.of("macs=0.0005K")


def test_what_a_limit_is_of_an_original() -> None:
    share, number = Limit(0.25), Limit(0.5, "ms")
    assert (share.share(8), share.amount(8)) == (0.25, 2.0)
    assert (number.share(2.0), number.amount(2.0)) == (0.25, 0.5)
    assert Limit(5.0).share(0) > 1


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
        ("latency=5MB", "as latency=0.4ms"),
        ("latency=0ms", "no limit"),
        ("bytes=1e999GB", "no limit"),
        ("bytes=2 M B", "no limit"),
    ],
)
def test_what_cannot(given: Any, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        Goal.of(given)
    assert words.lower() in str(caught.value).lower()
