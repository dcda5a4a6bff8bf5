"""Operators that move elements about: reshapes, transposes, joins and cuts, and the shapes they are told."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from graphopt.channels.axes import Axis, find, leaves
from graphopt.channels.linker import Axes, Op, Unlinkable
from graphopt.channels.rules.rule import Rule, Table

if TYPE_CHECKING:
    from graphopt.channels.fitting import Fit

__all__ = ["TABLE", "regroup"]


def regroup(op: Op, source: Axes, zeros: tuple[bool, ...], target: Axes, output: int = 0) -> None:
    """The output has the elements of ``source`` in the same order under the axes ``target``."""
    op.align(source, target)
    having: dict[Axis, list[bool]] = {}
    for axis, zero in zip(source, zeros, strict=True):
        for leaf in leaves(axis):
            having.setdefault(find(leaf), []).append(zero)
    flags = []
    for axis in target:
        own = [having.get(find(leaf), [False]) for leaf in leaves(axis) if leaf.size != 1]
        flags.append(all(all(one) for one in own))
    op.give(target, flags, output)


def _reshape(op: Op) -> None:
    target = tuple([op.new(size) for size in op.shape()])
    source, zeros = op.axes(0), op.zeros(0)
    regroup(op, source, zeros, target)


def _fit_reshape(fit: Fit) -> None:
    if "shape" in fit.op.node.attributes:  # before opset 5
        sizes = fit.op.integers("shape") or ()
        wanted = [size if size < 1 else fit.static(axis) for size, axis in zip(sizes, fit.gives(0), strict=True)]
        fit.attribute("shape", wanted)
        return
    fit.target(1, fit.gives(0), inferable=True)


def _transpose(op: Op) -> None:
    axes, zeros = op.axes(0), op.zeros(0)
    order = op.integers("perm") or tuple(reversed(range(len(axes))))
    op.give([axes[place] for place in order], [zeros[place] for place in order])


def _squeeze(op: Op) -> None:
    axes, zeros = op.axes(0), op.zeros(0)
    named = op.ints(1) if op.has(1) else op.integers("axes")
    if named is None:
        if op.has(1) or any(not isinstance(axis.size, int) for axis in axes):
            raise Unlinkable("Squeeze of unknown axes")
        named = tuple([index for index, axis in enumerate(axes) if axis.size == 1])
    gone = {index % len(axes) for index in named}
    kept = [index for index in range(len(axes)) if index not in gone]
    op.give([axes[index] for index in kept], [zeros[index] for index in kept])


def _fit_squeeze(fit: Fit) -> None:
    """Without axes the operator takes away all of size 1, of which there may be more now."""
    if fit.op.has(1) or "axes" in fit.op.node.attributes:
        return
    gone = [index for index, axis in enumerate(fit.op.axes(0)) if axis.size == 1]
    if fit.op.opset < 13:
        fit.attribute("axes", gone)
    else:
        fit.constant(1, np.array(gone, np.int64))


def _unsqueeze(op: Op) -> None:
    axes, zeros = list(op.axes(0)), list(op.zeros(0))
    named = op.ints(1) if op.has(1) else op.integers("axes")
    if named is None:
        raise Unlinkable("Unsqueeze of unknown axes")
    rank = len(axes) + len(named)
    for index in sorted(place % rank for place in named):
        axes.insert(index, op.new(1))
        zeros.insert(index, False)
    op.give(axes, zeros)


def _concat(op: Op) -> None:
    inputs = [op.axes(index) for index in range(len(op.node.inputs))]
    rank = len(inputs[0])
    axis = op.axis(0, 0, rank)
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
    axis = op.axis(0, 0, len(axes))
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
    axis = fit.op.axis(0, 0, len(fit.op.axes(0)))
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
        if not isinstance(size, int):
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
    axis = op.axis(0, 0, len(data))
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
    axis = fit.op.axis(0, 0, len(data))
    contents = fit.op.indices(1) if fit.op.is_constant(1) else None
    picked = fit.gives(0)[axis : axis + (0 if contents is None else contents.ndim)]
    if contents is None or not (fit.changed(data[axis]) or any(map(fit.changed, picked))):
        return
    size = data[axis].size
    assert isinstance(size, int)
    for place, one in enumerate(picked):
        contents = contents.take(fit.kept(one), place)
    fit.constant(1, fit.moved(data[axis], contents % size).astype(contents.dtype))


def _expand(op: Op) -> None:
    axes, zeros, shape = op.axes(0), op.zeros(0), op.shape()
    result: list[Axis] = []
    flags: list[bool] = []
    for place, size in enumerate(shape):
        own = place - len(shape) + len(axes)
        if own >= 0 and axes[own].size != 1:
            if axes[own].size != size:
                op.freeze(axes[own], "it meets an axis of unknown size")
            result.append(axes[own] if axes[own].size == size else op.new(size, "it meets an axis of unknown size"))
            flags.append(zeros[own])
        else:
            result.append(op.new(size))
            flags.append(False)
    op.give(result, flags)


def _fit_expand(fit: Fit) -> None:
    fit.target(1, fit.gives(0), inferable=False)


def _tile(op: Op) -> None:
    axes, zeros, repeats = op.axes(0), op.zeros(0), op.data(1)
    if repeats is None or len(repeats) != len(axes):
        raise Unlinkable("Tile with unknown repeats")
    result, flags = [], []
    for axis, zero, repeat, size in zip(axes, zeros, repeats, op.shape(), strict=True):
        if repeat == 1:
            result.append(axis)
            flags.append(zero)
        elif axis.size == 1:
            result.append(op.new(size, "" if op.ints(1) else "it is repeated as often as the model says"))
            flags.append(False)
        else:  # of two factors of which one alone is zero when masked, the other must stay
            tiled = op.new(size)
            op.align([tiled], [op.new(repeat, "it counts copies"), axis])
            result.append(tiled)
            flags.append(zero)
    op.give(result, flags)


def _fit_tile(fit: Fit) -> None:
    """Only an axis of size 1 is repeated another number of times: as many as the result is long."""
    repeats = fit.op.ints(1)
    if repeats is not None and any(map(fit.changed, fit.gives(0))):
        pairs = zip(fit.op.axes(0), fit.gives(0), repeats, strict=True)
        wanted = [fit.static(b) if a.size == 1 and r != 1 else r for a, b, r in pairs]
        fit.constant(1, np.array(wanted, np.int64))


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


def _flatten(op: Op) -> None:
    source = op.axes(0)
    regroup(op, source, op.zeros(0), tuple([op.new(size) for size in op.shape()]))


def _shape(op: Op) -> None:
    """The extents themselves are no lanes; :func:`_fit_shape` keeps what is computed from them as it was."""
    op.axes(0)
    if op.node.outputs[0].is_graph_output():
        raise Unlinkable("its size is part of an output")
    op.give([op.new(size, "it counts axes") for size in op.shape()])


def _fit_shape(fit: Fit) -> None:
    fit.pin(fit.op.axes(0))


def _constant_of_shape(op: Op) -> None:
    if op.data(0) is None:
        raise Unlinkable("ConstantOfShape of an unknown shape")
    attribute = op.node.attributes.get("value")
    value = 0.0 if attribute is None else float(attribute.as_tensor().numpy().reshape(-1)[0])
    if op.is_constant(0):  # a weight in short form: masking zeroes its lanes like those of any other
        op.linker.generated.append(op.node.outputs[0])
    op.give([op.new(size) for size in op.shape()], value == 0 or op.is_constant(0))


def _fit_constant_of_shape(fit: Fit) -> None:
    fit.target(0, fit.gives(0), inferable=False)


def _depth_to_space(op: Op) -> None:
    axes, shape = op.axes(0), op.shape()
    block = op.integer("blocksize", 1)
    inner = op.new(shape[1])
    blocks = [op.new(block, "positions are mixed with their neighbours") for _ in range(2)]
    crd = op.node.attributes.get_string("mode", "DCR") == "CRD"
    op.align([axes[1]], [inner, *blocks] if crd else [*blocks, inner])
    for axis in axes[2:]:
        op.freeze(axis, "positions are mixed with their neighbours")
    zeros = op.zeros(0)
    op.give([axes[0], inner, *[op.spatial(size) for size in shape[2:]]], [zeros[0], zeros[1], False, False])


def _space_to_depth(op: Op) -> None:
    axes, shape = op.axes(0), op.shape()
    block = op.integer("blocksize", 1)
    joint = op.new(shape[1])
    blocks = [op.new(block, "positions are mixed with their neighbours") for _ in range(2)]
    op.align([joint], [*blocks, axes[1]])
    for axis in axes[2:]:
        op.freeze(axis, "positions are mixed with their neighbours")
    zeros = op.zeros(0)
    op.give([axes[0], joint, *[op.spatial(size) for size in shape[2:]]], [zeros[0], zeros[1], False, False])


def _resize(op: Op) -> None:
    axes, zeros, shape = op.axes(0), op.zeros(0), op.shape()
    result: list[Axis] = []
    flags: list[bool] = []
    for place, (axis, size) in enumerate(zip(axes, shape, strict=True)):
        if place < 2 and axis.size == size:
            result.append(axis)
            flags.append(zeros[place])
        else:
            op.freeze(axis, "positions are mixed with their neighbours")
            result.append(op.spatial(size))
            flags.append(False)
    op.give(result, flags)


def _fit_resize(fit: Fit) -> None:
    if not fit.op.has(3):
        return
    axes = fit.gives(0)
    named = fit.op.integers("axes")
    fit.target(3, axes if named is None else tuple([axes[place % len(axes)] for place in named]), inferable=False)


def _sampled(op: Op) -> None:
    """GridSample, RoiAlign: positions are looked up, channels stay."""
    axes, places, shape = op.axes(0), op.axes(1), op.shape()
    for axis in (*axes[2:], *places[1:]):
        op.freeze(axis, "positions are mixed with their neighbours")
    if op.node.op_type == "GridSample":
        op.unite(axes[0], places[0])
    else:
        op.freeze(axes[0], "it is indexed at run time")
        op.unite(places[0], op.axes(2)[0])
        op.keep(2)
    spatial = [op.spatial(size) for size in shape[2:]]
    op.give([places[0], axes[1], *spatial], [False, op.is_zero(0, 1), *[False] * len(spatial)])


def _triangle(op: Op) -> None:
    for axis in op.axes(0)[-2:]:
        op.freeze(axis, "a triangle is cut out of it")
    op.give(op.axes(0), op.zeros(0))


TABLE: Table = {
    "Concat": Rule(_concat),
    "ConstantOfShape": Rule(_constant_of_shape, _fit_constant_of_shape),
    "DepthToSpace": Rule(_depth_to_space),
    "Expand": Rule(_expand, _fit_expand),
    "Flatten": Rule(_flatten),
    "Gather": Rule(_gather, _fit_gather),
    "GridSample": Rule(_sampled),
    "Pad": Rule(_pad, _fit_pad),
    "Reshape": Rule(_reshape, _fit_reshape),
    "Resize": Rule(_resize, _fit_resize),
    "RoiAlign": Rule(_sampled),
    "Shape": Rule(_shape, _fit_shape),
    "Size": Rule(_shape, _fit_shape),
    "Slice": Rule(_slice, _fit_slice),
    "SpaceToDepth": Rule(_space_to_depth),
    "Split": Rule(_split, _fit_split),
    "Squeeze": Rule(_squeeze, _fit_squeeze),
    "Tile": Rule(_tile, _fit_tile),
    "Transpose": Rule(_transpose),
    "Trilu": Rule(_triangle),
    "Unsqueeze": Rule(_unsqueeze),
    "Upsample": Rule(_resize),
}
