"""What each loss is worth to one student on Fashion-MNIST, as Markdown.

``python tests/bench/distillation/losses.py [--losses ...] [--seeds ...]``. A ResNet-8 teaches three small convolutions
with 10,000 images, seen four times; every loss comes on top of the cross-entropy, with the weight that its paper or
its authors' code gives it, or 1; none is tuned. Students of a seed start from the same weights and see the same samples
in the same order. 5,000 training images are set aside to choose the epoch by. The losses of detection heads have
nothing to compare here. Every run that is over is kept in ``.zoo/distillation``.
"""

from __future__ import annotations

import argparse
import functools
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
from bench.distillation.classic import images, share, spread  # noqa: E402
from bench.distillation.ledger import Figures, Ledger  # noqa: E402
from bench.distillation.networks import Student  # noqa: E402
from bench.pruning import models  # noqa: E402

import graphopt  # noqa: E402
from graphopt import proto  # noqa: E402

__all__ = ["LOSSES", "main"]

_TEACHER: Final = "fashion-resnet"
_SAMPLES: Final = 10000
_CHANNELS: Final = (12, 24, 48)
_SCHEDULE: Final[Mapping[str, Any]] = {
    "epochs": 4,
    "batch": 64,
    "learning_rate": 4e-3,
    "warmup": 0.1,
    "weight_decay": 0.05,
}

LOSSES: Final[Mapping[str, str]] = {
    "ce": "ce",
    "kd": "kd:temperature=4:weight=0.9+ce:weight=0.1",
    "soft-ce": "soft-ce:temperature=4:weight=0.9+ce:weight=0.1",
    "logit-std": "logit-std:temperature=2:weight=9+ce:weight=0.1",
    "logit-mse": "logit-mse:weight=0.1+ce",
    "dkd": "dkd:temperature=4:alpha=1:beta=8+ce",
    "dist": "dist:temperature=4+ce",
    "l1": "l1:target=teacher+ce",
    "huber": "huber:target=teacher+ce",
    "mse": "mse:target=teacher:weight=0.1+ce",
    "bce": "bce:target=teacher+ce",
    "fitnets": "fitnets:{places}+ce",
    "hidden": "hidden:{places}+ce",
    "at": "at:{places}:weight=10+ce",
    "mgd": "mgd:{places}:weight=0.07+ce",
    "sp": "sp:{places}:weight=3000+ce",
    "rkd": "rkd:{places}:weight=25+ce",
    "crd": "crd:{places}:weight=0.8+ce",
    "crd with a bank": "crd:{places}:bank=10000:weight=0.8+ce",
    "kd + fitnets": "kd:temperature=4:weight=0.9+fitnets:{places}+ce:weight=0.1",
}
"""Specs; ``{places}`` names the last feature map of both, 4x4 places."""


def learn(name: str, seed: int) -> Figures:
    """Trains one student."""
    taught_by, found = models.load(_TEACHER, 0), images("fashion")
    places = [node.output[0] for node in onnx.load(taught_by.path).graph.node if node.op_type == "Relu"][-1]
    torch.manual_seed(seed)
    student: Any = Student(_CHANNELS)
    student.to(memory_format=torch.channels_last)
    folder = ledger.FOLDER / f"losses-{_slug(name)}-{seed}"
    share(_answers(name), folder / "teachers")
    made, report = graphopt.distill(
        taught_by.onnx_path,
        student,
        {"input": found.train[0][:_SAMPLES], "y": found.train[1][:_SAMPLES]},
        evaluation={"input": found.held_out[0], "y": found.held_out[1]},
        loss=LOSSES[name].format(places=f"student=layer3:teacher={places}"),
        half=True,
        seed=seed,
        threads=1,
        run_directory=folder,
        with_report=True,
        **_SCHEDULE,
    )
    shutil.rmtree(folder)
    said = models.predictions(proto.to_proto(made).SerializeToString(), found.test[0])
    return {
        "accuracy": models.score(said, found.test[1]).accuracy,
        "agreement": float((said.argmax(1) == taught_by.logits.argmax(1)).mean()),
        "train": report.seconds["train"],
    }


def _slug(name: str) -> str:
    return name.replace(" ", "-")


def _answers(name: str) -> Path:
    """What the teacher says, for all seeds."""
    return ledger.FOLDER / f"answers-losses-{_slug(name)}"


def table(runs: Mapping[str, Sequence[Figures]], teacher: float) -> Iterator[str]:
    """The lines of the table; differences are from the cross-entropy alone at the same seeds.

    Args:
        runs: By the name of the loss, one a seed.
        teacher: Percent right.
    """
    yield "| loss | right, % (sd) | against ce, paired (sd) | agrees with the teacher, % | training, s |"
    yield "|---|--:|--:|--:|--:|"
    yield f"| the teacher | {teacher:.2f} | | | |"
    alone = [100 * one["accuracy"] for one in runs.get("ce", ())]
    for name, own in runs.items():
        right = [100 * one["accuracy"] for one in own]
        gains = [score - base for score, base in zip(right, alone, strict=False)]
        gain = "" if name == "ce" or not gains else f"{np.mean(gains):+.2f} ({spread(gains):.2f})"
        agreement = 100 * np.mean([one["agreement"] for one in own])
        seconds = np.mean([one["train"] for one in own])
        head = f"| `{LOSSES[name].format(places='...')}` | {np.mean(right):.2f} ({spread(right):.2f})"
        yield f"{head} | {gain} | {agreement:.1f} | {seconds:.0f} |"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures what is not known yet, and prints the table."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--losses", nargs="+", choices=LOSSES, default=list(LOSSES))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    options = parser.parse_args(arguments)
    book = Ledger("losses")
    runs: dict[str, list[Figures]] = {}
    for name in options.losses:
        for seed in options.seeds:
            settings = {"loss": LOSSES[name], "seed": seed, "samples": _SAMPLES, "channels": _CHANNELS, **_SCHEDULE}
            runs.setdefault(name, []).append(book.run(settings, functools.partial(learn, name, seed)))
        shutil.rmtree(_answers(name), ignore_errors=True)
    print("\n".join(table(runs, 100 * models.load(_TEACHER, 0).base.accuracy)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
