"""What a training step costs: plain, with a cached teacher, with a teacher that is asked each time; as Markdown.

``python tests/bench/distillation/speed.py [--rounds 9] [--steps 40] [--batch 64]``. A round trains each contender for
two epochs and times the second one, in shuffled order; ratios are taken within a round, of the time of the processor,
which other users of the machine do not lengthen. The student has three convolutions, its teacher the same ones four
times as wide. All on one thread, but for the online teacher of graphopt, which works a batch ahead in a thread of its
own, so that its time by the clock may be less. Exit code 1 if a bar of :data:`BARS` is missed.
"""

from __future__ import annotations

import argparse
import functools
import random
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - as everybody writes it

ROOT = Path(__file__).parents[3]
if __name__ == "__main__":
    sys.path[:1] = [str(ROOT), str(ROOT / "passes"), str(ROOT / "tests")]

from bench.distillation.networks import Student  # noqa: E402
from bench.pruning import models  # noqa: E402

import graphopt  # noqa: E402

__all__ = ["main"]

Array = np.ndarray[Any, Any]

_STUDENT: Final = (32, 64, 128)
_WIDER: Final = 4
_TEMPERATURE: Final = 4
_LOSS: Final = "kd:temperature=4:weight=0.9+ce:weight=0.1"
_EPOCHS: Final = 2

PLAIN: Final = "torch, labels alone, written by hand"
CACHED: Final = "graphopt, cached teacher"
ONLINE: Final = "graphopt, ONNX Runtime teacher asked each time"
ALONE: Final = "graphopt, labels alone"
TORCH: Final = "torch, torch teacher asked each time, written by hand"

BARS: Final = {"slower": 1.15, "faster": 2.5}
"""The cached step over the plain one at most; the torch teacher's step over the cached one at least."""


class Material:
    """Random images and labels, a student and its teacher; times do not depend on what they are.

    Args:
        steps: Of an epoch.
        batch: Samples of a step.
    """

    def __init__(self, steps: int, batch: int) -> None:
        generator = np.random.default_rng(0)
        self.batch = batch
        self.x = generator.standard_normal((steps * batch, 1, 28, 28)).astype(np.float32)
        self.y = generator.integers(0, 10, steps * batch)
        self.teacher = _student(_WIDER).eval()
        self.onnx = onnx.load_from_string(models.exported(self.teacher, self.x[:2]))


class Clock:
    """Seconds between two readings."""

    def __init__(self) -> None:
        self._readings: list[tuple[float, float]] = []

    def read(self) -> None:
        """Looks at the clock on the wall, and at the processor's."""
        self._readings.append((time.perf_counter(), time.process_time()))

    def each(self, steps: float) -> Seconds:
        """Seconds a step, since the last reading but one."""
        (wall, own), (later, more) = self._readings[-2:]
        return (later - wall) / steps, (more - own) / steps


Seconds = tuple[float, float]
"""By the clock on the wall, and of the processor."""


def by_hand(material: Material, *, taught: bool) -> Seconds:
    """A step of the loop that everybody writes."""
    student, x, y = _student(), torch.from_numpy(material.x), torch.from_numpy(material.y)
    optimizer = torch.optim.AdamW(student.parameters(), 1e-3, fused=True)
    student.train()
    clock = Clock()
    for _ in range(_EPOCHS):
        for chosen in torch.randperm(len(x)).reshape(-1, material.batch):
            optimizer.zero_grad()
            images, labels = x[chosen], y[chosen]
            loss: Any = _loss(student(images), labels, material.teacher if taught else None, images)
            loss.backward()
            optimizer.step()
        clock.read()
    return clock.each(len(x) / material.batch)


def _loss(logits: Tensor, labels: Tensor, teacher: nn.Module | None, images: Tensor) -> Tensor:
    hard = F.cross_entropy(logits, labels)
    if teacher is None:
        return hard
    with torch.no_grad():
        target = F.softmax(teacher(images) / _TEMPERATURE, 1)
    soft = F.kl_div(F.log_softmax(logits / _TEMPERATURE, 1), target, reduction="batchmean")
    return 0.9 * _TEMPERATURE**2 * soft + 0.1 * hard


def by_graphopt(material: Material, *, loss: str, cache: bool | None = None) -> Seconds:
    """A step of ours; with what an epoch has besides, a judgement of two samples among it."""
    few = slice(2)
    clock = Clock()
    graphopt.distill(
        material.onnx,
        _student(),
        {"input": material.x, "y": material.y},
        evaluation={"input": material.x[few], "y": material.y[few]},
        loss=loss,
        cache=cache,
        epochs=_EPOCHS,
        batch=material.batch,
        optimize=False,
        threads=1,
        follow=lambda moment: clock.read() if moment.record is not None else None,
    )
    return clock.each(len(material.x) / material.batch)


def _student(wider: int = 1) -> nn.Module:
    torch.manual_seed(0)
    first, second, third = (wider * channels for channels in _STUDENT)
    network: Any = Student((first, second, third))
    network.to(memory_format=torch.channels_last)
    found: nn.Module = network
    return found


CONTENDERS: Final[Mapping[str, Callable[[Material], Seconds]]] = {
    PLAIN: functools.partial(by_hand, taught=False),
    ALONE: functools.partial(by_graphopt, loss="ce"),
    CACHED: functools.partial(by_graphopt, loss=_LOSS, cache=True),
    ONLINE: functools.partial(by_graphopt, loss=_LOSS, cache=False),
    TORCH: functools.partial(by_hand, taught=True),
}


def table(times: Mapping[str, Sequence[Seconds]]) -> Iterator[str]:
    """The lines of the table: medians over rounds, and quartiles of the ratios."""
    yield "| step | clock, ms | processor, ms | of the plain one (quartiles) | of the cached one (quartiles) |"
    yield "|---|--:|--:|--:|--:|"
    for name, own in times.items():
        wall, processor = 1000 * np.median(own, 0)
        cells = [_shown(_ratios(times, name, other)) if name != other else "" for other in (PLAIN, CACHED)]
        yield f"| {name} | {wall:.1f} | {processor:.1f} | {' | '.join(cells)} |"


def _ratios(times: Mapping[str, Sequence[Seconds]], name: str, other: str) -> Array:
    """Of the processor's time, one a round."""
    found: Array = np.array(times[name])[:, 1] / np.array(times[other])[:, 1]
    return found


def _shown(ratios: Array) -> str:
    low, middle, high = np.quantile(ratios, [0.25, 0.5, 0.75])
    return f"{middle:.2f}x ({low:.2f} to {high:.2f})"


def missed(times: Mapping[str, Sequence[Seconds]]) -> list[str]:
    """Which bars are missed."""
    slower, faster = (float(np.median(_ratios(times, *pair))) for pair in ((CACHED, PLAIN), (TORCH, CACHED)))
    checks = [
        (
            slower <= BARS["slower"],
            f"a cached step takes {slower:.2f}x of a plain one, {BARS['slower']}x at most wanted",
        ),
        (faster >= BARS["faster"], f"only {faster:.2f}x faster than a torch teacher, {BARS['faster']}x wanted"),
    ]
    return [text for passed, text in checks if not passed]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints the table, and says whether the bars were met."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", type=int, default=40, help="of an epoch")
    parser.add_argument("--batch", type=int, default=64)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    material = Material(options.steps, options.batch)
    times: dict[str, list[Seconds]] = {name: [] for name in CONTENDERS}
    turns = random.Random(0)
    for number in range(options.rounds):
        for name in turns.sample(list(CONTENDERS), len(CONTENDERS)):
            times[name].append(CONTENDERS[name](material))
        print(
            number,
            {name: [round(1000 * one, 1) for one in own[-1]] for name, own in times.items()},
            file=sys.stderr,
            flush=True,
        )
    print("\n".join(table(times)), end="\n\n")
    misses = missed(times)
    print("\n".join(misses) or "all bars met")
    return 1 if misses else 0


if __name__ == "__main__":
    sys.exit(main())
