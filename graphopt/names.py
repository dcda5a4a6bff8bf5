"""What nodes are called, and fresh names for the values and nodes that rewrites create."""

from __future__ import annotations

import onnx_ir as ir

from graphopt import walk
from graphopt.proto.tails import Tail

__all__ = ["Names", "key", "label", "operator"]


class Names:
    """Every name a model uses, so that a new one collides with none of them, in any scope.

    ONNX forbids a subgraph to reuse an outer name, so one set serves the whole model.
    """

    def __init__(self, model: ir.Model) -> None:
        used: set[str | None] = set()
        for scope in walk.scopes(model):
            used.update(value.name for value in scope.graph.inputs)
            used.update(scope.graph.initializers)
            for node in scope.graph:
                used.add(node.name)
                used.update([output.name for output in node.outputs])
        tail = Tail.of(model)
        if tail is not None:
            used.update(tail.inner)  # put back at save
        self._used = used
        self._next: dict[str, int] = {}

    def fresh(self, base: str | None) -> str:
        """A name not used so far: ``base`` itself, else ``base_1``, ``base_2``, ..."""
        base = base or "value"
        name, number = base, self._next.get(base, 0)
        while name in self._used:
            number += 1
            name = f"{base}_{number}"
        self._next[base] = number
        self._used.add(name)
        return name


def operator(node: ir.Node) -> str:
    """The operator with its domain, where that is not ONNX's own."""
    return f"{node.domain}::{node.op_type}" if node.domain not in ("", "ai.onnx") else node.op_type


def key(node: ir.Node) -> str:
    """The operator as passes write it: ``domain::op`` outside ONNX's own domain."""
    return f"{node._domain}::{node._op_type}" if node._domain else node._op_type


def label(node: ir.Node) -> str:
    """The node's name, or else the name of the first value it gives."""
    return node.name or next((value.name for value in node.outputs if value.name), "") or node.op_type
