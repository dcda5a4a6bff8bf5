"""What pruning without labels or training leaves of the accuracy, graphopt beside its peers.

``python tests/bench/pruning/accuracy.py [--models ...] [--seeds ...] [--ratios ...] [--tools ...] [--json FILE]``.
Exit code 1 if graphopt misses a bar of :data:`BARS`.
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import json
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

ROOT = Path(__file__).parents[3]
if __name__ == "__main__":
    sys.path[:1] = [str(ROOT), str(ROOT / "passes"), str(ROOT / "tests")]

from bench.pruning import models, peers  # noqa: E402
from bench.pruning.models import Trained  # noqa: E402

from graphopt import runtime  # noqa: E402
from graphopt.errors import GraphoptError  # noqa: E402

__all__ = ["BARS", "IMAGES", "REACHED", "Bar", "Run", "Summary", "main", "measure", "missed", "summaries"]

IMAGES: Final = tuple(name for name in models.MODELS if name != "text")
"""The models that see images."""


@dataclasses.dataclass(frozen=True)
class Bar:
    """What graphopt has to keep, in percent of the accuracy before: on average over seeds, and for every seed."""

    mean: float
    least: float


BARS: Final[Mapping[float, Bar]] = {2.0: Bar(99.3, 98.8), 4.0: Bar(97.5, 96.5)}
"""By how many times fewer MACs."""

_SECONDS: Final = 60.0  # a prune
REACHED: Final = 0.98
"""Of the reduction asked for; a model that was pruned less has no right to its accuracy."""


@dataclasses.dataclass(frozen=True)
class Run:
    """One model pruned by one tool.

    Attributes:
        model: A key of ``models.MODELS``.
        seed: Of its training.
        tool: A key of ``peers.PRUNERS``.
        wanted: How many times fewer MACs were asked for.
        reached: How many times fewer it has.
        kept: Percent of the accuracy before.
        drop: Percentage points that the worst class lost.
        loss: Cross-entropy after, in nats.
        divergence: Of what is predicted from what was, in nats, on average over samples.
        seconds: Of the tool, the search for its ratio included.
        failure: Why there is no result; empty if there is one.
    """

    model: str
    seed: int
    tool: str
    wanted: float
    reached: float = 1.0
    kept: float = 0.0
    drop: float = 0.0
    loss: float = 0.0
    divergence: float = 0.0
    seconds: float = 0.0
    failure: str = ""


@dataclasses.dataclass(frozen=True)
class Summary:
    """The runs of all seeds; the worst one counts for ``least``, ``drop``, ``reached`` and ``seconds``."""

    model: str
    tool: str
    wanted: float
    reached: float
    mean: float
    least: float
    drop: float
    seconds: float
    failure: str

    @property
    def cells(self) -> tuple[str, ...]:
        """For a table, without model and ratio."""
        if self.failure:
            return (self.tool, self.failure, "", "", "", "")
        reached = f"{self.reached:.2f}x" if self.reached > 1 else "no-op"
        figures = (f"{self.mean:.2f}", f"{self.least:.2f}", f"{self.drop:.1f}", f"{self.seconds:.1f}")
        return (self.tool, reached, *figures)


def measure(trained: Trained, tool: str, wanted: float, prune: peers.Pruner | None = None) -> Run:
    """Prunes the model and judges what is left on the test samples."""
    empty = Run(trained.name, trained.seed, tool, wanted)
    broken: tuple[type[Exception], ...] = (*runtime.ort_errors(), RuntimeError, ValueError, LookupError, TypeError)
    began = time.perf_counter()
    try:
        model = (prune or peers.PRUNERS[tool])(trained, 1 / wanted)
        seconds = time.perf_counter() - began
        logits = models.predictions(model, trained.x_test)
    except GraphoptError as error:
        return dataclasses.replace(empty, failure=error.message)
    except broken as error:
        if tool in (peers.GRAPHOPT, peers.POLISHED):
            raise  # a bug of ours, to be seen
        return dataclasses.replace(empty, failure=f"{type(error).__name__}: {runtime.trim(error, 40)}")
    after = models.score(logits, trained.y_test)
    shapes = trained.input_shapes
    return dataclasses.replace(
        empty,
        reached=peers.macs(trained.onnx_path, shapes) / peers.macs(model, shapes),
        kept=100 * after.accuracy / trained.base.accuracy,
        drop=100 * max(before - now for before, now in zip(trained.base.classes, after.classes, strict=True)),
        loss=after.loss,
        divergence=models.divergence(trained.logits, logits),
        seconds=seconds,
    )


def summaries(runs: Iterable[Run]) -> list[Summary]:
    """One for each model, ratio and tool, in the order of first appearance."""
    parts: dict[tuple[str, str, float], list[Run]] = collections.defaultdict(list)
    for run in runs:
        parts[run.model, run.tool, run.wanted].append(run)
    return [
        Summary(
            *key,
            reached=min(run.reached for run in own),
            mean=float(np.mean([run.kept for run in own])),
            least=min(run.kept for run in own),
            drop=max(run.drop for run in own),
            seconds=max(run.seconds for run in own),
            failure=next((run.failure for run in own if run.failure), ""),
        )
        for key, own in parts.items()
    ]


def missed(found: Summary) -> list[str]:
    """Which bars graphopt misses; other tools have none."""
    if found.tool not in (peers.GRAPHOPT, peers.POLISHED):
        return []
    where = f"{found.tool}, {found.model} at {found.wanted:g}x"
    if found.failure:
        return [f"{where}: {found.failure}"]
    bar = BARS.get(found.wanted, Bar(0.0, 0.0))
    checks = (
        (found.mean >= bar.mean, f"mean {found.mean:.2f} %, at least {bar.mean} % wanted"),
        (found.least >= bar.least, f"worst seed {found.least:.2f} %, at least {bar.least} % wanted"),
        (found.seconds < _SECONDS, f"{found.seconds:.0f} s, less than {_SECONDS:.0f} s wanted"),
        (found.reached >= REACHED * found.wanted, f"MACs only {found.reached:.2f}x fewer"),
    )
    return [f"{where}: {text}" for passed, text in checks if not passed]


def show(found: Sequence[Summary]) -> None:
    """Prints the table."""
    from rich.console import Console
    from rich.table import Table

    table = Table(caption="accuracy: % of the accuracy before, over seeds; drop: points lost by the worst class")
    for title in ("model", "asked", "tool", "MACs", "mean", "least", "drop", "s"):
        table.add_column(title, justify="left" if title in {"model", "tool"} else "right")
    last = ""
    for row in found:
        head = f"{row.model} {row.wanted:g}x"
        if last and head != last:
            table.add_section()
        table.add_row(*(("", "") if head == last else (row.model, f"{row.wanted:g}x")), *row.cells)
        last = head
    Console(width=110).print(table)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints, and says whether the bars were met."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=IMAGES, default=list(IMAGES))
    parser.add_argument("--seeds", nargs="+", type=int, default=list(models.SEEDS))
    parser.add_argument("--ratios", nargs="+", type=float, default=[2.0, 4.0, 8.0], help="times fewer MACs")
    parser.add_argument("--tools", nargs="+", choices=list(peers.PRUNERS), default=list(peers.PRUNERS))
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every run there")
    options = parser.parse_args(arguments)
    tools = options.tools
    runs = []
    for name in options.models:
        loaded = [models.load(name, seed) for seed in options.seeds]
        for wanted in options.ratios:
            for tool in tools:
                runs += [measure(trained, tool, wanted) for trained in loaded]
                print(f"{name} {wanted:g}x {tool}", file=sys.stderr, flush=True)
    found = summaries(runs)
    show(found)
    misses = [miss for row in found for miss in missed(row)]
    if options.json:
        record: dict[str, Any] = {"runs": [dataclasses.asdict(run) for run in runs], "missed": misses}
        options.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print("\n".join(misses) or "all bars met")
    return 1 if misses else 0


if __name__ == "__main__":
    sys.exit(main())
