"""Where constants are in a model, in a way that survives copying it and inlining its functions."""

from __future__ import annotations

import collections
from collections.abc import Iterator
from typing import NamedTuple

import onnx_ir as ir

from graphopt import walk
from graphopt.analysis import constants

__all__ = ["Place", "constants_of", "mark", "marked"]

_MARK = "graphopt.torch.place"  # in `meta`, which copies carry along and files do not


class Place(NamedTuple):
    """A constant of a model: its name, and which of those that have it (scopes side by side may repeat names)."""

    name: str
    number: int


def constants_of(model: ir.Model) -> dict[Place, ir.Value]:
    """The initializers and the outputs of Constant nodes of the main graph, its subgraphs and the functions."""
    seen: collections.Counter[str] = collections.Counter()
    found: dict[Place, ir.Value] = {}
    for value in _constants(model):
        name = value.name or ""
        found[Place(name, seen[name])] = value
        seen[name] += 1
    return found


def mark(model: ir.Model) -> None:
    """Writes its place on every constant, for :func:`marked` to read in a copy."""
    for place, value in constants_of(model).items():
        value.meta[_MARK] = place


def marked(model: ir.Model) -> dict[ir.Value, Place]:
    """The place of each constant of a copy; copies of a function's body share theirs."""
    return {value: value.meta[_MARK] for value in _constants(model) if _MARK in value.meta}


def _constants(model: ir.Model) -> Iterator[ir.Value]:
    for scope in walk.scopes(model):
        yield from (value for value in scope.graph.initializers.values() if value.const_value is not None)
        for node in scope.graph:
            if node.op_type == "Constant" and constants.constant(node.outputs[0]) is not None:
                yield node.outputs[0]
