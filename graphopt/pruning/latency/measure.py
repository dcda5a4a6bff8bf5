"""How much faster a pruned model is than its original: measured, in this process, in about two seconds."""

from __future__ import annotations

import functools
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from graphopt import runtime
from graphopt.benchmark import binding, stats, timing
from graphopt.errors import ModelError
from graphopt.pruning.latency import sessions

if TYPE_CHECKING:
    from collections.abc import Callable

    from graphopt.benchmark.stats import Interval

__all__ = ["Stopwatch", "speedup"]

_WARMUP = 2


class Stopwatch:
    """Times models against one original, whose session stays open.

    Runs are interleaved in shuffled turns, with sessions opened as :func:`graphopt.bench` does, so that the ratio is
    one that ``bench`` will confirm. A context manager; leaving it removes temporary files.

    Args:
        original: The model that others are compared with, or its path.
        feeds: What to feed all of them.
        provider: An execution provider, as everywhere.
        threads: Intra-op threads; ``None`` leaves it to ONNX Runtime.
        seconds: Of each measurement, about.
        seed: Of the order of turns, and of the bootstrap.
        meter: Tells microjoules so far, if energy is to be measured: see :mod:`graphopt.benchmark.energy`.

    Raises:
        ModelError: ONNX Runtime refuses the model.
        EnvironmentProblem: The provider is missing.
    """

    def __init__(
        self,
        original: ir.Model | Path,
        feeds: Mapping[str, Any],
        *,
        provider: str = "cpu",
        threads: int | None = None,
        seconds: float = 2.0,
        seed: int = 0,
        meter: Callable[[], int] = lambda: 0,
    ) -> None:
        self._meter = meter
        self._provider = runtime.resolve_provider(provider)
        self._threads = threads
        self._feeds = dict(feeds)
        self._plan = timing.Plan(None, _WARMUP, seconds / 2, seconds, seed)
        # With a single thread, what the system gives to others in the middle of a run can be left out.
        alone = threads == 1 and self._provider == "CPUExecutionProvider"
        self._clock = time.thread_time_ns if alone else time.perf_counter_ns
        self._scratch = tempfile.TemporaryDirectory(prefix="graphopt-stopwatch-")
        # A session of several threads gets slower with age; of two to be compared, both are opened anew.
        runner = self._runner(original)
        self._original: Callable[[], Callable[[], object]] = (
            (lambda: runner) if alone else functools.partial(self._runner, original)
        )
        self.milliseconds = float("nan")
        """The original's median time in the last measurement."""
        self.millijoules: tuple[float | None, float | None] = None, None
        """Of a run of the original and of the other model, in the last measurement."""

    def __enter__(self) -> Stopwatch:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Removes temporary files."""
        self._scratch.cleanup()

    def ratio(self, pruned: ir.Model | Path) -> Interval:
        """How many times faster a model is than the original; above 1 is faster.

        Raises:
            ModelError: ONNX Runtime refuses the model, or it does not run on the feeds.
        """
        runners = [self._original(), self._runner(pruned)]
        try:
            first, other = timing.measure(runners, self._plan, clock=self._clock, meter=self._meter)
        except runtime.ort_errors() as error:
            raise ModelError(f"ONNX Runtime cannot run the model: {runtime.trim(error)}") from error
        self.milliseconds = stats.summarize(first.runs).p50
        self.millijoules = first.millijoules, other.millijoules
        return stats.paired_speedup(first.rounds, other.rounds, seed=self._plan.seed)

    def _runner(self, model: ir.Model | Path) -> Callable[[], object]:
        session = sessions.open_session(
            model, provider=self._provider, threads=self._threads, scratch=Path(self._scratch.name)
        )
        device = binding.device_of(self._provider)
        return binding.runner(session, self._feeds, device=None if device == "cpu" else device)


def speedup(
    original: ir.Model | Path,
    pruned: ir.Model | Path,
    feeds: Mapping[str, Any],
    *,
    provider: str = "cpu",
    threads: int | None = None,
    seconds: float = 2.0,
    seed: int = 0,
) -> Interval:
    """How many times faster ``pruned`` is than ``original``; see :class:`Stopwatch`."""
    with Stopwatch(original, feeds, provider=provider, threads=threads, seconds=seconds, seed=seed) as watch:
        return watch.ratio(pruned)
