"""Refits the layers of a pruned model so that it computes what the original computed, from inputs alone."""

from __future__ import annotations

from graphopt.pruning.reconstruction.refit import Refit, reconstruct

__all__ = ["Refit", "reconstruct"]
