"""Random numbers that are a function of what they are for, so that a resumed run draws the same."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

__all__ = ["hashes", "uniform"]

_LOW: Final = 0xFFFFFFFF


def hashes(seed: int, step: Tensor, ids: Tensor, count: int) -> Tensor:
    """32-bit hashes, as int64 ``(B, count)``, of the seed, the step (a scalar) and the ids ``(B,)`` of the samples.

    The finalizer of MurmurHash3, chained. int64 products wrap, which leaves their lower 32 bits right.
    """
    state = _mix(ids + _mix(torch.tensor(seed & _LOW, device=ids.device)))
    state = _mix(state + _mix(step.to(ids.device) + 0x9E3779B9))
    return _mix(state[:, None] + _mix(torch.arange(count, device=ids.device) + 0x7F4A7C15))


def uniform(seed: int, step: Tensor, ids: Tensor, count: int) -> Tensor:
    """The same as numbers in [0, 1), float32 ``(B, count)``."""
    return (hashes(seed, step, ids, count) >> 8).float() / (1 << 24)


def _mix(state: Tensor) -> Tensor:
    state = state & _LOW
    state = state ^ (state >> 16)
    state = (state * 0x85EBCA6B) & _LOW
    state = state ^ (state >> 13)
    state = (state * 0xC2B2AE35) & _LOW
    return state ^ (state >> 16)
