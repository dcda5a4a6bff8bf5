"""Where constants are in a model, in a way that survives copying it."""

from __future__ import annotations

import collections
from typing import NamedTuple

import onnx_ir as ir

from graphopt import walk
from graphopt.analysis import constants

__all__ = ["Place", "constants_of"]


class Place(NamedTuple):
    """A constant of a model: its name, and which of those that have it (subgraphs side by side may repeat names)."""

    name: str
    number: int


def constants_of(model: ir.Model) -> dict[Place, ir.Value]:
    """The initializers and the outputs of Constant nodes of the main graph and its subgraphs."""
    seen: collections.Counter[str] = collections.Counter()
    found: dict[Place, ir.Value] = {}
    for scope in walk.within(walk.Scope(model.graph, model.opset_imports)):
        values = [value for value in scope.graph.initializers.values() if value.const_value is not None]
        values += [
            node.outputs[0]
            for node in scope.graph
            if node.op_type == "Constant" and constants.constant(node.outputs[0]) is not None
        ]
        for value in values:
            name = value.name or ""
            found[Place(name, seen[name])] = value
            seen[name] += 1
    return found
