"""Heads and feed-forward neurons of a text classifier pruned by a quarter and a half of each layer, as Markdown.

``python tests/bench/pruning/text.py [--seeds ...]``; with and without reconstruction, which sees 256 unlabelled mails.
Two classes that words give away are easily kept apart, so beside the accuracy stand the loss and the divergence from
the model before (both in nats, means over mails): that is what pruning without labels can hope to keep small.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import itertools
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np

ROOT = Path(__file__).parents[3]
if __name__ == "__main__":
    sys.path[:1] = [str(ROOT), str(ROOT / "passes"), str(ROOT / "tests")]

from bench.pruning import accuracy, models, peers  # noqa: E402
from bench.pruning.accuracy import Run  # noqa: E402
from bench.pruning.models import Trained  # noqa: E402

import graphopt  # noqa: E402
from graphopt.analysis.cost import costs  # noqa: E402
from graphopt.channels.units import Group  # noqa: E402

__all__ = ["Task", "main", "table", "task"]

Case = tuple[str, float, bool]
"""Part, fraction of each group, whether reconstructed."""

PARTS: Final = ("heads", "neurons", "both")


@dataclasses.dataclass(frozen=True)
class Task:
    """What to ask graphopt for.

    Attributes:
        share: Of the MACs, left without the fraction of each chosen group.
        exclude: The names of the groups that stay. (Naming those that shrink would catch the residual stream, too,
            since it runs through the same nodes.)
    """

    share: float
    exclude: tuple[str, ...]


def task(trained: Trained, part: str, fraction: float) -> Task:
    """Asks for ``fraction`` less of each group of heads, of neurons, or of both."""
    # As graphopt prunes it: after the default passes, which give some groups other names.
    graph = graphopt.channels.analyze(graphopt.optimize(trained.onnx_path, validate=False))
    chosen = [group for group in graph.groups if _kind(group) in {part, *(PARTS if part == "both" else ())}]
    units = [unit for group in chosen for unit in group.units[: round(len(group.units) * fraction)]]
    model = graphopt.channels.remove(graph, units, check=False)
    shapes = trained.input_shapes
    share = costs(model, input_shapes=shapes).macs / peers.macs(trained.onnx_path, shapes)
    # A hair above, so that rounding never asks for one unit more.
    return Task(share * (1 + 1e-6), tuple(group.name for group in graph.groups if group not in chosen))


def _kind(group: Group) -> str:
    if group.heads:
        return "heads"
    return "neurons" if "feed_forward" in group.name else "stream"


def _runs(trained: Trained, fractions: Sequence[float]) -> Iterator[tuple[Case, Run]]:
    for part, fraction in itertools.product(PARTS, fractions):
        asked = task(trained, part, fraction)
        for reconstruct in (False, True):
            prune = functools.partial(
                peers.with_graphopt, exclude=asked.exclude, ranking="uniform", reconstruct=reconstruct
            )
            yield (part, fraction, reconstruct), accuracy.measure(trained, peers.GRAPHOPT, 1 / asked.share, prune)


def table(runs: Mapping[Case, Sequence[Run]], bases: Sequence[models.Score]) -> Iterator[str]:
    """The lines of the table: means over seeds, and the worst seed's accuracy in brackets."""
    before = 100 * float(np.mean([base.accuracy for base in bases]))
    loss = float(np.mean([base.loss for base in bases]))
    yield "| pruned | of each layer | reconstructed | MACs | % of the accuracy before (worst) | loss | divergence | s |"
    yield "|---|--:|---|--:|--:|--:|--:|--:|"
    yield f"| nothing | | | 1.00x | 100.0, which is {before:.2f} % | {loss:.3f} | 0 | |"
    for (part, fraction, reconstruct), own in runs.items():
        head = f"| {part} | {fraction:.0%} | {'yes' if reconstruct else 'no'} |"
        failure = next((run.failure for run in own if run.failure), "")
        if failure:
            yield f"{head} {failure} | | | | |"
            continue
        kept = [run.kept for run in own]
        loss_after, divergence = (np.mean([getattr(run, name) for run in own]) for name in ("loss", "divergence"))
        figures = f"{np.mean(kept):.2f} ({min(kept):.2f}) | {loss_after:.3f} | {divergence:.1e}"
        yield f"{head} {own[0].reached:.2f}x | {figures} | {np.mean([run.seconds for run in own]):.0f} |"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures and prints the table."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--fractions", nargs="+", type=float, default=[0.25, 0.5])
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every run there")
    options = parser.parse_args(arguments)
    trained = [models.load("text", seed) for seed in options.seeds]
    runs: dict[Case, list[Run]] = {}
    for one in trained:
        for key, run in _runs(one, options.fractions):
            runs.setdefault(key, []).append(run)
            print(key, run, file=sys.stderr, flush=True)
    print("\n".join(table(runs, [one.base for one in trained])))
    if options.json:
        record = [{"case": key, **dataclasses.asdict(run)} for key, own in runs.items() for run in own]
        options.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
