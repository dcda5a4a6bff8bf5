"""Zeros in weights: any share of them, or at most N of every M (2:4 and the like), with what is left adapted.

The way in is :func:`sparsify`. Shapes stay, so that a smaller file after compression is all that is promised; channels
that end up as nothing but zeros are what the pass ``remove-dead-channels`` takes away.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from graphopt.pruning.sparsity.patterns import Pattern
    from graphopt.pruning.sparsity.report import Report
    from graphopt.pruning.sparsity.settings import Settings
    from graphopt.pruning.sparsity.sparsifier import sparsify, sparsify_in_place

__all__ = ["Pattern", "Report", "Settings", "sparsify", "sparsify_in_place"]

_HOME = {
    "Pattern": "graphopt.pruning.sparsity.patterns",
    "Report": "graphopt.pruning.sparsity.report",
    "Settings": "graphopt.pruning.sparsity.settings",
    "sparsify": "graphopt.pruning.sparsity.sparsifier",
    "sparsify_in_place": "graphopt.pruning.sparsity.sparsifier",
}


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOME[name]), name)
