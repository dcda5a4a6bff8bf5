"""Slice nodes as bounds by axis."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import onnx_ir as ir

from graphopt.pipeline.base import Context
from graphopt.rewrite.builder import Builder
from graphopt_passes._shape_ops import FAR, axes, input_of, ints_attribute

__all__ = ["Bounds", "Cut", "build", "read"]


class Bounds(NamedTuple):
    """What a Slice takes along one axis."""

    start: int
    end: int
    step: int = 1

    @property
    def to_end(self) -> bool:
        """Whether it goes on to the last element, however long the axis is."""
        return self.end >= FAR


@dataclasses.dataclass(frozen=True)
class Cut:
    """A Slice whose bounds are known.

    Attributes:
        bounds: By axis, as the node counts them: all from the front, or all from the back if the rank is unknown.
        rank: The number of axes, if known; then all count from the front.
    """

    bounds: Mapping[int, Bounds]
    rank: int | None


def read(node: ir.Node, context: Context) -> Cut | None:
    """The bounds of a Slice; ``None`` if they are not known before the model runs."""
    by_attribute = ints_attribute(node, "starts")
    starts: tuple[int, ...] | None
    steps: tuple[int, ...] | None
    if by_attribute is not None:
        starts, ends, steps = by_attribute, ints_attribute(node, "ends"), ()
    else:
        starts, ends = context.ints(input_of(node, 1)), context.ints(input_of(node, 2))
        steps = () if input_of(node, 4) is None else context.ints(input_of(node, 4))
    places = axes(node, 3, context)
    source = input_of(node, 0)
    if starts is None or ends is None or steps is None or places is None or source is None:
        return None
    places = places or tuple(range(len(starts)))
    steps = steps or (1,) * len(starts)
    rank = context.shapes.rank(source)
    if rank is not None:
        if not all(-rank <= place < rank for place in places):
            return None
        places = tuple(place % rank for place in places)
    elif len({place < 0 for place in places}) != 1:
        return None
    if len({len(starts), len(ends), len(steps), len(places)}) != 1 or len(set(places)) != len(places):
        return None
    return Cut({at: Bounds(*one) for at, *one in zip(places, starts, ends, steps, strict=True)}, rank)


def build(builder: Builder, node: ir.Node, source: ir.Value, bounds: Mapping[int, Bounds]) -> ir.Value:
    """A Slice of ``source`` in the form of ``node``'s operator set."""
    places = sorted(bounds)
    starts, ends, steps = (list(column) for column in zip(*(bounds[place] for place in places), strict=True))
    if builder.context.opset(node) < 10:
        return builder.op("Slice", [source], {"starts": starts, "ends": ends, "axes": places})
    columns = [starts, ends, places] + ([steps] if set(steps) != {1} else [])
    return builder.op("Slice", [source, *(builder.constant(np.array(column, np.int64)) for column in columns)])
