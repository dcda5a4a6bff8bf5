"""What the passes over initializers share: which of them may go, and what names them besides nodes."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_ir as ir

    from graphopt.pipeline.base import Context


__all__ = ["is_private", "named_by_annotations"]

_ANNOTATION = "quant_parameter_tensor_names"
"""Where onnx_ir keeps the names of the scale and zero-point tensors of a quantization annotation."""


def is_private(value: ir.Value) -> bool:
    """Whether only nodes can see the initializer: no caller can override it, and it is no result."""
    return not (value.is_graph_input() or value.is_graph_output())


def named_by_annotations(context: Context) -> set[str]:
    """Names of the initializers that quantization annotations refer to; these show in no node's inputs."""
    names: set[str] = set()
    for scope in context.scopes():
        values = [*scope.graph.inputs, *scope.graph.initializers.values()]
        for node in scope.graph:
            values += node.outputs
        for value in values:
            store = value._metadata  # `meta` would create a store for each value
            if store:
                names.update(store.get(_ANNOTATION, {}).values())
    return names
