"""Operators that join axes, cut them, and pick places out of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from graphopt.channels.axes import LARGEST, Axis
from graphopt.channels.op import Op, Unlinkable
from graphopt.channels.records import Axes
from graphopt.channels.rules.rule import Rule, Table

if TYPE_CHECKING:
    from graphopt.channels.fitting import Fit

__all__ = ["TABLE"]


def _concat(op: Op) -> None:
    inputs = [op.axes(index) for index in range(len(op.node.inputs))]
    rank = len(inputs[0])
    axis = op.axis(0, rank)
    result: list[Axis] = []
    for place in range(rank):
        if place == axis:
            result.append(op.new(op.shape()[axis]))
            continue
        for other in inputs[1:]:
            op.unite(inputs[0][place], other[place])
        result.append(inputs[0][place])
    start = 0
    sizes = [one[axis].size for one in inputs]
    if all(isinstance(size, int) for size in sizes):
        for one, size in zip(inputs, sizes, strict=True):
            assert isinstance(size, int)
            op.link_range(result[axis], start, one[axis], 0, size)
            start += size
    else:
        for joined in (*(other[axis] for other in inputs), result[axis]):
            op.freeze(joined, "it is joined with something of unknown size")
    op.give(result, [all(op.is_zero(index, place) for index in range(len(inputs))) for place in range(rank)])


def _split(op: Op) -> None:
    axes, zeros = op.axes(0), op.zeros(0)
    axis = op.axis(0, len(axes))
    start = 0
    for output in range(len(op.node.outputs)):
        part = op.new(op.shape(output)[axis])
        if isinstance(part.size, int) and isinstance(axes[axis].size, int):
            op.link_range(part, 0, axes[axis], start, part.size)
            start += part.size
        else:
            op.freeze(axes[axis], "it is split at positions that are not known")
            op.freeze(part, "it is split at positions that are not known")
        op.give([*axes[:axis], part, *axes[axis + 1 :]], zeros, output)


def _fit_split(fit: Fit) -> None:
    axis = fit.op.axis(0, len(fit.op.axes(0)))
    if not fit.changed(fit.op.axes(0)[axis]):
        return
    sizes = [fit.static(fit.gives(output)[axis]) for output in range(len(fit.op.node.outputs))]
    if fit.op.opset < 13:
        fit.attribute("split", sizes)
    else:
        fit.attribute("num_outputs", None)
        fit.constant(1, np.array(sizes, np.int64))


def _slice_ranges(op: Op) -> list[tuple[int, int, int, int]] | None:
    """Axis, start, end and step of each cut."""
    rank = len(op.axes(0))
    if op.opset < 10:
        starts, ends = op.integers("starts"), op.integers("ends")
        axes, steps = op.integers("axes"), None
    else:
        starts, ends = op.ints(1), op.ints(2)
        axes = op.ints(3) if op.has(3) else None
        steps = op.ints(4) if op.has(4) else None
        if (op.has(3) and axes is None) or (op.has(4) and steps is None):
            return None
    if starts is None or ends is None:
        return None
    axes = tuple(range(len(starts))) if axes is None else tuple([axis % rank for axis in axes])
    return list(zip(axes, starts, ends, steps or (1,) * len(starts), strict=True))


def _slice(op: Op) -> None:
    axes, zeros = list(op.axes(0)), op.zeros(0)
    ranges = _slice_ranges(op)
    if ranges is None:
        named = (op.integers("axes") if op.opset < 10 else op.ints(3)) or tuple(range(len(axes)))
        for position in [one % len(axes) for one in named]:
            op.freeze(axes[position], "it is cut at positions that are not known")
            axes[position] = op.new(op.shape()[position], "it is cut at positions that are not known")
        op.give(axes, zeros)
        return
    for place, start, end, step in ranges:
        size = axes[place].size
        if not isinstance(size, int) or size > LARGEST:
            if (start, step) != (0, 1) or end < np.iinfo(np.int32).max:
                op.freeze(axes[place], "it is cut, and its size is not known")
                axes[place] = op.new(op.shape()[place], "it is cut, and its size is not known")
            continue
        picked = np.arange(size)[slice(start, end, step)] if step > 0 else _backwards(size, start, end, step)
        if len(picked) == size and step == 1:
            continue
        part = op.new(len(picked))
        op.link(part, np.arange(len(picked)), axes[place], picked)
        axes[place] = part
    op.give(axes, zeros)


def _backwards(size: int, start: int, end: int, step: int) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    first = min(max(start + size if start < 0 else start, 0), size - 1)
    last = -1 if end < -size else min(end + size if end < 0 else end, size - 1)
    return np.arange(first, last, step)


def _fit_slice(fit: Fit) -> None:
    op = fit.op
    ranges = _slice_ranges(op)
    if ranges is None:
        return
    before, after = op.axes(0), fit.gives(0)
    cuts: list[tuple[int, int, int, int]] = []
    picks: list[tuple[int, np.ndarray[tuple[int, ...], np.dtype[np.int64]]]] = []
    for place, start, end, step in ranges:
        size = before[place].size
        is_changed = fit.changed(before[place]) or fit.changed(after[place])
        if not is_changed or not isinstance(size, int) or after[place].size == 0:
            cuts.append((place, start, end, step))
            continue
        picked = np.arange(size)[slice(start, end, step)] if step > 0 else _backwards(size, start, end, step)
        places = fit.moved(before[place], picked[fit.kept(after[place])])
        strides = np.diff(places)
        stride = int(strides[0]) if len(strides) else 1
        if stride > 0 and (strides == stride).all():
            cuts.append((place, int(places[0]), int(places[-1]) + 1, stride))
        else:
            picks.append((place, places))  # what is left lies at irregular places
    columns = [np.array([one[column] for one in cuts], np.int64) for column in range(4)]
    if op.opset < 10:
        for name, column in (("axes", 0), ("starts", 1), ("ends", 2)):
            fit.attribute(name, columns[column].tolist())
    else:
        for index, column in ((3, 0), (1, 1), (2, 2), (4, 3)):
            fit.constant(index, columns[column])
    for place, places in picks:
        fit.gather(place, places)


def _gather(op: Op) -> None:
    data, zeros = op.axes(0), op.zeros(0)
    axis = op.axis(0, len(data))
    indices, contents = op.axes(1), op.indices(1) if op.is_constant(1) else None
    op.keep(1)
    size = data[axis].size
    if contents is None or not isinstance(size, int):
        op.freeze(data[axis], "it is indexed at run time")
        picked: Axes = indices
    else:
        flat = contents.reshape(-1).astype(np.int64) % max(size, 1)
        if contents.ndim == 0:
            op.link(data[axis], flat, None)
            picked = ()
        else:
            joint = op.new(len(flat))
            picked = tuple([op.new(one) for one in contents.shape])
            op.align([joint], picked)
            op.link(joint, np.arange(len(flat)), data[axis], flat)
    op.channel(*data[axis + 1 :])
    op.give(
        [*data[:axis], *picked, *data[axis + 1 :]],
        [*zeros[:axis], *[contents is not None and zeros[axis]] * len(picked), *zeros[axis + 1 :]],
    )


def _fit_gather(fit: Fit) -> None:
    data = fit.op.axes(0)
    axis = fit.op.axis(0, len(data))
    contents = fit.op.indices(1) if fit.op.is_constant(1) else None
    picked = fit.gives(0)[axis : axis + (0 if contents is None else contents.ndim)]
    if contents is None or not (fit.changed(data[axis]) or any(map(fit.changed, picked))):
        return
    size = data[axis].size
    assert isinstance(size, int)
    for place, one in enumerate(picked):
        contents = contents.take(fit.kept(one), place)
    fit.constant(1, fit.moved(data[axis], contents % size).astype(contents.dtype))


def _pads(op: Op, rank: int) -> list[tuple[int, int]] | None:
    pads = op.integers("pads") if op.opset < 11 else op.ints(1)
    if pads is None:
        return None
    axes: tuple[int, ...] | None = tuple(range(rank))
    if op.has(3):
        axes = op.ints(3)
    if axes is None or len(pads) != 2 * len(axes):
        return None
    found = [(0, 0)] * rank
    for place, axis in enumerate(axes):
        found[axis % rank] = (pads[place], pads[place + len(axes)])
    return found


def _pad(op: Op) -> None:
    axes, zeros, shape = op.axes(0), op.zeros(0), op.shape()
    pads = _pads(op, len(axes))
    if pads is None:
        raise Unlinkable("Pad by unknown amounts")
    mode = op.node.attributes.get_string("mode", "constant")
    filled = op.node.attributes.get_float("value", 0.0) if op.opset < 11 else op.scalar(2) if op.has(2) else 0.0
    fills_zero = filled == 0 or mode != "constant" or not any(map(any, pads))
    result: list[Axis] = []
    flags: list[bool] = []
    for axis, zero, (begin, end), size in zip(axes, zeros, pads, shape, strict=True):
        if begin == end == 0:
            result.append(axis)
            flags.append(zero and fills_zero)
            continue
        if mode != "constant" or min(begin, end) < 0 or not isinstance(axis.size, int):
            op.freeze(axis, "positions are mixed with their neighbours")
            result.append(op.spatial(size))
            flags.append(False)
            continue
        padded = op.new(size)
        op.link_range(padded, begin, axis, 0, axis.size)
        result.append(padded)
        flags.append(zero and filled == 0)
    op.give(result, flags)


def _fit_pad(fit: Fit) -> None:
    op = fit.op
    before, after = op.axes(0), fit.gives(0)
    pads = _pads(op, len(before))
    if pads is None or not any(fit.changed(axis) for axis in after):
        return
    wanted = list(pads)
    for place, (begin, end) in enumerate(pads):
        size = before[place].size
        if not (begin == end == 0) and fit.changed(after[place]) and isinstance(size, int):
            kept = fit.kept(after[place])
            wanted[place] = (int(np.sum(kept < begin)), int(np.sum(kept >= begin + size)))
    flat = [begin for begin, _ in wanted] + [end for _, end in wanted]
    if op.opset < 11:
        fit.attribute("pads", flat)
        return
    if op.has(3):
        fit.constant(3, np.arange(len(before), dtype=np.int64))
    fit.constant(1, np.array(flat, np.int64))


TABLE: Table = {
    "Concat": Rule(_concat),
    "Gather": Rule(_gather, _fit_gather),
    "Pad": Rule(_pad, _fit_pad),
    "Slice": Rule(_slice, _fit_slice),
    "Split": Rule(_split, _fit_split),
}
