"""Removes lanes from every tensor that has them."""

from __future__ import annotations

import collections

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from graphopt.channels.fitting import Fit
from graphopt.channels.groups import ChannelGraph
from graphopt.channels.records import Axes, Place
from graphopt.channels.rules import RULES
from graphopt.channels.tensors import sliced
from graphopt.channels.workpiece import Workpiece
from graphopt.names import operator

__all__ = ["carve", "constants_of", "cut"]

Indices = npt.NDArray[np.int64]
Gone = npt.NDArray[np.bool_]


def cut(graph: ChannelGraph, gone: Gone) -> ir.Model:
    """A copy of the graph's model without the atoms ``gone``; the original is not changed."""
    workpiece = Workpiece(graph.model)
    carve(graph, gone, workpiece)
    workpiece.remove_orphans()
    return workpiece.model


def carve(graph: ChannelGraph, gone: Gone, workpiece: Workpiece) -> None:
    """Takes the atoms ``gone`` out of a copy of the graph's model."""
    _slice_constants(graph, gone, workpiece)
    linker = graph.linker
    for value, axes in linker.axes.items():
        if axes and not value.is_initializer():
            _declare(graph, gone, workpiece.value(value), axes)
    for node in linker.nodes:
        rule = RULES.get(operator(node))
        if rule is not None and rule.fit is not None and _touches(graph, gone, node):
            rule.fit(Fit(graph, gone, workpiece, node))


def _touches(graph: ChannelGraph, gone: Gone, node: ir.Node) -> bool:
    linker = graph.linker
    for value in (*node.inputs, *node.outputs):
        for axis in (value is not None and linker.axes.get(value)) or ():
            _, before, after = graph.size(axis, gone)
            if before != after:
                return True
    return False


def _declare(graph: ChannelGraph, gone: Gone, value: ir.Value, axes: Axes) -> None:
    """Corrects the declared shape of a value."""
    if value.shape is None or len(value.shape) != len(axes):
        return
    dims: list[int | ir.SymbolicDim | str | None] = list(value.shape.dims)
    changed = False
    for place, axis in enumerate(axes):
        size, before, after = graph.size(axis, gone)
        if before != after:
            dims[place] = size // before * after if isinstance(size, int) else None
            changed = True
    if changed:
        value.shape = ir.Shape(dims)


def constants_of(graph: ChannelGraph) -> dict[ir.Value, dict[Place, Axes]]:
    """The axes of each constant, by where it is read."""
    found: dict[ir.Value, dict[Place, Axes]] = collections.defaultdict(dict)
    for place, axes in graph.linker.constants.items():
        found[place.value][place] = axes
    return found


def _slice_constants(graph: ChannelGraph, gone: Gone, workpiece: Workpiece) -> None:
    for value, places in constants_of(graph).items():
        kept = {place: [graph.kept(axis, gone) for axis in axes] for place, axes in places.items()}
        if any(one is not None for many in kept.values() for one in many):
            _slice_constant(graph, value, kept, workpiece)


def _slice_constant(
    graph: ChannelGraph, value: ir.Value, kept: dict[Place, list[Indices | None]], workpiece: Workpiece
) -> None:
    """Readers that keep the same places share a tensor; the first keep the name."""
    tensor = graph.linker.constant(value)
    assert tensor is not None
    copy = workpiece.value(value)
    variants: dict[tuple[bytes | None, ...], list[tuple[ir.Node, int]]] = collections.defaultdict(list)
    chosen: dict[tuple[bytes | None, ...], list[Indices | None]] = {}
    for user, index in value.uses():
        own = kept.get(Place(user, index, value), kept.get(Place(None, 0, value), [None] * len(tensor.shape)))
        key = tuple(None if one is None else one.tobytes() for one in own)
        variants[key].append((user, index))
        chosen[key] = own
    in_place = value.is_initializer() and not value.is_graph_output()
    for key in variants:
        if all(one is None for one in chosen[key]):
            in_place = False  # who needs it whole keeps it
    for key, users in variants.items():
        if all(one is None for one in chosen[key]):
            continue
        smaller = sliced(tensor, chosen[key])
        if in_place:
            copy.const_value = smaller
            copy.shape = ir.Shape(smaller.shape.numpy())
            in_place = False
            continue
        new = workpiece.constant(workpiece.node(users[0][0]), smaller, value.name)
        for user, index in users:
            if workpiece.node(user).graph is new.graph:
                workpiece.replace_input(user, index, new)
            else:
                workpiece.replace_input(user, index, workpiece.constant(workpiece.node(user), smaller, value.name))
