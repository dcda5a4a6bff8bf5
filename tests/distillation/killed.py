"""A run that may be in a process of its own, to be killed: ``python killed.py FOLDER RESULT``."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from distillation.lessons import Objective, network, reader

from graphopt.distillation.checkpoint import Checkpoints
from graphopt.distillation.evaluation import Accuracy
from graphopt.distillation.settings import Settings
from graphopt.distillation.trainer import fit

SETTINGS = Settings(epochs=15, batch=16, learning_rate=0.02, average=0.9, accumulate=2, clip=1.0)


def main(folder: str, result: str) -> None:
    """Runs to the end, a checkpoint after every change of the weights, and writes the weights."""
    student, objective = network(), Objective()
    fit(
        student,
        objective,
        reader(96),
        SETTINGS,
        evaluation=reader(40, seed=3),
        metrics=[Accuracy("y")],
        checkpoints=Checkpoints(Path(folder), seconds=0),
    )
    held = {**student.module.state_dict(), **{f"objective.{k}": v for k, v in objective.state_dict().items()}}
    np.savez(result, **{name: one.numpy() for name, one in held.items()})


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(*sys.argv[1:])
