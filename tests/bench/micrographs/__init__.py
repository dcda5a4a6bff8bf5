"""Micro-graphs of the feature table, a row a pattern, and traps: graphs that look like one of them and are not."""

from __future__ import annotations

from bench.micrographs import convolution, eliminate, matrices, once, patterns, shapes, sundries, traps
from bench.micrographs.case import Case

__all__ = ["CASES", "TRAPS"]

CASES: list[Case] = [
    *eliminate.CASES, *once.CASES, *shapes.CASES, *convolution.CASES, *matrices.CASES, *patterns.CASES,
    *sundries.CASES,
]  # fmt: skip
TRAPS: list[Case] = traps.CASES
