"""Small students and lessons for the tests of training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
import torch.nn.functional as F  # noqa: N812
from harness import parse
from torch import Tensor, nn

from graphopt.datasets import Bound, bind
from graphopt.distillation.batch import Batch
from graphopt.distillation.ensemble import Ensemble
from graphopt.distillation.exporting import Interface
from graphopt.distillation.reading import Reader
from graphopt.distillation.student import GraphStudent, ModuleStudent

CPU = torch.device("cpu")
INTERFACE = Interface.of(parse("agraph (float[N,6] x) => (float[N,3] y) { y = Identity(x) }"))


def graph(hidden: int = 8, seed: int = 0, classes: int = 3, batch: int | str = "N", inputs: int = 6) -> ir.Model:
    """A perceptron: x (batch, inputs) -> y (batch, classes)."""
    random = np.random.default_rng(seed)
    weights = {
        "w": random.standard_normal((inputs, hidden)).astype(np.float32) / 2,
        "b": np.zeros(hidden, np.float32),
        "v": random.standard_normal((hidden, classes)).astype(np.float32) / 2,
    }
    return parse(
        f"agraph (float[{batch},{inputs}] x) => (float[{batch},{classes}] y) "
        "{ p = MatMul(x, w)  h = Add(p, b)  r = Relu(h)  y = MatMul(r, v) }",
        weights,
    )


def arrays(count: int = 90, seed: int = 1) -> dict[str, Any]:
    """Samples whose label a linear map tells."""
    random = np.random.default_rng(seed)
    x = random.standard_normal((count, 6)).astype(np.float32)
    return {"x": x, "y": (x @ np.random.default_rng(5).standard_normal((6, 3))).argmax(1)}


def samples(count: int = 90, seed: int = 1, **changes: Any) -> Bound:
    """The same, bound to :func:`graph`."""
    return bind(arrays(count, seed) | changes, graph(), samples=None)


def reader(count: int = 90, seed: int = 1, teacher: Any = None, **options: Any) -> Reader:
    """Reads :func:`samples`."""
    ensemble = None if teacher is None else Ensemble([teacher])
    return Reader(samples(count, seed), ensemble, device=CPU, **options)


class Objective(nn.Module):
    """Cross-entropy, and half the squared distance to the teacher where there is one; counts what it has seen."""

    seen: Tensor

    def __init__(self, fails_at: int = -1) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(200, dtype=torch.int64))
        self.scale: nn.Parameter | None = None
        self.ids: list[list[int]] = []
        self._fails_at = fails_at

    def prepare(self, batch: Batch) -> None:
        """A parameter whose start is random."""
        self.scale = nn.Parameter(1 + 0.01 * torch.randn(batch.student["y"].shape[1]))

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss and its parts."""
        assert self.scale is not None
        parts: dict[str, Tensor] = {}
        output = batch.student["y"] * self.scale
        if batch.labels is not None:
            parts["ce"] = F.cross_entropy(output, batch.labels)
        if batch.teachers:
            wanted = batch.teachers[0]["y"]
            assert isinstance(wanted, Tensor)
            parts["mse"] = 0.5 * F.mse_loss(output, wanted)
        if self.training:
            self.ids.append(batch.ids.tolist())
            self.seen[batch.ids] += 1
            if len(self.ids) == self._fails_at + 1:
                parts["ce"] = parts["ce"] * float("nan")
        return torch.stack(list(parts.values())).sum(), parts


class Network(nn.Module):
    """A module with all that is random or keeps statistics."""

    def __init__(self, drop: float = 0.2) -> None:
        super().__init__()
        self.first = nn.Linear(6, 8)
        self.norm = nn.BatchNorm1d(8)
        self.drop = nn.Dropout(drop)
        self.last = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        """x (N, 6) -> (N, 3)."""
        hidden: Tensor = self.last(self.drop(torch.relu(self.norm(self.first(x)))))
        return hidden


def network(drop: float = 0.2, seed: int = 0) -> ModuleStudent:
    """A student of :class:`Network`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return ModuleStudent(Network(drop), INTERFACE)


def perceptron(seed: int = 0) -> GraphStudent:
    """A student of :func:`graph`."""
    return GraphStudent(graph(seed=seed))


def weights(student: GraphStudent | ModuleStudent) -> dict[str, Tensor]:
    """A copy of what a student holds."""
    return {name: one.detach().clone() for name, one in student.module.state_dict().items()}


def same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    """Whether they are, bit for bit."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
