"""Quantization: zero is the zero point."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from graphopt.channels.liveness.lanes import Floats, Rule, Step

__all__ = ["TABLE"]


def _points(step: Step, place: int, size: int) -> tuple[Floats, Floats]:
    """Scale and zero point of the lanes of an axis."""
    along = place == step.integer("axis", 1) % max(len(step.axes(0)), 1)
    scale, point = (
        step.vector(index, size, default)
        if along
        else np.full(size, step.number(index) if step.has(index) else default)
        for index, default in ((1, 1.0), (2, 0.0))
    )
    return scale, point


def _quantization(function: Callable[[Floats, Floats, Floats], Floats]) -> Rule:
    def follow(step: Step) -> None:
        if not step.any_known(0):
            return
        for place, axis in enumerate(step.axes(0)):
            if axis.size != 1:
                lanes = step.lanes(0, place)
                step.give_lanes(place, function(lanes, *_points(step, place, len(lanes))))

    return follow


def _quantized(lanes: Floats, scale: Floats, point: Floats) -> Floats:
    return np.where(lanes == 0, point, np.nan)


def _dequantized(lanes: Floats, scale: Floats, point: Floats) -> Floats:
    return np.where(lanes == point, 0.0, (lanes - point) * scale)


TABLE: dict[str, Rule] = {
    "DequantizeLinear": _quantization(_dequantized),
    "QuantizeLinear": _quantization(_quantized),
}
