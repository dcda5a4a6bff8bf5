"""The classic case on MNIST: a VGG-16 teaches three convolutions, which also learn alone; as Markdown.

``python tests/bench/distillation/classic.py [--width 0.25] [--seeds ...] [--labels ...] [--ways ...]``. All
students of a seed start from the same weights and see the same samples, moved in the same ways, in the same order;
what differs is the loss. Of MNIST's 60,000 training images 5,000 are set aside to choose the epoch by; the 10,000 test
images are looked at once, by the exported student in ONNX Runtime. Every run that is over is kept in
``.zoo/distillation``, so that an interrupted bench goes on. Exit code 1 if a bar of :data:`BARS` is missed.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import hashlib
import itertools
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import torch

ROOT = Path(__file__).parents[3]
if __name__ == "__main__":
    sys.path[:1] = [str(ROOT), str(ROOT / "passes"), str(ROOT / "tests")]

from bench.distillation import ledger  # noqa: E402
from bench.distillation.ledger import Figures, Ledger  # noqa: E402
from bench.distillation.networks import Student, Vgg16  # noqa: E402
from bench.pruning import data as datasets  # noqa: E402
from bench.pruning import models  # noqa: E402
from bench.pruning.data import Data  # noqa: E402

import graphopt  # noqa: E402
from graphopt import proto  # noqa: E402
from graphopt.analysis.cost import costs  # noqa: E402
from graphopt.analysis.parameters import parameters  # noqa: E402
from graphopt.datasets import fetch  # noqa: E402

__all__ = ["WAYS", "Images", "images", "judged", "main", "share", "shifted", "size", "spread", "teacher"]

Array = np.ndarray[Any, Any]

SEEDS: Final = (0, 1, 2, 3, 4)
_HELD_OUT: Final = 5000
_CLASSES: Final = 10
_UNKNOWN: Final = -100  # what ce passes over
_SHIFT: Final = 2  # pixels
_TEMPERATURE: Final = 4
_COLLECTIONS: Final = {"mnist": ("mnist", 0.1307, 0.3081), "fashion": ("fashion-mnist", 0.2860, 0.3530)}
"""Where images come from, and the mean and the standard deviation of their pixels."""

_SHAPE: Final = (1, 1, 28, 28)

BARS: Final = {"teacher": 99.4, "student": 99.3, "fewer": 20.0}
"""Percent right of the teacher, and of the better distilled student on average; times fewer MACs than VGG-16."""

LOGITS: Final = f"kd:temperature={_TEMPERATURE}:weight=0.9+ce:weight=0.1"
WAYS: Final[Mapping[str, str]] = {
    "alone": "ce",
    "logits": LOGITS,
    "features": f"{LOGITS}+fitnets:student=layer3:teacher={{feature}}:weight=1",
}
"""Losses; ``{feature}`` is what the teacher's fourth block gives, 2x2 places."""


@dataclasses.dataclass(frozen=True)
class Regime:
    """How long the students learn, and from what.

    Attributes:
        labelled: Images with labels; None for all 55,000.
        others: Whether the other images are seen too, without labels.
        views: How often each image is there, moved in another way each time.
        epochs: How often all views are seen.
    """

    labelled: int | None
    others: bool
    views: int
    epochs: int


REGIMES: Final[Mapping[str, Regime]] = {
    "all": Regime(None, False, views=4, epochs=2),
    "1000": Regime(1000, False, views=20, epochs=10),
    "1000+": Regime(1000, True, views=4, epochs=2),
}


@dataclasses.dataclass(frozen=True, eq=False)
class Images:
    """Inputs ``(N, 1, 28, 28)`` and labels ``(N,)``: to learn from, to choose the epoch by, and to judge by."""

    train: tuple[Array, Array]
    held_out: tuple[Array, Array]
    test: tuple[Array, Array]


@functools.cache
def images(name: str = "mnist") -> Images:
    """Images of a source, the same ones held out always."""
    data = _read(name)
    order = np.random.default_rng(0).permutation(len(data.y_train))
    out, kept = np.sort(order[:_HELD_OUT]), np.sort(order[_HELD_OUT:])
    return Images(
        (data.x_train[kept], data.y_train[kept]),
        (data.x_train[out], data.y_train[out]),
        (data.x_test, data.y_test),
    )


def _read(name: str) -> Data:
    """From the file of the other benches; fetched where that is missing."""
    if (datasets.FOLDER / f"{name}.npz").exists():
        return datasets.SOURCES[name](datasets.FOLDER, 0)
    collection, mean, deviation = _COLLECTIONS[name]
    parts = [fetch.load(collection, split) for split in ("train", "test")]
    inputs = [(part["x"] - np.float32(mean)) / np.float32(deviation) for part in parts]
    return Data(inputs[0], parts[0]["y"], inputs[1], parts[1]["y"])


def shifted(x: Array, views: int, pixels: int = _SHIFT) -> Array:
    """Views of images, one after another; the first one is as it was, in the others each image is moved at random.

    Made beforehand and not by ``augment=``, whose moves depend on the seed of the run, so that the teacher is asked
    once for all runs.
    """
    background = float(x.min())
    padded = np.pad(x, [(0, 0), (0, 0), (pixels, pixels), (pixels, pixels)], constant_values=background)
    height, width = x.shape[2:]
    found = np.empty((views, *x.shape), x.dtype)
    for view in range(views):
        moves = np.random.default_rng([1, view]).integers(0, 2 * pixels + 1, (len(x), 2))
        moves = moves if view else np.full_like(moves, pixels)
        for down, right in itertools.product(range(2 * pixels + 1), repeat=2):
            chosen = (moves == (down, right)).all(1)
            found[view, chosen] = padded[chosen, :, down : down + height, right : right + width]
    return found.reshape(-1, *x.shape[1:])


def teacher(width: float, *, provider: str = "cpu") -> Path:
    """The VGG-16 in ONNX, trained on all 55,000 labels by graphopt's own trainer unless it is there."""
    path = ledger.FOLDER / f"vgg16-{width:g}.onnx"
    if path.exists():
        return path
    found = images()
    torch.manual_seed(0)
    network: Any = Vgg16(width, background=float(found.train[0].min()))
    interface = onnx.load_from_string(models.exported(network, found.train[0][:2]))
    network.to(memory_format=torch.channels_last)  # half the time of a step
    made = graphopt.distill(
        interface,
        network,
        _feeds(shifted(found.train[0], 4), np.tile(found.train[1], 4)),
        evaluation=_feeds(*found.held_out),
        loss="ce",
        epochs=2,
        batch=128,
        learning_rate=2e-3,
        warmup=0.1,
        weight_decay=0.05,
        precision="bfloat16",
        provider=provider,
        threads=_threads(provider),
        run_directory=path.with_suffix(""),
        follow=_told,
    )
    ledger.write(path, proto.to_proto(made).SerializeToString())
    shutil.rmtree(path.with_suffix(""))
    return path


@dataclasses.dataclass(frozen=True)
class Schedule:
    """How every student learns."""

    batch: int = 128
    learning_rate: float = 4e-3
    warmup: float = 0.1
    weight_decay: float = 0.05
    precision: str = "bfloat16"  # twice as fast here as float32


@dataclasses.dataclass(frozen=True)
class Run:
    """One student to be trained.

    Attributes:
        way: A key of :data:`WAYS`.
        regime: A key of :data:`REGIMES`.
        seed: Of its first weights, the order of images, and which of them have labels.
        width: Of the teacher.
        channels: Of the student.
        schedule: See there.
    """

    way: str
    regime: str
    seed: int
    width: float
    channels: tuple[int, int, int] = (24, 48, 96)
    schedule: Schedule = Schedule()

    @property
    def settings(self) -> Figures:
        """All that the figures depend on."""
        regime = dataclasses.asdict(REGIMES[self.regime])
        return dataclasses.asdict(self) | {"loss": WAYS[self.way], "regime": regime, "network": _essence()}

    @property
    def path(self) -> Path:
        """The student in ONNX."""
        return ledger.FOLDER / f"classic-{self.width:g}-{self.way}-{self.regime}-{self.seed}.onnx"

    @property
    def answers(self) -> Path:
        """What the teacher says of the images, for all runs that ask the same of it."""
        seed = 0 if REGIMES[self.regime].labelled is None else self.seed
        return ledger.FOLDER / f"answers-{self.width:g}-{self.way}-{self.regime}-{seed}"


@functools.cache
def _essence() -> str:
    code = models.essence(Path(__file__).with_name("networks.py"))
    return hashlib.sha256(code.encode()).hexdigest()[:16]


@functools.lru_cache(maxsize=1)
def samples(regime: str, seed: int) -> tuple[Array, Array]:
    """What is learnt from: inputs and labels, -100 where there is none; the same share of each class has labels."""
    chosen = REGIMES[regime]
    x, y = images().train
    if chosen.labelled is not None:
        random = np.random.default_rng([2, seed])
        each = chosen.labelled // _CLASSES
        picked = np.concatenate([random.permutation(np.flatnonzero(y == label))[:each] for label in range(_CLASSES)])
        if chosen.others:
            known = np.isin(np.arange(len(y)), picked)
            y = np.where(known, y, _UNKNOWN)
        else:
            x, y = x[picked], y[picked]
    return shifted(x, chosen.views), np.tile(y, chosen.views)


def learn(run: Run, taught_by: Path, *, provider: str = "cpu") -> Figures:
    """Trains one student, keeps it, and tells how good it is."""
    regime, found = REGIMES[run.regime], images()
    torch.manual_seed(run.seed)
    student: Any = Student(run.channels)
    student.to(memory_format=torch.channels_last)
    loss = WAYS[run.way].format(feature=_feature(taught_by))
    folder = run.path.with_suffix("")
    share(run.answers, folder / "teachers")
    made, report = graphopt.distill(
        str(taught_by),
        student,
        _feeds(*samples(run.regime, run.seed)),
        evaluation=_feeds(*found.held_out),
        loss=loss,
        epochs=regime.epochs,
        half=True,
        seed=run.seed,
        provider=provider,
        threads=_threads(provider),
        run_directory=folder,
        with_report=True,
        **dataclasses.asdict(run.schedule),
    )
    contents = proto.to_proto(made).SerializeToString()
    ledger.write(run.path, contents)
    shutil.rmtree(folder)
    best = report.records[report.best]
    return {
        "accuracy": judged(contents),
        "held-out": best.evaluation["accuracy"],
        "loss": best.loss,
        "epoch": report.best,
        "step": report.seconds["train"] / (regime.epochs * len(samples(run.regime, run.seed)[1])),
    }


def share(answers: Path, link: Path) -> None:
    """Lets a run find the answers of another one."""
    answers.mkdir(parents=True, exist_ok=True)
    link.parent.mkdir(parents=True, exist_ok=True)
    if not link.is_symlink():
        link.symlink_to(answers, target_is_directory=True)


def _feature(path: Path) -> str:
    """What the fourth block of the teacher gives."""
    pools = [node for node in onnx.load(path).graph.node if node.op_type == "MaxPool"]
    return str(pools[3].output[0])


def judged(model: bytes | str) -> float:
    """The share of test images that a model gets right in ONNX Runtime."""
    x, y = images().test
    return models.score(models.predictions(model, x), y).accuracy


def size(model: str) -> tuple[int, int]:
    """Parameters, and multiply-accumulates of an image."""
    loaded = graphopt.load(model)
    name = loaded.graph.inputs[0].name or ""
    return parameters(loaded), costs(loaded, input_shapes={name: _SHAPE}).macs


def _told(moment: Any) -> None:
    if moment.step % 100 < 5 or moment.record is not None:
        print(
            moment.epoch, moment.step, moment.steps, round(moment.loss, 4), moment.record, file=sys.stderr, flush=True
        )


def _provider() -> str:
    """CUDA where both torch and ONNX Runtime have it."""
    import onnxruntime as ort

    has_both = torch.cuda.is_available() and "CUDAExecutionProvider" in ort.get_available_providers()
    return "cuda" if has_both else "cpu"


def _threads(provider: str) -> int | None:
    return 1 if provider == "cpu" else None  # more than one wait for each other on a machine that others use


def _feeds(x: Array, y: Array) -> dict[str, Array]:
    return {"input": x, "y": y}


@dataclasses.dataclass(frozen=True)
class Summary:
    """The runs of one way over seeds, in percent right.

    Attributes:
        regime: A key of :data:`REGIMES`.
        way: A key of :data:`WAYS`.
        scores: One a seed.
        gains: The same, less what the student alone has at the same seed.
    """

    regime: str
    way: str
    scores: tuple[float, ...]
    gains: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Over seeds."""
        return float(np.mean(self.scores))

    @property
    def gain(self) -> float:
        """The paired one, over seeds."""
        return float(np.mean(self.gains))


def summaries(scores: Mapping[tuple[str, str, int], float]) -> Iterator[Summary]:
    """By regime and way, from percent right by regime, way and seed."""
    for regime, way in dict.fromkeys(key[:2] for key in scores):
        own = {seed: score for (*place, seed), score in scores.items() if place == [regime, way]}
        alone = {seed: scores.get((regime.rstrip("+"), "alone", seed)) for seed in own}
        gains = [score - base for seed, score in own.items() if (base := alone[seed]) is not None]
        yield Summary(regime, way, tuple(own.values()), tuple(gains))


_LEARNT: Final = {
    "all": "55,000 labelled images",
    "1000": "1,000 labelled images",
    "1000+": "1,000 labelled images, 54,000 without labels",
}
_SAID: Final = {"alone": "labels alone", "logits": "labels and logits", "features": "labels, logits and features"}


def accuracies(found: Sequence[Summary]) -> Iterator[str]:
    """The lines of the table of accuracies."""
    yield "| student learns from | | seeds | right, % (sd over seeds) | worst | against labels alone, paired (sd) |"
    yield "|---|---|--:|--:|--:|--:|"
    for one in found:
        gain = "" if one.way == "alone" or not one.gains else f"{one.gain:+.2f} ({spread(one.gains):.2f})"
        figures = f"{one.mean:.2f} ({spread(one.scores):.2f}) | {min(one.scores):.2f} | {gain}"
        yield f"| {_LEARNT[one.regime]} | {_SAID[one.way]} | {len(one.scores)} | {figures} |"


def spread(values: Sequence[float]) -> float:
    """The standard deviation, as estimated from a sample; 0 of a single value."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def sizes(rows: Mapping[str, tuple[Path, float | None]], threads: int = 1) -> Iterator[str]:
    """The lines of the table of sizes and times.

    Args:
        rows: By name, the model and its percent right; the first is what the others are compared to.
        threads: Of ONNX Runtime.
    """
    timed = graphopt.bench([str(path) for path, _ in rows.values()], threads=threads, batch=1).rows
    macs = [size(str(path))[1] for path, _ in rows.values()]
    yield f"| model | right, % | parameters | MACs | fewer | ORT on {threads} thread, ms | faster |"
    yield "|---|--:|--:|--:|--:|--:|--:|"
    for (name, (path, score)), row, own in zip(rows.items(), timed, macs, strict=True):
        right = "not trained" if score is None else f"{score:.2f}"
        faster = "" if row.speedup is None else f"{row.speedup.value:.0f}x"
        figures = (
            f"{size(str(path))[0]:,} | {own / 1e6:,.2f} M | {macs[0] / own:.0f}x | {row.latency.p50:.3f} | {faster}"
        )
        yield f"| {name} | {right} | {figures} |"


def missed(teacher_score: float, fewer: float, found: Sequence[Summary]) -> list[str]:
    """Which bars are missed."""
    taught = [one for one in found if one.way != "alone"]
    best = max((one.mean for one in taught if one.regime == "all"), default=BARS["student"])
    checks = [
        (teacher_score >= BARS["teacher"], f"teacher {teacher_score:.2f} %, {BARS['teacher']} % wanted"),
        (best >= BARS["student"], f"distilled student {best:.2f} %, {BARS['student']} % wanted"),
        (fewer >= BARS["fewer"], f"MACs only {fewer:.0f}x fewer"),
        *((one.gain > 0, f"{one.regime}, {one.way}: no better than alone ({one.gain:+.2f})") for one in taught),
    ]
    return [text for passed, text in checks if not passed]


def full() -> Path:
    """VGG-16 at its full width, untrained: for its size and its time."""
    path = ledger.FOLDER / "vgg16-untrained.onnx"
    if not path.exists():
        ledger.write(path, models.exported(Vgg16(), images().test[0][:2]))
    return path


def main(arguments: Sequence[str] | None = None) -> int:
    """Trains what is not trained yet, prints the tables, and says whether the bars were met."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--width", type=float, default=0.25, help="of the teacher; 1 is VGG-16")
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--labels", nargs="+", choices=REGIMES, default=["all", "1000"])
    options = parser.parse_args(arguments)
    provider = _provider()
    taught_by, book = teacher(options.width, provider=provider), Ledger("classic")
    scores, last = {}, Path()
    for seed, regime, way in itertools.product(options.seeds, options.labels, options.ways):
        if REGIMES[regime].others and way == "alone":
            continue  # labels alone say nothing of the others
        run = Run(way, regime, seed, options.width)
        figures = book.run(run.settings, functools.partial(learn, run, taught_by, provider=provider))
        scores[regime, way, seed] = 100 * figures["accuracy"]
        last = run.path if last == Path() or (regime, way) == ("all", "logits") else last
    found = sorted(summaries(scores), key=lambda one: (list(REGIMES).index(one.regime), list(WAYS).index(one.way)))
    score = 100 * judged(str(taught_by))
    print("\n".join(accuracies(found)), end="\n\n")
    best = max((one.mean for one in found if one.regime == "all"), default=0.0)
    rows: dict[str, tuple[Path, float | None]] = {"VGG-16": (full(), None)}
    if options.width != 1:
        rows[f"VGG-16, {options.width:g} of the width"] = (taught_by, score)
    else:
        rows = {"VGG-16": (taught_by, score)}
    rows["three convolutions"] = (last, best)
    print("\n".join(sizes(rows)), end="\n\n")
    misses = missed(score, size(str(full()))[1] / size(str(last))[1], found)
    print("\n".join(misses) or "all bars met")
    return 1 if misses else 0


if __name__ == "__main__":
    sys.exit(main())
