"""Attention as one operator: averages of zeros are zero."""

from __future__ import annotations

import numpy as np

from graphopt.channels.liveness.lanes import Rule, Step

__all__ = ["TABLE"]


def _attention(step: Step) -> None:
    """Averages of zeros are zero; several heads of queries may share one of values."""
    values, given = step.axes(2), step.gives()
    for place in (1, 3) if len(values) == 4 else (2,):
        zero = step.lanes(2, place) == 0
        before, after = values[place].size, given[place].size
        if isinstance(before, int) and isinstance(after, int) and after % before == 0:
            heads = step.integer("kv_num_heads", 1) if len(values) == 3 else before
            zero = np.repeat(zero.reshape(heads, -1), after // before, axis=0).reshape(-1)
            step.give_lanes(place, np.where(zero, 0.0, np.nan))


def _multi_head_attention(step: Step) -> None:
    zero = step.lanes(2, 2) == 0
    if step.has(3):
        zero &= step.lanes(3, 0)[-len(zero) :] == 0
    step.give_lanes(2, np.where(zero, 0.0, np.nan))


def _packed_attention(step: Step) -> None:
    zero = step.lanes(1, 1) == 0
    if step.has(2):
        zero &= step.lanes(2, 0) == 0
    step.give_lanes(2, np.where(zero[len(zero) // 3 * 2 :], 0.0, np.nan))


TABLE: dict[str, Rule] = {
    "Attention": _attention,
    "com.microsoft::Attention": _packed_attention,
    "com.microsoft::MultiHeadAttention": _multi_head_attention,
}
