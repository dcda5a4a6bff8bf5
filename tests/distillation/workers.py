"""What torchrun starts: ``torchrun workers.py CASE RESULT [FOLDER]``; the first process writes the weights."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from distillation.lessons import Objective, graph, network, perceptron, reader
from torch import Tensor

from graphopt.distillation.batch import Batch
from graphopt.distillation.checkpoint import Checkpoints
from graphopt.distillation.evaluation import Accuracy
from graphopt.distillation.parallel import World
from graphopt.distillation.settings import Settings
from graphopt.distillation.teacher import Teacher
from graphopt.distillation.trainer import fit


class Relations(Objective):
    """Compares all pairs of samples of a batch, beside what its base does."""

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss and its parts."""
        total, parts = super().forward(batch)
        output, wanted = batch.student["y"], batch.teachers[0]["y"]
        assert isinstance(wanted, Tensor)
        parts["pairs"] = (torch.cdist(output, output) - torch.cdist(wanted, wanted)).square().mean()
        return total + parts["pairs"], parts


def main(case: str, result: str, folder: str = "") -> None:
    """Trains one case; neither the batches of 15 nor the last one of 3 divide evenly."""
    torch.set_num_threads(1)
    with World.joined() as world:
        student = network(drop=0.0) if case == "module" else perceptron()
        objective = Relations()
        history = fit(
            student,
            objective,
            reader(78, teacher=Teacher(graph(seed=4), threads=1)),
            Settings(epochs=3, batch=15, optimizer="sgd", learning_rate=0.1, accumulate=2, clip=1.0, average=0.5),
            evaluation=reader(50, seed=3, teacher=Teacher(graph(seed=4), threads=1)),
            metrics=[Accuracy("y")],
            checkpoints=Checkpoints(Path(folder), seconds=0) if folder else None,
            world=world,
        )
        if world.is_first:
            held = {**student.module.state_dict(), **{f"objective.{k}": v for k, v in objective.state_dict().items()}}
            held["losses"] = torch.tensor([[one.loss, *one.evaluation.values()] for one in history.records])
            np.savez(result, **{name: one.numpy() for name, one in held.items()})


if __name__ == "__main__":
    main(*sys.argv[1:])
