"""Inputs and outputs that may shrink: which do, and how the masked model is compared with the pruned one then."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterable

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from graphopt.channels.atoms import Indices, Mask
from graphopt.channels.groups import ChannelGraph
from graphopt.errors import UsageError

__all__ = ["matcher", "narrowed"]


def matcher(model: ir.Model, patterns: Iterable[str]) -> Callable[[str], bool]:
    """Whether the name of an input or output matches one of some shell patterns.

    Raises:
        UsageError: A pattern matches none.
    """
    patterns = list(patterns)
    names = [value.name or "" for value in (*model.graph.inputs, *model.graph.outputs)]
    for pattern in patterns:
        if not any(fnmatch.fnmatchcase(name, pattern) for name in names):
            raise UsageError(f"no input or output matches '{pattern}'", hint=f"They are {', '.join(names)}.")
    return lambda name: any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def narrowed(graph: ChannelGraph, gone: Mask, masked: ir.Model) -> ir.Model:
    """The masked model with the inputs and outputs of the pruned one; changes it.

    What is missing of an input is filled with any other lane, since nothing comes of it; lanes that are gone are taken
    out of the outputs.
    """
    for original, value in zip(graph.model.graph.inputs, masked.graph.inputs, strict=True):
        users = list(value.uses())
        current = value
        for axis, kept, size in _narrower(graph, gone, original):
            moved = np.zeros(size, np.int64)
            moved[kept] = np.arange(len(kept))
            current = _gather(masked, current, moved, axis, before=True)
            _declare(value, axis, len(kept))
        for user, index in users:
            user.replace_input_with(index, current)
    for place, original in enumerate(graph.model.graph.outputs):
        value = masked.graph.outputs[place]
        for axis, kept, _ in _narrower(graph, gone, original):
            name, value.name = value.name, f"{value.name}.masked"
            picked = _gather(masked, value, kept, axis, before=False)
            picked.name, picked.type, picked.shape = name, value.type, value.shape
            masked.graph.outputs[place] = picked
            _declare(picked, axis, len(kept))
            value = picked
    return masked


def _narrower(graph: ChannelGraph, gone: Mask, value: ir.Value) -> list[tuple[int, Indices, int]]:
    found = []
    for place, axis in enumerate(graph.linker.of(value) or ()):
        kept = graph.kept(axis, gone)
        if kept is not None and isinstance(axis.size, int):
            found.append((place, kept, axis.size))
    return found


def _gather(model: ir.Model, value: ir.Value, indices: npt.NDArray[np.int64], axis: int, *, before: bool) -> ir.Value:
    name = f"{value.name}.lanes{axis}"
    constant = ir.Value(
        name=name, shape=ir.Shape(indices.shape), type=ir.TensorType(ir.DataType.INT64), const_value=ir.tensor(indices)
    )
    model.graph.register_initializer(constant)
    node = ir.node("Gather", [value, constant], {"axis": axis}, name=f"{name}.gather")
    node.outputs[0].name = node.name
    producer = value.producer()
    if producer is not None:
        model.graph.insert_after(producer, node)
    elif before and len(model.graph):
        model.graph.insert_before(model.graph[0], node)
    else:
        model.graph.append(node)
    return node.outputs[0]


def _declare(value: ir.Value, axis: int, size: int) -> None:
    if value.shape is not None:
        dims = list(value.shape.dims)
        dims[axis] = size
        value.shape = ir.Shape(dims)
