"""Operators that move elements about: reshapes, transposes, repetitions, and the shapes they are told."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from graphopt.channels.axes import Axis, find, leaves
from graphopt.channels.op import Op, Unlinkable
from graphopt.channels.records import Axes
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
    "ConstantOfShape": Rule(_constant_of_shape, _fit_constant_of_shape),
    "DepthToSpace": Rule(_depth_to_space),
    "Expand": Rule(_expand, _fit_expand),
    "Flatten": Rule(_flatten),
    "GridSample": Rule(_sampled),
    "Reshape": Rule(_reshape, _fit_reshape),
    "Resize": Rule(_resize, _fit_resize),
    "RoiAlign": Rule(_sampled),
    "Shape": Rule(_shape, _fit_shape),
    "Size": Rule(_shape, _fit_shape),
    "SpaceToDepth": Rule(_space_to_depth),
    "Squeeze": Rule(_squeeze, _fit_squeeze),
    "Tile": Rule(_tile, _fit_tile),
    "Transpose": Rule(_transpose),
    "Trilu": Rule(_triangle),
    "Unsqueeze": Rule(_unsqueeze),
    "Upsample": Rule(_resize),
}
