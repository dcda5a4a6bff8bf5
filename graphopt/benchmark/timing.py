"""The measuring loop: short turns of each model, interleaved in an order shuffled anew each round.

Why one process with every session open: the models then share the same clock speed, heat, page cache and noisy
neighbours, and each round gives one *pair* of times whose ratio those cancel out of. Two things would spoil that, and
are dealt with:

* ONNX Runtime's idle threads spin for a while after a run and steal the cores from the next model: on two cores the
  same model measured against itself went from 2.7 ms alone to 6.8 ms interleaved. Sessions are therefore opened with
  ``session.force_spinning_stop``, which brings it back to 2.8 ms and leaves a lone session's time as it was.
* A model finds its weights evicted from the caches by the one before it. A turn is therefore several runs (about
  10 ms' worth) after one that is not timed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import random
import statistics
import time
from collections.abc import Callable, Iterator, Sequence

from graphopt.benchmark.energy import LOST

__all__ = ["Plan", "Samples", "measure"]

_TURN_NS = 10_000_000
_LONGEST_TURN = 2000
_MOST_ROUNDS = 100
"""Of a fixed number of runs; an adaptive measurement needs about as many (a second in turns of 10 ms)."""
_FEWEST_ROUNDS = 10
_FEWEST_ROUNDS_LATE = 3
"""Past the time cap a slow model is done after this many."""

Clock = Callable[[], int]


@dataclasses.dataclass(frozen=True, slots=True)
class Plan:
    """How much to measure.

    Attributes:
        runs: Timed runs of each model; ``None`` decides by time.
        warmup: Runs of each model before any is timed, at least one.
        min_time: Seconds of timed runs of each model at least, where ``runs`` is ``None``.
        max_time: Seconds after which the measurement stops, where ``runs`` is ``None``.
        seed: Of the order in which the models take turns.
    """

    runs: int | None = None
    warmup: int = 5
    min_time: float = 1.0
    max_time: float = 60.0
    seed: int = 0


@dataclasses.dataclass(slots=True)
class Samples:
    """What was measured of one model: every run, the median of each turn, the sum; nanoseconds. And microjoules of all
    runs, where energy was measured."""

    runs: list[int] = dataclasses.field(default_factory=list)
    rounds: list[float] = dataclasses.field(default_factory=list)
    total: int = 0
    microjoules: int = 0

    def add(self, turn: Sequence[int], microjoules: int = 0) -> None:
        self.total += sum(turn)
        self.runs.extend(turn)
        self.rounds.append(statistics.median(turn))
        self.microjoules += microjoules

    @property
    def millijoules(self) -> float | None:
        """Of a run; None where no energy was measured, or the counters stood still."""
        return self.microjoules / len(self.runs) / 1000 if self.microjoules > 0 else None


def measure(
    runners: Sequence[Callable[[], object]],
    plan: Plan,
    *,
    progress: Callable[[float], None] | None = None,
    clock: Clock = time.perf_counter_ns,
    meter: Callable[[], int] = lambda: 0,
) -> list[Samples]:
    """Time the runners against each other; one :class:`Samples` each, with equally many rounds.

    ``progress`` is called between rounds, never within a turn, with the fraction done. ``meter`` tells microjoules so
    far, and is read before and after each turn: see :mod:`graphopt.benchmark.energy`. If it is lost in between, no
    energy was measured.
    """
    counter = _Counter(meter)
    estimates = [_warm_up(run, plan.warmup, clock) for run in runners]
    samples = [Samples() for _ in runners]
    order = list(range(len(runners)))
    shuffle = random.Random(plan.seed).shuffle
    started = clock()
    with _no_garbage_collection():
        for turns, done in _rounds(plan, estimates, samples, lambda: (clock() - started) / 1e9):
            if progress is not None:
                progress(done)
            shuffle(order)
            for index in order:
                if len(runners) > 1:
                    runners[index]()
                before = counter()
                turn = _turn(runners[index], turns[index], clock)
                samples[index].add(turn, counter() - before)
    if counter.is_lost:
        for sample in samples:
            sample.microjoules = 0
    if progress is not None:
        progress(1.0)
    return samples


class _Counter:
    """A meter that tells nothing once it is lost."""

    def __init__(self, meter: Callable[[], int]) -> None:
        self._meter = meter
        self.is_lost = False

    def __call__(self) -> int:
        if not self.is_lost:
            try:
                return self._meter()
            except LOST:
                self.is_lost = True
        return 0


def _rounds(
    plan: Plan, estimates: Sequence[int], samples: Sequence[Samples], elapsed: Callable[[], float]
) -> Iterator[tuple[list[int], float]]:
    """For each round to come: how many runs each model gets in its turn, and the fraction done so far."""
    if plan.runs is not None:
        rounds = min(plan.runs, _MOST_ROUNDS)
        for done in range(rounds):
            turn = plan.runs // rounds + (done < plan.runs % rounds)
            yield [turn] * len(samples), done / rounds
        return
    turns = [max(1, min(_LONGEST_TURN, _TURN_NS // max(1, estimate))) for estimate in estimates]
    done = 0
    while True:
        measured = min(sample.total for sample in samples) / 1e9
        late = elapsed() >= plan.max_time
        if done >= (_FEWEST_ROUNDS_LATE if late else _FEWEST_ROUNDS) and (late or measured >= plan.min_time):
            return
        by_time = measured / plan.min_time if plan.min_time > 0 else 1.0
        yield turns, min(1.0, max(min(by_time, done / _FEWEST_ROUNDS), elapsed() / max(plan.max_time, 1e-9)))
        done += 1


def _turn(run: Callable[[], object], count: int, clock: Clock) -> list[int]:
    times = []
    for _ in range(count):
        start = clock()
        run()
        times.append(clock() - start)
    return times


def _warm_up(run: Callable[[], object], count: int, clock: Clock) -> int:
    """Run ``count`` times (once at least) and return the fastest, in nanoseconds."""
    return min(_turn(run, max(1, count), clock))


@contextlib.contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """A collection in the middle of a run would be charged to whichever model it hit."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
