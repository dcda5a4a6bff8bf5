"""graphopt: a graph-level optimizer for ONNX models that proves its results.

Names are resolved on first use, so that importing the package costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from graphopt import channels, torch
    from graphopt.benchmark.latency import bench
    from graphopt.compression.compressor import compress
    from graphopt.distillation.distiller import distill
    from graphopt.errors import GraphoptError
    from graphopt.io import load, save
    from graphopt.optimizer import optimize
    from graphopt.pruning.pruner import prune
    from graphopt.quantization.quantizer import quantize
    from graphopt.verify.equivalence import validate
    from graphopt.version import __version__

__all__ = [
    "GraphoptError",
    "__version__",
    "bench",
    "channels",
    "compress",
    "distill",
    "load",
    "optimize",
    "prune",
    "quantize",
    "save",
    "torch",
    "validate",
]

_HOME = {
    "GraphoptError": "graphopt.errors",
    "__version__": "graphopt.version",
    "bench": "graphopt.benchmark.latency",
    "compress": "graphopt.compression.compressor",
    "distill": "graphopt.distillation.distiller",
    "load": "graphopt.io",
    "optimize": "graphopt.optimizer",
    "prune": "graphopt.pruning.pruner",
    "quantize": "graphopt.quantization.quantizer",
    "save": "graphopt.io",
    "validate": "graphopt.verify.equivalence",
}


_PACKAGES = ("channels", "torch")  # torch needs the extra distill


def __getattr__(name: str) -> Any:
    if name in _PACKAGES:
        return importlib.import_module(f"graphopt.{name}")
    if name not in _HOME:
        raise AttributeError(f"module 'graphopt' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
