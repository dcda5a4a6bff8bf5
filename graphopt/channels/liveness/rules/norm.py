"""Normalizations, reductions and pooling."""

from __future__ import annotations

import numpy as np

from graphopt.channels.liveness.lanes import Rule, Step, carrying, same, zero_only
from graphopt.channels.liveness.rules.linear import pads_nothing

__all__ = ["TABLE"]


def _batchnorm(step: Step) -> None:
    x = step.lanes(0, 1)
    scale, bias, mean, var = (step.vector(index, len(x)) for index in (1, 2, 3, 4))
    with np.errstate(all="ignore"):
        moved = scale * (x - mean) / np.sqrt(var + step.node.attributes.get_float("epsilon", 1e-5)) + bias
    step.give_lanes(1, np.where(scale == 0, bias, moved))


def _instance_norm(step: Step) -> None:
    """What is constant is its own mean; only zero is so without rounding."""
    x = step.lanes(0, 1)
    scale, bias = step.vector(1, len(x)), step.vector(2, len(x))
    step.give_lanes(1, np.where((scale == 0) | (x == 0), bias, np.nan))


def _group_norm(step: Step) -> None:
    size = len(step.lanes(0, 1))
    step.give_lanes(1, np.where(step.vector(1, size) == 0, step.vector(2, size), np.nan))


def _layer_norm(step: Step) -> None:
    """Lanes beside the normalized axes: zeros stay zero, plus the bias where that is one number."""
    rank = len(step.axes(0))
    first = step.axis(-1, rank)
    shift = step.number(2) if step.has(2) else 0.0
    for place in range(first):
        if step.axes(0)[place].size != 1:
            step.give_lanes(place, np.where(step.lanes(0, place) == 0, shift, np.nan))


def _rms_norm(step: Step) -> None:
    step.carry(zero_only)
    if len(step.axes(1)) == 1:
        scale = step.lanes(1, 0)
        step.give_lanes(-1, np.where(scale == 0, 0.0, np.nan))


def _average_pool(step: Step) -> None:
    counts_pads = step.integer("count_include_pad", 0) and not pads_nothing(step)
    step.carry(zero_only if counts_pads else same)


TABLE: dict[str, Rule] = {
    **dict.fromkeys(("GlobalAveragePool", "GlobalMaxPool", "MaxPool"), carrying(same)),
    **dict.fromkeys(("ReduceMax", "ReduceMean", "ReduceMin"), carrying(same)),
    **dict.fromkeys(("GlobalLpPool", "LpNormalization", "LpPool"), carrying(zero_only)),
    **dict.fromkeys(("ReduceL1", "ReduceL2", "ReduceSum", "ReduceSumSquare"), carrying(zero_only)),
    **dict.fromkeys(
        ("RMSNormalization", "SimplifiedLayerNormalization", "com.microsoft::SimplifiedLayerNormalization"), _rms_norm
    ),
    "AveragePool": _average_pool,
    "BatchNormalization": _batchnorm,
    "GroupNormalization": _group_norm,
    "InstanceNormalization": _instance_norm,
    "LayerNormalization": _layer_norm,
    "TopK": carrying(same),
}
