"""Operators that move elements about, fill tensors, or choose between them."""

from __future__ import annotations

import functools
import math

import numpy as np

from graphopt.channels.liveness.lanes import Floats, Rule, Step, carrying, nothing, same, zero_only

__all__ = ["TABLE"]


def _concat(step: Step) -> None:
    axes = step.gives()
    axis = step.axis(0, len(axes))
    inputs = range(len(step.node.inputs))
    if not any(step.any_known(index) for index in inputs):
        return
    for place, one in enumerate(axes):
        if one.size == 1:
            continue
        parts = [step.lanes(index, place) for index in inputs]
        if place == axis:
            step.give_lanes(place, np.concatenate(parts))
        elif len({len(part) for part in parts}) == 1:
            same = functools.reduce(lambda a, b: np.where(a == b, a, np.nan), parts)
            step.give_lanes(place, same)


def _split(step: Step) -> None:
    for output in range(len(step.node.outputs)):
        step.carry(same, output=output)
        _moved(step, output)


def _moved(step: Step, output: int = 0, fill: float = math.nan) -> None:
    """Lanes along an axis that is cut, picked from or padded are where the links say."""
    source, target = step.axes(0), step.gives(output)
    for link in step.links:
        to = [place for place, axis in enumerate(target) if axis is link.a]
        of = [place for place, axis in enumerate(source) if axis is link.b]
        if len(to) == len(of) == 1 and isinstance(link.a.size, int):
            lanes = np.full(link.a.size, fill)
            lanes[link.a_indices] = step.lanes(0, of[0])[link.b_indices]
            step.give_lanes(to[0], lanes, output)


def _slice(step: Step) -> None:
    step.carry(same)
    _moved(step)


def _gather(step: Step) -> None:
    step.carry(same)
    contents = step.indices(1) if step.is_constant(1) else None
    axis = step.axis(0, len(step.axes(0)))
    size = step.axes(0)[axis].size
    if contents is not None and contents.ndim == 1 and isinstance(size, int):
        step.give_lanes(axis, step.lanes(0, axis)[contents.astype(np.int64) % max(size, 1)])


def _pad(step: Step) -> None:
    """Padding other axes leaves a lane constant if it is what they are padded with."""
    mode = step.node.attributes.get_string("mode", "constant")
    fill = step.node.attributes.get_float("value", 0.0) if step.opset < 11 else step.number(2) if step.has(2) else 0.0
    source, target = step.axes(0), step.gives()
    padded = [place for place, axis in enumerate(target) if axis is not source[place]]

    def within(lanes: Floats) -> Floats:
        return lanes if mode != "constant" or not padded else np.where(lanes == fill, lanes, np.nan)

    step.carry(within)
    if mode == "constant" and len(padded) == 1:
        _moved(step, fill=fill)


def _expand(step: Step) -> None:
    step.carry(same)
    number = step.number(0)
    if not math.isnan(number):
        _fill(step, number)


def _fill(step: Step, number: float) -> None:
    for place, axis in enumerate(step.gives()):
        if isinstance(axis.size, int) and axis.size != 1:
            step.give_lanes(place, np.full(axis.size, number))


def _constant_of_shape(step: Step) -> None:
    attribute = step.node.attributes.get("value")
    _fill(step, 0.0 if attribute is None else float(attribute.as_tensor().numpy().reshape(-1)[0]))


def _if(step: Step) -> None:
    """What both branches give."""
    branches = [step.node.attributes[name].as_graph() for name in ("then_branch", "else_branch")]
    for output, values in enumerate(zip(*[branch.outputs for branch in branches], strict=True)):
        axes = step.gives(output)
        for place, axis in enumerate(axes):
            if axis.size != 1:
                a, b = (step.lanes_of(value, place) for value in values)
                step.give_lanes(place, np.where(a == b, a, np.nan) if len(a) == len(b) else nothing(len(a)), output)


def _resize(step: Step) -> None:
    """Weights of neighbours add up to one, save where the border is filled up."""
    mode = step.node.attributes.get_string("coordinate_transformation_mode", "half_pixel")
    step.carry(zero_only if mode == "tf_crop_and_resize" else same)


TABLE: dict[str, Rule] = {
    **dict.fromkeys(("DepthToSpace", "Flatten", "Reshape", "SpaceToDepth", "Tile"), Step.regroup),
    **dict.fromkeys(("GridSample", "RoiAlign"), carrying(zero_only)),
    **dict.fromkeys(("Resize", "Upsample"), _resize),
    **dict.fromkeys(("Squeeze", "Transpose", "Unsqueeze"), carrying(same)),
    "Concat": _concat,
    "ConstantOfShape": _constant_of_shape,
    "Expand": _expand,
    "Gather": _gather,
    "If": _if,
    "Pad": _pad,
    "Slice": _slice,
    "Split": _split,
}
