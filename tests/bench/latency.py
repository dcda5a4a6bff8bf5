"""Whether rewriting ever makes a model slower: originals beside what graphopt makes of them, in separate runs.

``python tests/bench/latency.py [--runs 3] [--only TEXT] [--zoo] [--target portable]``

ONNX Runtime on the CPU, one thread, its default optimisations. In each run, each model is opened anew three times: the
original, the original again and the result; turns are interleaved and the processor time of the thread counts. What
the two originals differ by (A/A) is what a result cannot be told from. A model counts as slower if it takes more than
1.03 of its original in every run, and more than that run's own A/A says. The last line has the geometric mean.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import onnx

ROOT = Path(__file__).parents[2]
if __name__ == "__main__":
    sys.path[:1] = [str(ROOT), str(ROOT / "passes"), str(ROOT / "tests")]

from bench.contrib import session  # noqa: E402
from equivalence import zoo  # noqa: E402

import graphopt  # noqa: E402
from graphopt import proto  # noqa: E402
from graphopt.benchmark import stats, timing  # noqa: E402

__all__ = ["Measured", "Subject", "exports", "main", "real"]

_SLOWER: Final = 1.03


@dataclasses.dataclass(frozen=True)
class Subject:
    """A model to time: its name, itself, and one run's inputs."""

    name: str
    model: onnx.ModelProto
    feeds: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Measured:
    """One run of one model.

    Attributes:
        milliseconds: Of the original.
        ratio: Time of the result relative to the original's.
        spread: Time of the original opened a second time, relative to the first.
    """

    milliseconds: float
    ratio: float
    spread: float

    @property
    def is_slower(self) -> bool:
        """Whether the result takes longer than chance explains."""
        return self.ratio > max(_SLOWER, self.spread, 1 / self.spread)


def real() -> Iterator[Subject]:
    for one in zoo.entries():
        yield Subject(one.name, onnx.load(one.path), one.feeds())


def _wide() -> Iterator[Subject]:
    from bench.contrib_models import ARCHITECTURES, feeds
    from zoo.architecture import EXPORTERS, export

    for architecture in ARCHITECTURES:
        for exporter in EXPORTERS:
            model = export(architecture, exporter)
            yield Subject(f"{architecture.name}-{exporter}", model, feeds(model, 128))


def exports() -> Iterator[Subject]:
    from zoo.architecture import export
    from zoo.catalogue import CASES
    from zoo.checks import feeds

    for case in CASES:
        model = export(case.architecture, case.exporter)
        yield Subject(str(case), model, feeds(model))


def measure(subject: Subject, result: onnx.ModelProto, seconds: float, seed: int) -> Measured:
    """One run: three fresh sessions, interleaved."""
    runners = []
    for model in (subject.model, subject.model, result):
        opened = session(model)
        runners.append(lambda opened=opened: opened.run(None, dict(subject.feeds)))
    plan = timing.Plan(min_time=seconds, max_time=20 * seconds, seed=seed)
    first, again, other = timing.measure(runners, plan, clock=time.thread_time_ns)
    pairs = [[one, two] for one, two in zip(first.rounds, again.rounds, strict=True)]
    base = [statistics.fmean(pair) for pair in pairs]
    return Measured(
        stats.summarize(first.runs).p50,
        statistics.median(new / old for new, old in zip(other.rounds, base, strict=True)),
        statistics.median(two / one for one, two in pairs),
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the table; exit code 1 if a model is slower."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=0.5, help="of timed runs of each session, at least")
    parser.add_argument("--only", default="", help="models whose name contains this")
    parser.add_argument("--target", default="portable", choices=["portable", "ort-cpu"])
    parser.add_argument("--zoo", action="store_true", help="the small exports of the tests' zoo, too")
    options = parser.parse_args(arguments)
    sources = [real(), _wide(), *([exports()] if options.zoo else [])]
    found: dict[str, list[Measured]] = {}
    print(f"| model | ms |{' ratio, A/A |' * options.runs}\n|---|--:|{'--:|' * options.runs}")
    for subject in (one for source in sources for one in source if options.only in one.name):
        result, report = graphopt.optimize(proto.from_proto(subject.model), target=options.target, with_report=True)
        assert report.status == "proven", (subject.name, report.status)
        after = proto.to_proto(result)
        own = [measure(subject, after, options.seconds, seed) for seed in range(options.runs)]
        found[subject.name] = own
        cells = " | ".join(f"{one.ratio:.3f}, {one.spread:.3f}" for one in own)
        print(f"| {subject.name} | {own[0].milliseconds:.3f} | {cells} |", flush=True)
    slower = [name for name, own in found.items() if all(one.is_slower for one in own)]
    means = [statistics.geometric_mean(one[run].ratio for one in found.values()) for run in range(options.runs)]
    print(f"| geometric mean of {len(found)} | | {' | '.join(f'**{one:.3f}**' for one in means)} |")
    print(f"slower: {', '.join(slower) or 'none'}")
    return 1 if slower else 0


if __name__ == "__main__":
    sys.exit(main())
