"""Proof that two models do the same job: structure, feeds, comparison in ONNX Runtime, bisection.

Imports late: the worker process starts through this package and needs none of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from graphopt.verify.equivalence import Verifier, validate
    from graphopt.verify.result import Equivalence, OutputComparison

__all__ = ["Equivalence", "OutputComparison", "Verifier", "validate"]

_HOME = {
    "Equivalence": "graphopt.verify.result",
    "OutputComparison": "graphopt.verify.result",
    "Verifier": "graphopt.verify.equivalence",
    "validate": "graphopt.verify.equivalence",
}


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOME[name]), name)
