"""How far each round of pruning goes."""

from __future__ import annotations

import pytest

from graphopt.distillation.rounds import aims
from graphopt.errors import UsageError
from graphopt.pruning.goal import Goal, Limit

WHOLE = {"macs": 1000, "params": 200, "bytes": 800}


def test_one_round_is_the_goal_itself() -> None:
    (aim,) = aims("macs=0.25,latency=3", 1)
    assert aim.of(WHOLE, WHOLE) == {"macs": Limit(0.25), "latency": Limit(3.0, "ms")}
    assert Goal.of(aim.of(WHOLE, WHOLE)) == Goal.of("macs=0.25,latency=3ms")


def test_equal_ratios_to_the_goal() -> None:
    """Where the rounds before went too far, or not far enough, the next one makes up for it."""
    now, seen = dict(WHOLE), []
    for aim in aims("macs=0.125,params=25,latency=0.64", 3):
        limits = aim.of(WHOLE, now)
        seen.append(limits)
        now = {"macs": int(now["macs"] * limits["macs"]), "params": int(now["params"] * limits["params"]), "bytes": 0}
    assert [one["macs"] for one in seen] == pytest.approx([0.5, 0.5, 0.5])
    assert [one["params"] for one in seen] == pytest.approx([0.5, 0.5, 0.5])
    assert [one["latency"] for one in seen] == pytest.approx([0.64 ** (1 / 3)] * 3)
    first, second = aims("macs=0.25", 2)
    assert first.of(WHOLE, WHOLE)["macs"] == pytest.approx(0.5)
    assert second.of(WHOLE, WHOLE | {"macs": 400})["macs"] == pytest.approx(0.625)
    assert second.of(WHOLE, WHOLE | {"macs": 200})["macs"] == 1.0


def test_nothing_left_is_no_division() -> None:
    (_, last) = aims("macs=0.5", 2)
    assert last.of({"macs": 0}, {"macs": 0}) == {"macs": 0.0}


@pytest.mark.parametrize(
    ("goal", "steps", "words"),
    [
        ("macs=0.5", 0, "prune-steps=0"),
        ("latency=0.3ms", 2, "latency=0.3ms"),
        ("memory=2MB", 2, "one step"),
        ("speed=2", 1, "speed"),
        ("macs", 1, "macs"),
    ],
)
def test_what_makes_no_sense(goal: str, steps: int, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        list(aims(goal, steps))
