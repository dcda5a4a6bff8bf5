"""Which channels go, how many of which group, and whether reconstruction follows: what each choice keeps, as Markdown.

``python tests/bench/pruning/criteria.py [--models ...] [--seeds ...] [--criteria ...] [--rankings ...]``. Figures are
percent of the accuracy before, on average over seeds. All of it is 768 prunes.
"""

from __future__ import annotations

import argparse
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
from bench.pruning.models import Trained  # noqa: E402

__all__ = ["kept", "main", "markdown"]

CRITERIA: Final = (
    "obs",
    "obs-swap",
    "wanda",
    "apoz",
    "mean-activation",
    "taylor",
    "fisher",
    "l1",
    "l2",
    "fpgm",
    "lamp",
    "random",
)
"""``bn-scale`` is not among them: the exporter folds batch normalizations away."""

RANKINGS: Final = ("global", "uniform", "isomorphic", "sensitivity")

Settings = tuple[str, str, float, bool]
"""Criterion, ranking, how many times fewer MACs, whether to reconstruct."""


def kept(trained: Sequence[Trained], settings: Settings) -> float | None:
    """Mean percent of the accuracy before; ``None`` where the setting does not work or misses the MACs."""
    importance, ranking, wanted, reconstruct = settings
    prune = functools.partial(peers.with_graphopt, importance=importance, ranking=ranking, reconstruct=reconstruct)
    runs = [accuracy.measure(one, peers.GRAPHOPT, wanted, prune) for one in trained]
    for run in runs:
        if run.failure or run.reached < accuracy.REACHED * wanted:
            problem = run.failure or f"MACs only {run.reached:.2f}x fewer"
            print(f"{run.model} {run.seed} {settings}: {problem}", file=sys.stderr)
            return None
    return float(np.mean([run.kept for run in runs]))


def markdown(figures: Mapping[Settings, float | None], ratios: Sequence[float]) -> Iterator[str]:
    """The lines of a table: a row for each criterion and ranking, two columns for each ratio."""
    columns = [f"{ratio:g}x {kind}" for ratio in ratios for kind in ("raw", "reconstructed")]
    yield f"| importance | ranking | {' | '.join(columns)} |"
    yield f"|---|---|{'--:|' * len(columns)}"
    for importance, ranking in dict.fromkeys(settings[:2] for settings in figures):
        cells = (figures.get((importance, ranking, *rest)) for rest in itertools.product(ratios, (False, True)))
        shown = ["–" if cell is None else f"{cell:.1f}" for cell in cells]
        yield f"| `{importance}` | {ranking} | {' | '.join(shown)} |"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures and prints a table for each model."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=accuracy.IMAGES, default=["digits", "fashion-resnet"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--criteria", nargs="+", default=list(CRITERIA))
    parser.add_argument("--rankings", nargs="+", choices=RANKINGS, default=list(RANKINGS))
    parser.add_argument("--ratios", nargs="+", type=float, default=[2.0, 4.0], help="times fewer MACs")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    options = parser.parse_args(arguments)
    record = []
    for name in options.models:
        trained = [models.load(name, seed) for seed in options.seeds]
        figures: dict[Settings, float | None] = {}
        for settings in itertools.product(options.criteria, options.rankings, options.ratios, (False, True)):
            figures[settings] = kept(trained, settings)
            record.append({"model": name, "settings": settings, "kept": figures[settings]})
            print(f"{name} {settings}: {figures[settings]}", file=sys.stderr, flush=True)
        base = np.mean([one.base.accuracy for one in trained])
        print(f"\n{name}, {len(trained)} seeds, accuracy before {base:.2%}:\n")
        print("\n".join(markdown(figures, options.ratios)), flush=True)
    if options.json:
        options.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
