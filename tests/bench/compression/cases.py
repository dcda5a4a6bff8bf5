"""``graphopt.compress`` as a new user would call it, on seven kinds of models; as Markdown.

``python tests/bench/compression/cases.py [--cases ...] [--seed 0]``. Trained networks are those of the pruning bench
and of the classic case of distillation; the keyword network is trained here, on tones that are made up, since no sounds
are at hand; magika (tf2onnx) and the direction classifier of Paddle OCR are other people's models, and are given inputs
without labels: files of this Python installation, and lines of text drawn by Pillow. Latency is that of one thread.
Every run that is over is kept in ``.zoo/compression``.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import nn

ROOT = Path(__file__).parents[3]
if __name__ == "__main__":
    sys.path[:1] = [str(ROOT), str(ROOT / "passes"), str(ROOT / "tests")]

from bench.distillation import classic  # noqa: E402
from bench.distillation.ledger import Figures, Ledger, write  # noqa: E402
from bench.pruning import data as datasets  # noqa: E402
from bench.pruning import models  # noqa: E402

import graphopt  # noqa: E402

__all__ = ["CASES", "Case", "main"]

Array = np.ndarray[Any, Any]

FOLDER: Final = ROOT / ".zoo" / "compression"
_BYTES: Final = 1024  # of the beginning and of the end of a file, for magika
_FILES: Final = 3000


@dataclasses.dataclass(frozen=True)
class Case:
    """A model, its data, and what is asked.

    Attributes:
        load: Gives the model's path, data to learn from and data to judge by, for a seed.
        options: Of :func:`graphopt.compress`.
    """

    load: Callable[[int], tuple[Path, Mapping[str, Array], Mapping[str, Array] | None]]
    options: Mapping[str, Any]


def _of_pruning(name: str) -> Callable[[int], tuple[Path, dict[str, Array], dict[str, Array]]]:
    def load(seed: int) -> tuple[Path, dict[str, Array], dict[str, Array]]:
        trained = models.load(name, seed)
        data = datasets.SOURCES[models.MODELS[name].data](datasets.FOLDER, seed)
        ((key, _),) = trained.calibration.items()
        return (
            Path(trained.onnx_path),
            {key: data.x_train, "y": data.y_train},
            {key: data.x_test, "y": data.y_test},
        )

    return load


def _vgg(seed: int) -> tuple[Path, dict[str, Array], dict[str, Array]]:
    found = classic.images()
    path = classic.teacher(0.25)
    return path, {"input": found.train[0], "y": found.train[1]}, {"input": found.test[0], "y": found.test[1]}


def _keyword(seed: int) -> tuple[Path, dict[str, Array], dict[str, Array]]:
    """Ten kinds of tones in noise, and a network of one-dimensional convolutions that was trained on them."""
    random = np.random.default_rng(seed)
    parts = [_tones(random, count) for count in (8000, 2000)]
    path = FOLDER / f"keyword-{seed}.onnx"
    if not path.exists():
        torch.manual_seed(seed)
        network = _keyword_network()
        _train(network, *parts[0])
        write(path, models.exported(network, parts[0][0][:2]))
    train, test = ({"input": x, "y": y} for x, y in parts)
    return path, train, test


def _tones(random: np.random.Generator, count: int) -> tuple[Array, Array]:
    """Sweeps of ten kinds, differing in where they begin and end, with noise as loud as they are."""
    y = random.integers(0, 10, count)
    moment = np.linspace(0, 1, 1000)[None]
    low, high = 20 + 15 * (y // 2), 40 + 25 * (y % 5)
    speed = low[:, None] + (high - low)[:, None] * moment * random.uniform(0.4, 0.6, (count, 1))
    sound = np.sin(2 * np.pi * speed * moment + random.uniform(0, 6, (count, 1)))
    return (sound + random.standard_normal(sound.shape)).astype(np.float32)[:, None], y


def _keyword_network() -> nn.Module:
    layers: list[nn.Module] = []
    widths = (1, 64, 64, 128, 128)
    for number, (inputs, outputs) in enumerate(itertools.pairwise(widths)):
        width, stride = (31, 4) if number == 0 else (7, 2)
        layers += [nn.Conv1d(inputs, outputs, width, stride, width // 2, bias=False)]
        layers += [nn.BatchNorm1d(outputs), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(128, 10))


def _train(network: nn.Module, x: Array, y: Array, epochs: int = 6) -> None:
    optimizer = torch.optim.AdamW(network.parameters(), 2e-3)
    order = torch.Generator().manual_seed(0)
    inputs, labels = torch.from_numpy(x), torch.from_numpy(y)
    for _ in range(epochs):
        for rows in torch.split(torch.randperm(len(x), generator=order), 64):
            optimizer.zero_grad()
            loss: Any = nn.functional.cross_entropy(network(inputs[rows]), labels[rows])
            loss.backward()
            optimizer.step()
    network.eval()


def _magika(seed: int) -> tuple[Path, dict[str, Array], None]:
    """The beginning and the end of files, as magika reads them; 256 stands for nothing."""
    files = sorted(path for path in Path(sys.prefix).rglob("*") if path.is_file() and not path.is_symlink())
    chosen = np.random.default_rng(seed).permutation(len(files))
    rows = []
    for number in chosen:
        contents = files[number].read_bytes().strip()
        if len(contents) >= 16:
            row = np.full(2 * _BYTES, 256, np.int32)
            head, tail = (np.frombuffer(part, np.uint8) for part in (contents[:_BYTES], contents[-_BYTES:]))
            row[: len(head)], row[2 * _BYTES - len(tail) :] = head, tail
            rows.append(row)
        if len(rows) == _FILES:
            break
    return ROOT / "models" / "magika.onnx", {"bytes": np.array(rows)}, None


def _paddle(seed: int) -> tuple[Path, dict[str, Array], None]:
    """Lines of text, every other one upside down."""
    from PIL import Image, ImageDraw, ImageFont

    random = np.random.default_rng(seed)
    letters = list("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 .,:-")
    found = np.empty((1500, 3, 48, 192), np.float32)
    for number in range(len(found)):
        ink, paper = random.integers(0, 100), random.integers(150, 256)
        image = Image.new("RGB", (192, 48), (int(paper),) * 3)
        text = "".join(random.choice(letters, random.integers(6, 16)))
        font = ImageFont.load_default(int(random.integers(16, 32)))
        ImageDraw.Draw(image).text(
            (int(random.integers(0, 12)), int(random.integers(2, 14))), text, (int(ink),) * 3, font
        )
        image = image.rotate(180) if number % 2 else image
        pixels = np.asarray(image, np.float32) / 127.5 - 1
        found[number] = (pixels + random.normal(0, 0.05, pixels.shape)).transpose(2, 0, 1)
    return ROOT / "models" / "ppocrv2_cls.onnx", {"x": found}, None


CASES: Final[Mapping[str, Case]] = {
    "MNIST VGG-16, quarter width": Case(_vgg, {"max_drop": 0.5, "train_batch": 128, "learning_rate": 2e-3}),
    "digits ResNet-8": Case(_of_pruning("digits"), {"goal": "latency=0.6", "max_drop": 1}),
    "Fashion-MNIST ResNet-8": Case(_of_pruning("fashion-resnet"), {"goal": "latency=0.5", "max_drop": 1}),
    "text transformer": Case(
        _of_pruning("text"),
        {"goal": "latency=0.5", "max_drop": 0.5, "train_batch": 32, "learning_rate": 5e-4, "epochs": 1},
    ),
    "keyword Conv1d (made-up tones)": Case(_keyword, {"goal": "latency=0.4", "max_drop": 0.5}),
    "magika, tf2onnx, no labels": Case(_magika, {"goal": "latency=0.7", "max_drop": 2}),
    "Paddle OCR direction, no labels": Case(_paddle, {"goal": "latency=0.7", "max_drop": 2}),
}


def measure(name: str, seed: int) -> Figures:
    """Compresses one model."""
    case = CASES[name]
    path, data, evaluation = case.load(seed)
    start = time.perf_counter()
    model, report = graphopt.compress(
        path,
        dict(data),
        evaluation=None if evaluation is None else dict(evaluation),
        threads=1,
        seed=seed,
        best_effort=True,
        with_report=True,
        **case.options,
    )
    taken = time.perf_counter() - start
    slug = name.split(",")[0].replace(" ", "-")
    graphopt.save(model, FOLDER / f"{slug}-{seed}.onnx")
    data_of = report.to_dict()
    score = report.audit.checks[0]
    return {
        "met": report.is_met,
        "verdict": report.verdict,
        "variant": report.point.variant.name,
        "milliseconds": report.milliseconds,
        "left": dict(report.point.left),
        "metric": report.audit.metric,
        "before": score.before,
        "after": score.after,
        "points": data_of["points"],
        "minutes": taken / 60,
    }


def table(runs: Mapping[str, Figures]) -> Iterator[str]:
    """The lines of the table."""
    yield "| model | asked | found | latency | bytes | MACs | score | minutes |"
    yield "|---|---|---|--:|--:|--:|--:|--:|"
    for name, run in runs.items():
        options = CASES[name].options
        asked = ", ".join(f"{key.replace('_', '-')} {options[key]}" for key in ("goal", "max_drop") if key in options)
        found = "met" if run["met"] else "not met"
        left = run["left"]
        sizes = f"{1 / left['latency']:.2f}x | {1 / left['bytes']:.1f}x | {1 / left['macs']:.1f}x"
        score = f"{run['metric']} {100 * run['before']:.2f} to {100 * run['after']:.2f} %"
        yield f"| {name} | {asked} | {found}: `{run['variant']}` | {sizes} | {score} | {run['minutes']:.1f} |"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures what is not known yet, and prints the table."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)  # several wait for each other on a machine that others use
    book = Ledger("cases", FOLDER)
    runs = {}
    for name in options.cases:
        settings = {"case": name, "seed": options.seed, "options": dict(CASES[name].options)}
        runs[name] = book.run(settings, lambda name=name: measure(name, options.seed))  # type: ignore[misc]
    print("\n".join(table(runs)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
