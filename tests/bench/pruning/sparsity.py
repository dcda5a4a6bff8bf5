"""What zeros in weights cost and save, by pattern and method, as Markdown: errors, accuracy, bytes after gzip.

``python tests/bench/pruning/sparsity.py [--models ...] [--seeds ...] [--patterns ...] [--methods ...]``. Each figure
comes twice: of the method as published, and ``refitted`` by least squares on what is left, which is the default.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import onnx

ROOT = Path(__file__).parents[3]
if __name__ == "__main__":
    sys.path[:1] = [str(ROOT), str(ROOT / "passes"), str(ROOT / "tests")]

from bench.pruning import models  # noqa: E402
from bench.pruning.models import Trained  # noqa: E402

from graphopt.pruning.sparsity import sparsify  # noqa: E402

__all__ = ["Row", "main", "markdown", "measure"]

MODELS: Final = ("digits", "mnist-resnet", "fashion-resnet", "text")
PATTERNS: Final = ("2:4", "50%")
METHODS: Final = ("magnitude", "wanda", "sparsegpt")


@dataclasses.dataclass(frozen=True)
class Row:
    """One model, made sparse in one way.

    Attributes:
        error: Mean over layers: the share of a layer's output that is lost, on samples set aside.
        kept: Percent of the accuracy before.
        gzip: The compressed file, as a share of the compressed original.
        seconds: How long it took.
    """

    error: float
    kept: float
    gzip: float
    seconds: float


def measure(trained: Trained, pattern: str, method: str, *, reconstruct: bool) -> Row:
    """Makes one model sparse and judges it on data that nothing has seen."""
    began = time.perf_counter()
    model, report = sparsify(
        onnx.load(trained.path),
        pattern=pattern,
        method=method,  # type: ignore[arg-type]
        reconstruct=reconstruct,
        calibration=trained.calibration,
        seed=trained.seed,
        with_report=True,
    )
    seconds = time.perf_counter() - began
    found = models.score(models.predictions(model.SerializeToString(), trained.x_test), trained.y_test)
    assert report.before is not None
    assert report.after is not None
    kept = 100 * found.accuracy / trained.base.accuracy
    return Row(report.error or 0.0, kept, report.after.gzip / report.before.gzip, seconds)


def markdown(rows: Mapping[tuple[str, str, str], Sequence[tuple[Row, Row]]]) -> Iterator[str]:
    """A table; each cell is the mean over seeds, of the method alone and refitted.

    Args:
        rows: By model, pattern and method, a pair for each seed.
    """
    yield "| model | zeros | method | error | refitted | accuracy kept | refitted | gzip | refitted |"
    yield "|---|---|---|--:|--:|--:|--:|--:|--:|"
    for (model, pattern, method), pairs in rows.items():
        means = [[float(np.mean([getattr(pair[side], name) for pair in pairs])) for side in (0, 1)] for name in _SHOWN]
        cells = [
            *(f"{100 * mean:.2f} %" for mean in means[0]),
            *(f"{mean:.1f} %" for mean in means[1]),
            *(f"{100 * mean:.0f} %" for mean in means[2]),
        ]
        yield f"| {model} | {pattern} | {method} | {' | '.join(cells)} |"


_SHOWN: Final = ("error", "kept", "gzip")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures and prints the table."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=models.MODELS, default=list(MODELS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--patterns", nargs="+", default=list(PATTERNS))
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    options = parser.parse_args(arguments)
    rows: dict[tuple[str, str, str], list[tuple[Row, Row]]] = {}
    for name in options.models:
        trained = [models.load(name, seed) for seed in options.seeds]
        for pattern, method in itertools.product(options.patterns, options.methods):
            rows[name, pattern, method] = [
                (
                    measure(one, pattern, method, reconstruct=False),
                    measure(one, pattern, method, reconstruct=True),
                )
                for one in trained
            ]
            print(name, pattern, method, rows[name, pattern, method][0], file=sys.stderr, flush=True)
    print("\n".join(markdown(rows)))
    if options.json:
        record = [
            {
                "model": key[0],
                "pattern": key[1],
                "method": key[2],
                "runs": [[dataclasses.asdict(one) for one in pair] for pair in pairs],
            }
            for key, pairs in rows.items()
        ]
        options.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
