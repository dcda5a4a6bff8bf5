"""A teacher that is right, students that are not yet, and what they learn from: for tests of whole runs."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
from distillation.lessons import Network, arrays, graph
from harness import parse
from torch import nn

__all__ = ["FEW", "data", "factory", "student", "teacher"]

FEW: dict[str, Any] = {"epochs": 3, "batch": 32, "learning_rate": 0.02, "threads": 1}
"""How the runs of tests train."""


def teacher(scale: float = 3.0, spare: int = 10) -> ir.Model:
    """x (N, 6) -> y (N, 3): the linear map that tells the labels of :func:`data`, through a layer of ReLUs.

    Args:
        scale: Of the logits.
        spare: Hidden units beyond those that it needs.
    """
    truth = np.random.default_rng(5).standard_normal((6, 3)).astype(np.float32)
    extra = np.random.default_rng(6).standard_normal((6, spare)).astype(np.float32)
    eye = np.eye(3, dtype=np.float32) * scale
    weights = {
        "w": np.hstack([truth, -truth, extra]),
        "b": np.zeros(6 + spare, np.float32),
        "v": np.vstack([eye, -eye, 1e-3 * np.ones((spare, 3), np.float32)]),
    }
    return parse(
        "agraph (float[N,6] x) => (float[N,3] y) { p = MatMul(x, w)  h = Add(p, b)  r = Relu(h)  y = MatMul(r, v) }",
        weights,
    )


def student(hidden: int = 5, seed: int = 3) -> ir.Model:
    """The same with random weights."""
    return graph(hidden=hidden, seed=seed)


def data(count: int = 200, seed: int = 1, *, labels: bool = True) -> dict[str, Any]:
    """Samples ``x``, and ``y``."""
    found = arrays(count, seed)
    return found if labels else {"x": found["x"]}


def factory() -> nn.Module:
    """A module that reads as ``distillation.school:factory`` on the command line."""
    return Network(drop=0.1)
