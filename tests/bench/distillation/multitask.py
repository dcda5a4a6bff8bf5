"""Two tasks, two teachers: which digit, and whether it is odd, from one student with two heads; as Markdown.

``python tests/bench/distillation/multitask.py [--seeds ...] [--settings ...]``. Each task has a teacher of its own,
trained on 55,000 labels; the student, three convolutions of 8, 16 and 32 channels, has 1,000. Students of a seed start
from the same weights and see the same samples in the same order. Every run that is over is kept in
``.zoo/distillation``.
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
from torch import nn

ROOT = Path(__file__).parents[3]
if __name__ == "__main__":
    sys.path[:1] = [str(ROOT), str(ROOT / "passes"), str(ROOT / "tests")]

from bench.distillation import ledger  # noqa: E402
from bench.distillation.classic import images, samples, share, shifted, spread  # noqa: E402
from bench.distillation.ledger import Figures, Ledger  # noqa: E402
from bench.distillation.networks import Heads, Student  # noqa: E402
from bench.pruning import models  # noqa: E402

import graphopt  # noqa: E402
from graphopt import proto  # noqa: E402

__all__ = ["SETTINGS", "main"]

Array = np.ndarray[Any, Any]

TASKS: Final[Mapping[str, int]] = {"digit": 10, "parity": 2}
"""Classes; the columns of labels have the same order."""

_KD: Final = "kd:student={0}:teacher=logits:teacher-number={1}:temperature=4:weight=0.9"
_HARD: Final = "ce:student={0}:column={1}"


def _taught(*tasks: str) -> str:
    """Each task learns from its teacher and from labels."""
    terms = [
        f"{_KD.format(task, place)}+{_HARD.format(task, list(TASKS).index(task))}:weight=0.1"
        for place, task in enumerate(tasks)
    ]
    return "+".join(terms)


SETTINGS: Final[Mapping[str, tuple[tuple[str, ...], str, str]]] = {
    "labels, both tasks": ((), "+".join(_HARD.format(task, place) for place, task in enumerate(TASKS)), "static"),
    "digit alone, its teacher": (("digit",), _taught("digit"), "static"),
    "parity alone, its teacher": (("parity",), _taught("parity"), "static"),
    "both, two teachers": (tuple(TASKS), _taught(*TASKS), "static"),
    "both, two teachers, uncertainty": (tuple(TASKS), _taught(*TASKS), "uncertainty"),
    "both, two teachers, gradnorm": (tuple(TASKS), _taught(*TASKS), "gradnorm"),
}
"""Which teachers, the loss, and the balance of the tasks."""

_SCHEDULE: Final[Mapping[str, Any]] = {
    "epochs": 10,
    "batch": 128,
    "learning_rate": 4e-3,
    "warmup": 0.1,
    "weight_decay": 0.05,
}


def _labels(y: Array, task: str) -> Array:
    return y if task == "digit" else y % 2


def teacher(task: str) -> Path:
    """Three wide convolutions that know one task, in ONNX, trained unless they are there."""
    path = ledger.FOLDER / f"multitask-{task}.onnx"
    if path.exists():
        return path
    found = images()
    torch.manual_seed(0)
    network = Student((48, 96, 192), TASKS[task])
    made = graphopt.distill(
        onnx.load_from_string(models.exported(network, found.train[0][:2])),
        _last(network),
        {"input": shifted(found.train[0], 4), "y": np.tile(_labels(found.train[1], task), 4)},
        evaluation={"input": found.held_out[0], "y": _labels(found.held_out[1], task)},
        loss="ce",
        threads=1,
        precision="bfloat16",
        **{**_SCHEDULE, "epochs": 1},
    )
    ledger.write(path, proto.to_proto(made).SerializeToString())
    return path


def _last(network: Any) -> nn.Module:
    """With channels last, which is faster on a CPU."""
    network.to(memory_format=torch.channels_last)
    found: nn.Module = network
    return found


def student(seed: int) -> onnx.ModelProto:
    """Two untrained heads on three convolutions, in ONNX: its outputs have names of their own."""
    torch.manual_seed(seed)
    contents = models.exported(Heads((8, 16, 32), tuple(TASKS.values())), images().test[0][:2])
    model = onnx.load_from_string(contents)
    for value, name in zip(model.graph.output, TASKS, strict=True):
        for node in model.graph.node:
            node.output[:] = [name if one == value.name else one for one in node.output]
        value.name = name
    return model


def learn(setting: str, seed: int) -> Figures:
    """Trains one student."""
    tasks, loss, balance = SETTINGS[setting]
    x, y = samples("1000", seed)
    found = images()
    folder = ledger.FOLDER / f"multitask-{list(SETTINGS).index(setting)}-{seed}"
    share(_answers(tasks, seed), folder / "teachers")
    made = graphopt.distill(
        [str(teacher(task)) for task in tasks or TASKS][: len(tasks) or 1],
        student(seed),
        {"input": x, "y": np.stack([_labels(y, task) for task in TASKS], 1)},
        evaluation={
            "input": found.held_out[0],
            "y": np.stack([_labels(found.held_out[1], task) for task in TASKS], 1),
        },
        loss=loss,
        balance=balance,
        seed=seed,
        threads=1,
        run_directory=folder,
        **_SCHEDULE,
    )
    shutil.rmtree(folder)
    session = _session(made.SerializeToString())
    said = session.run(list(TASKS), {"input": found.test[0]})
    return {
        task: float((logits.argmax(1) == _labels(found.test[1], task)).mean())
        for task, logits in zip(TASKS, said, strict=True)
        if task in loss
    }


def _answers(tasks: Sequence[str], seed: int) -> Path:
    """What the teachers of a setting say, for all settings with the same ones."""
    return ledger.FOLDER / f"answers-multitask-{'-'.join(tasks)}-{seed}"


def _session(model: bytes) -> Any:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def table(runs: Mapping[str, Sequence[Figures]], teachers: Mapping[str, float]) -> Iterator[str]:
    """The lines of the table: percent right, the mean over seeds and the standard deviation."""
    yield f"| student with {len(next(iter(runs.values())))} seeds learns from | {' | '.join(TASKS)} |"
    yield f"|---|{'--:|' * len(TASKS)}"
    for name, own in runs.items():
        scores = {task: [100 * one[task] for one in own if task in one] for task in TASKS}
        cells = [f"{np.mean(found):.2f} ({spread(found):.2f})" if found else "" for found in scores.values()]
        yield f"| {name} | {' | '.join(cells)} |"
    yield f"| the teachers | {' | '.join(f'{teachers[task]:.2f}' for task in TASKS)} |"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures what is not known yet, and prints the table."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    options = parser.parse_args(arguments)
    book = Ledger("multitask")
    runs: dict[str, list[Figures]] = {}
    for seed in options.seeds:
        for name in options.settings:
            settings = {"setting": SETTINGS[name], "seed": seed, **_SCHEDULE}
            runs.setdefault(name, []).append(book.run(settings, functools.partial(learn, name, seed)))
    x, y = images().test
    scores = {
        task: 100 * models.score(models.predictions(str(teacher(task)), x), _labels(y, task)).accuracy for task in TASKS
    }
    print("\n".join(table(runs, scores)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
