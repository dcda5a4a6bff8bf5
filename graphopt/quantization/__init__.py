"""Weights and activations in few bits, chosen layer by layer by measured error.

The way in is :func:`graphopt.quantize`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from graphopt.quantization.quantizer import quantize
    from graphopt.quantization.ranges import METHODS
    from graphopt.quantization.report import LayerOutcome, QuantizeReport
    from graphopt.quantization.schemes import SCHEMES, Scheme

__all__ = ["METHODS", "SCHEMES", "LayerOutcome", "QuantizeReport", "Scheme", "quantize"]

_HOME = {
    "METHODS": "graphopt.quantization.ranges",
    "SCHEMES": "graphopt.quantization.schemes",
    "LayerOutcome": "graphopt.quantization.report",
    "QuantizeReport": "graphopt.quantization.report",
    "Scheme": "graphopt.quantization.schemes",
    "quantize": "graphopt.quantization.quantizer",
}


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOME[name]), name)
