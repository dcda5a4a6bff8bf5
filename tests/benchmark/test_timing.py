"""The measuring loop, on a clock that only the runners move."""

from __future__ import annotations

import gc
from collections.abc import Callable

import pytest

from graphopt.benchmark.timing import Plan, measure


class Clock:
    """Nanoseconds that pass when a runner says so; remembers who ran."""

    def __init__(self) -> None:
        self.now = 0
        self.order: list[str] = []

    def __call__(self) -> int:
        return self.now

    def runner(self, name: str, nanoseconds: int) -> Callable[[], None]:
        def run() -> None:
            self.order.append(name)
            self.now += nanoseconds

        return run


def test_runs_are_exact_and_shared_out() -> None:
    clock = Clock()
    samples = measure([clock.runner("a", 5), clock.runner("b", 7)], Plan(runs=250, warmup=2), clock=clock)
    assert [len(sample.runs) for sample in samples] == [250, 250]
    assert [len(sample.rounds) for sample in samples] == [100, 100]
    assert set(samples[0].runs) == {5}
    assert set(samples[1].rounds) == {7}


def test_models_take_turns_in_shuffled_order() -> None:
    clock = Clock()
    measure([clock.runner("a", 1), clock.runner("b", 1)], Plan(runs=40, warmup=1), clock=clock)
    turns = clock.order[2:]  # after the warm-up; each turn is one untimed run and one timed
    rounds = ["".join(turns[start : start + 4]) for start in range(0, len(turns), 4)]
    assert set(rounds) == {"aabb", "bbaa"}


def test_same_seed_same_order() -> None:
    orders = []
    for seed in (1, 1, 2):
        clock = Clock()
        measure([clock.runner("a", 1), clock.runner("b", 1)], Plan(runs=40, seed=seed), clock=clock)
        orders.append(clock.order)
    assert orders[0] == orders[1] != orders[2]


def test_time_is_met_with_turns_of_ten_milliseconds() -> None:
    clock = Clock()
    fast, slow = measure(
        [clock.runner("fast", 100_000), clock.runner("slow", 4_000_000)], Plan(min_time=0.5), clock=clock
    )
    assert fast.total >= 500_000_000
    assert slow.total >= 500_000_000
    assert len(fast.runs) == 100 * len(fast.rounds)
    assert len(slow.runs) == 2 * len(slow.rounds)
    assert len(fast.rounds) == len(slow.rounds)


def test_slow_models_stop_at_the_cap_after_three_rounds() -> None:
    clock = Clock()
    (sample,) = measure([clock.runner("slow", 10**11)], Plan(warmup=1, max_time=60), clock=clock)
    assert len(sample.runs) == 3


def test_a_lone_model_has_no_untimed_runs() -> None:
    clock = Clock()
    measure([clock.runner("a", 1)], Plan(runs=8, warmup=3), clock=clock)
    assert len(clock.order) == 11


def test_progress_ends_at_one_and_never_falls() -> None:
    clock = Clock()
    seen: list[float] = []
    measure([clock.runner("a", 10**7)], Plan(min_time=0.3), progress=seen.append, clock=clock)
    assert seen == sorted(seen)
    assert seen[-1] == 1.0
    assert len(seen) > 10


def test_garbage_collection_is_off_only_while_timing() -> None:
    states: list[bool] = []
    clock = Clock()

    def run() -> None:
        states.append(gc.isenabled())

    assert gc.isenabled()
    measure([run], Plan(runs=2, warmup=1), clock=clock)
    assert gc.isenabled()
    assert states == [True, False, False]


def test_garbage_collection_is_back_on_after_a_failure() -> None:
    calls = iter([None, None])

    def run() -> None:
        next(calls)

    with pytest.raises(StopIteration):
        measure([run], Plan(runs=9, warmup=1), clock=Clock())
    assert gc.isenabled()
