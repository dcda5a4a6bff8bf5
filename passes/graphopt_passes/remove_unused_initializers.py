"""Removes initializers that nothing reads."""

from __future__ import annotations

import dataclasses

import onnx_ir as ir

from graphopt.pipeline.base import Context, GraphPass, Outcome, Safety
from graphopt_passes._initializers import is_private, named_by_annotations

__all__ = ["RemoveUnusedInitializers"]


@dataclasses.dataclass(frozen=True)
class RemoveUnusedInitializers(GraphPass):
    """Removes initializers that nothing reads, in subgraphs too.

    What it does:
        An initializer goes away when no node of its graph, or of a subgraph nested in it, reads it.

    Before:
        ``y = Relu(x)`` with initializers ``w`` and ``b``

    After:
        ``y = Relu(x)``

    Does not apply when:
        - the initializer is a graph output, or a graph input that the caller may override: the interface stays;
        - a quantization annotation names it.

    Safety:
        Exact.
    """

    name = "remove-unused-initializers"
    safety = Safety.EXACT

    def run(self, model: ir.Model, context: Context) -> Outcome:
        unused = [
            (scope.graph, name)
            for scope in context.scopes()
            for name, value in scope.graph.initializers.items()
            if not value._uses and is_private(value)  # uses() would copy
        ]
        if not unused:
            return Outcome()
        annotated = named_by_annotations(context)
        unused = [(graph, name) for graph, name in unused if name not in annotated]
        for graph, name in unused:
            del graph.initializers[name]
        return Outcome(len(unused))
