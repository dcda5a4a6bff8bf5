"""Time models against each other under ONNX Runtime."""

from __future__ import annotations

import dataclasses
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from graphopt import runtime, walk
from graphopt.analysis.parameters import parameters
from graphopt.benchmark import binding, energy, memory, stats, table, timing
from graphopt.benchmark.subjects import Source, Subject, check_shapes, file_bytes, fits, load, possible_feeds
from graphopt.errors import ModelError, UsageError

if TYPE_CHECKING:
    from graphopt.verify.feeds import Feeds

__all__ = ["Progress", "bench"]

Progress = Callable[[str, float], None]
"""Called with what is going on and the fraction of the whole done, from 0 to 1."""

_FOOTPRINT_SHARE = 0.3
_SHAPES_HINT = "Give shapes that it runs on, for example --input-shape x:1,3,224,224."
_SESSION_CONFIG = {"session.force_spinning_stop": "1"}


@dataclasses.dataclass(frozen=True, slots=True)
class _Opening:
    """How every session is opened; ``device`` is where tensors are bound, if they are."""

    provider: str
    threads: int | None
    device: str | None
    custom_ops: Sequence[str]


def bench(
    models: Sequence[Source],
    *,
    provider: str = "cpu",
    threads: int | None = None,
    batch: int | None = None,
    shapes: Mapping[str, Sequence[int]] | None = None,
    runs: int | None = None,
    warmup: int = 5,
    min_time: float = 1.0,
    max_time: float = 60.0,
    seed: int = 0,
    io_binding: bool | None = None,
    custom_ops: Sequence[str] = (),
    progress: Progress | None = None,
) -> table.BenchTable:
    """Time ``models`` against each other and weigh them.

    Runs are interleaved in shuffled turns, all sessions open in this process, with ONNX Runtime's default graph
    optimizations on; session creation and peak memory are measured in a fresh process for each model. The first
    model is the one that the others are compared to. On the processor, energy is estimated by its counters, where it
    has any that may be read (:mod:`graphopt.benchmark.energy`).

    Args:
        models: Paths or models, at least one.
        provider: ``"cpu"``, ``"cuda"``, ``"auto"`` or any execution provider that ONNX Runtime has here.
        threads: Intra-op threads; ``None`` leaves the choice to ONNX Runtime.
        batch: What to set the leading symbolic dimension of the inputs to.
        shapes: Input shapes by input name, for models with symbolic dims.
        runs: Timed runs of each model; ``None`` runs until ``min_time`` is met.
        warmup: Runs of each model that are not timed.
        min_time: Seconds of timed runs of each model at least.
        max_time: Seconds of timing, for all models together, after which slow models make do with few runs.
        seed: Of the feeds, the order and the bootstrap.
        io_binding: Whether inputs and outputs are bound to device memory; ``None`` means on CUDA only.
        custom_ops: Libraries of custom operators to load.
        progress: Called between turns; see :data:`Progress`.

    Raises:
        UsageError: An option makes no sense, alone or for these models.
        ModelError: A model cannot be read or run.
        EnvironmentProblem: The provider is missing here.
        LimitReached: Opening a model took longer than ten minutes.
    """
    _check(models, threads=threads, batch=batch, runs=runs, min_time=min_time, max_time=max_time)
    execution_provider = runtime.resolve_provider(provider)
    device = binding.device_of(execution_provider)
    bound = device if io_binding or (io_binding is None and device != "cpu") else None
    plan = timing.Plan(runs, max(1, warmup), min_time, max_time, seed)
    report = progress or (lambda what, fraction: None)
    opening = _Opening(execution_provider, threads, bound, custom_ops)
    with tempfile.TemporaryDirectory(prefix="graphopt-bench-") as scratch:
        subjects = load(models, Path(scratch))
        check_shapes(subjects, shapes or {})
        feeds, footprints = _weigh(subjects, opening, report, shapes=shapes or {}, batch=batch, seed=seed)
        meter, counters = energy.opened() if device == "cpu" else (None, "")
        samples = _measure(subjects, feeds, opening, plan, report, meter)
        if meter is not None and not any(sample.microjoules for sample in samples):
            counters = energy.silence(meter, counters)
        rows = tuple(_rows(subjects, footprints, samples, batch or 1, seed))
    settings = table.Settings(
        provider=execution_provider,
        threads=threads,
        batch=batch,
        seed=seed,
        rounds=len(samples[0].rounds),
        io_binding=bound is not None,
        shapes={name: list(feed.shape) for name, feed in feeds[0].items() if hasattr(feed, "shape")},
        energy=counters,
    )
    return table.BenchTable(rows, settings, table.environment())


def _check(
    models: Sequence[Source],
    *,
    threads: int | None,
    batch: int | None,
    runs: int | None,
    min_time: float,
    max_time: float,
) -> None:
    if isinstance(models, (str, bytes, os.PathLike)) or not isinstance(models, Iterable):
        raise UsageError("bench takes a list of models", hint="Write bench([model]) for one.")
    if not models:
        raise UsageError("no model to bench")
    for name, count in (("threads", threads), ("batch", batch), ("runs", runs)):
        if count is not None and count < 1:
            raise UsageError(f"{name} must be at least 1, not {count}")
    if not (min_time >= 0 and max_time > 0):
        raise UsageError(f"times must be positive: min_time is {min_time}, max_time {max_time}")


def _weigh(
    subjects: Sequence[Subject],
    opening: _Opening,
    report: Progress,
    *,
    shapes: Mapping[str, Sequence[int]],
    batch: int | None,
    seed: int,
) -> tuple[list[Feeds], list[memory.Footprint]]:
    """What each model weighs, and the first feeds that it runs on: the first model's wherever they fit."""
    feeds: list[Feeds] = []
    footprints = []
    for index, subject in enumerate(subjects):
        report(f"opening {subject.name}", _FOOTPRINT_SHARE * index / len(subjects))
        shared = bool(feeds) and fits(subject, feeds[0], subjects[0])
        candidates = [feeds[0]] if shared else possible_feeds(subject, shapes, batch, seed)
        feed, footprint = _first_that_runs(subject, candidates, opening)
        feeds.append(feed)
        footprints.append(footprint)
    return feeds, footprints


def _first_that_runs(
    subject: Subject, candidates: Iterable[Feeds], opening: _Opening
) -> tuple[Feeds, memory.Footprint]:
    problem: memory.CannotRun | None = None
    for feeds in candidates:
        try:
            return feeds, memory.footprint(
                subject.path,
                feeds,
                provider=opening.provider,
                threads=opening.threads,
                device=opening.device,
                custom_ops=opening.custom_ops,
            )
        except memory.CannotRun as error:
            problem = problem or error
    if problem is None:
        raise ModelError(f"{subject.name}: its inputs are too large to generate", hint=_SHAPES_HINT)
    raise ModelError(problem.message, hint=_SHAPES_HINT) from problem


def _measure(
    subjects: Sequence[Subject],
    feeds: Sequence[Feeds],
    opening: _Opening,
    plan: timing.Plan,
    report: Progress,
    meter: energy.Meter | None,
) -> list[timing.Samples]:
    report("warming up", _FOOTPRINT_SHARE)
    runners = []
    for subject, feed in zip(subjects, feeds, strict=True):
        session = runtime.open_session(
            subject.path,
            provider=opening.provider,
            threads=opening.threads,
            custom_ops=opening.custom_ops,
            config=_SESSION_CONFIG,
        )
        runners.append(binding.runner(session, feed, device=opening.device))
    return timing.measure(
        runners,
        plan,
        progress=lambda fraction: report("timing", _FOOTPRINT_SHARE + (1 - _FOOTPRINT_SHARE) * fraction),
        meter=meter or (lambda: 0),
    )


def _rows(
    subjects: Sequence[Subject],
    footprints: Sequence[memory.Footprint],
    samples: Sequence[timing.Samples],
    items: int,
    seed: int,
) -> Iterator[table.BenchRow]:
    for subject, footprint, sample in zip(subjects, footprints, samples, strict=True):
        latency = stats.summarize(sample.runs)
        first = sample is samples[0]
        yield table.BenchRow(
            name=subject.name,
            path=subject.origin,
            latency=latency,
            runs=len(sample.runs),
            throughput=items * 1e3 / latency.mean,
            speedup=None if first else stats.paired_speedup(samples[0].rounds, sample.rounds, seed=seed),
            session_ms=footprint.session_ms,
            peak_bytes=footprint.peak_bytes,
            file_bytes=file_bytes(subject.path, subject.model),
            nodes=sum(node.op_type != "Constant" for node in walk.nodes(subject.model)),
            parameters=parameters(subject.model),
            energy_mj=sample.millijoules,
        )
