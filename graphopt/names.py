"""Fresh names for the values and nodes that rewrites create."""

from __future__ import annotations

import onnx_ir as ir

from graphopt import walk
from graphopt.proto.tails import Tail

__all__ = ["Names"]


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
