"""Prune, reconstruct, distil: what an epoch of learning from the model before gives back; as Markdown, and as a plot.

``python tests/bench/distillation/recovery.py [--models ...] [--seeds ...] [--ratios ...] [--ways ...] [--plot FILE]``.
The pruned graph is the student and the graph before it the teacher. All inputs that the model was trained on are seen
once (the 1,078 digits 20 times: an epoch of them has 17 steps), with labels or without. No sample is held out: the
epoch of the digits that stays is the one that agrees best with the teacher on training inputs. Of the text model, half
or three quarters of the heads and of the neurons of each layer go. Every run that is over is kept in
``.zoo/distillation``. Exit code 1 if a bar of :data:`BARS` is missed.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import importlib
import itertools
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx

ROOT = Path(__file__).parents[3]
if __name__ == "__main__":
    sys.path[:1] = [str(ROOT), str(ROOT / "passes"), str(ROOT / "tests")]

from bench.distillation.ledger import Figures, Ledger  # noqa: E402
from bench.pruning import data as datasets  # noqa: E402
from bench.pruning import models, peers, text  # noqa: E402
from bench.pruning.models import Trained  # noqa: E402

import graphopt  # noqa: E402

__all__ = ["BARS", "Lesson", "main"]

BARS: Final[Mapping[float, float]] = {2.0: 99.5, 4.0: 99.0, 8.0: 98.0}
"""Percent of the accuracy before, on average over seeds, by how many times fewer MACs."""

_JUDGED: Final = 2000  # training inputs, to choose the epoch by
_FRACTIONS: Final = {2.0: 0.5, 4.0: 0.75}
"""Of the heads and neurons of each layer of the text model, by about how many times fewer MACs."""

WAYS: Final[Mapping[str, str]] = {
    "raw": "",
    "reconstructed": "",
    "distilled": "kd:temperature=2",
    "with labels": "kd:temperature=2:weight=0.9+ce:weight=0.1",
}
"""Losses of what is distilled, which begins with what is reconstructed."""


@dataclasses.dataclass(frozen=True)
class Lesson:
    """How a model is distilled after the prune.

    Attributes:
        epochs: How often all inputs are seen.
        batch: Samples of a step.
        learning_rate: The highest.
        augment: See ``graphopt.distill``.
    """

    epochs: int = 1
    batch: int = 32
    learning_rate: float = 4e-3
    augment: str = ""


LESSONS: Final[Mapping[str, Lesson]] = {
    "digits": Lesson(epochs=20, batch=64, learning_rate=2e-3, augment="shift:pixels=1"),
    "mnist-lenet": Lesson(),
    "fashion-lenet": Lesson(),
    "fashion-resnet": Lesson(),
    "text": Lesson(learning_rate=5e-4),
}


_load = functools.lru_cache(maxsize=1)(models.load)


@functools.lru_cache(maxsize=1)
def pruned(trained: Trained, ratio: float, reconstruct: bool) -> bytes:
    """The model with so many times fewer MACs."""
    if trained.name != "text":
        return peers.with_graphopt(trained, 1 / ratio, reconstruct=reconstruct)
    asked = text.task(trained, "both", _FRACTIONS[ratio])
    return peers.with_graphopt(trained, asked.share, exclude=asked.exclude, ranking="uniform", reconstruct=reconstruct)


def recovered(trained: Trained, student: bytes, loss: str, lesson: Lesson) -> bytes:
    """The pruned model after it has learnt from the one before."""
    ((name, _),) = trained.calibration.items()
    data = datasets.SOURCES[models.MODELS[trained.name].data](datasets.FOLDER, trained.seed)
    judged = np.random.default_rng(trained.seed).permutation(len(data.x_train))[:_JUDGED]
    with_labels = {"y": data.y_train} if "ce" in loss else {}
    made = graphopt.distill(
        trained.onnx_path,
        onnx.load_from_string(student),
        {name: data.x_train} | with_labels,
        evaluation={name: data.x_train[judged]} | {key: y[judged] for key, y in with_labels.items()},
        loss=loss,
        seed=trained.seed,
        threads=1,
        **dataclasses.asdict(lesson),
    )
    return bytes(made.SerializeToString())


def measure(trained: Trained, ratio: float, way: str) -> Figures:
    """Prunes, distils if that is the way, and judges what is left on the test samples."""
    model = pruned(trained, ratio, way != "raw")
    if WAYS[way]:
        model = recovered(trained, model, WAYS[way], LESSONS[trained.name])
    after = models.score(models.predictions(model, trained.x_test), trained.y_test)
    before = peers.macs(trained.onnx_path, trained.input_shapes)
    return {
        "kept": 100 * after.accuracy / trained.base.accuracy,
        "base": trained.base.accuracy,
        "reached": before / peers.macs(model, trained.input_shapes),
    }


Key = tuple[str, float, str]
"""Model, how many times fewer MACs, way."""


def table(runs: Mapping[Key, Sequence[Figures]]) -> Iterator[str]:
    """The lines of the table: percent of the accuracy before, the mean over seeds, and the worst one in brackets."""
    yield f"| model | fewer MACs | seeds | {' | '.join(WAYS)} | bar |"
    yield f"|---|--:|--:|{'--:|' * len(WAYS)}--:|"
    for name, ratio in dict.fromkeys(key[:2] for key in runs):
        own = {way: runs[name, ratio, way] for way in WAYS if (name, ratio, way) in runs}
        cells = [_cell([one["kept"] for one in own[way]]) if way in own else "" for way in WAYS]
        some = next(iter(own.values()))
        head = f"| {name} | {np.mean([one['reached'] for one in some]):.2f}x | {len(some)}"
        yield f"{head} | {' | '.join(cells)} | {BARS[ratio]} |"


def _cell(kept: Sequence[float]) -> str:
    return f"{np.mean(kept):.2f} ({min(kept):.2f})"


def missed(runs: Mapping[Key, Sequence[Figures]]) -> list[str]:
    """Which bars are missed by what is distilled without labels."""
    return [
        f"{name} at {ratio:g}x: {mean:.2f} %, at least {BARS[ratio]} % wanted"
        for (name, ratio, way), own in runs.items()
        if way == "distilled" and (mean := float(np.mean([one["kept"] for one in own]))) < BARS[ratio]
    ]


def plot(runs: Mapping[Key, Sequence[Figures]], path: Path) -> None:
    """Draws percent of the accuracy before over how many times fewer MACs, a panel a model."""
    pyplot: Any = importlib.import_module("matplotlib.pyplot")
    names = list(dict.fromkeys(name for name, _, _ in runs))
    figure, panels = pyplot.subplots(1, len(names), figsize=(3.4 * len(names), 3.2), squeeze=False, sharey=True)
    for name, panel in zip(names, panels[0], strict=True):
        ratios = sorted({ratio for model, ratio, _ in runs if model == name})
        for way in WAYS:
            points = [(ratio, np.mean([one["kept"] for one in runs[name, ratio, way]])) for ratio in ratios]
            panel.plot(*zip(*points, strict=True), marker="o", markersize=4, label=way)
        panel.plot(ratios, [BARS[ratio] for ratio in ratios], "k_", markersize=16, label="bar")
        panel.set_xscale("log", base=2)
        panel.set_xticks(ratios, [f"{ratio:g}x" for ratio in ratios])
        panel.set(title=name, xlabel="times fewer MACs", ylim=(80, 101))
        panel.grid(alpha=0.3)
    panels[0][0].set_ylabel("% of the accuracy before")
    panels[0][0].legend(fontsize="small")
    figure.tight_layout()
    figure.savefig(path)
    pyplot.close(figure)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures what is not known yet, prints the table, and says whether the bars were met."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=LESSONS, default=list(LESSONS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--ratios", nargs="+", type=float, choices=BARS, default=list(BARS), help="times fewer MACs")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw it there, too")
    options = parser.parse_args(arguments)
    book = Ledger("recovery")
    runs: dict[Key, list[Figures]] = {}
    for name, seed, ratio, way in itertools.product(options.models, options.seeds, options.ratios, options.ways):
        if name == "text" and ratio not in _FRACTIONS:
            continue  # a layer keeps one of its four heads
        lesson = dataclasses.asdict(LESSONS[name]) if WAYS[way] else {}
        settings = {"model": name, "seed": seed, "ratio": ratio, "way": way, "loss": WAYS[way], "lesson": lesson}
        figures = book.run(settings, functools.partial(_measured, name, seed, ratio, way))
        runs.setdefault((name, ratio, way), []).append(figures)
    print("\n".join(table(runs)), end="\n\n")
    if options.plot:
        plot(runs, options.plot)
    misses = missed(runs)
    print("\n".join(misses) or "all bars met")
    return 1 if misses else 0


def _measured(name: str, seed: int, ratio: float, way: str) -> Figures:
    return measure(_load(name, seed), ratio, way)


if __name__ == "__main__":
    sys.exit(main())
