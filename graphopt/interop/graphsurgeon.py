"""onnx-graphsurgeon graphs, in and out, with a list of what they cannot hold."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx_ir as ir

from graphopt import proto, walk
from graphopt.errors import ModelError

if TYPE_CHECKING:
    import onnx_graphsurgeon as gs

__all__ = ["from_ir", "losses", "to_ir"]


def to_ir(graph: gs.Graph) -> ir.Model:
    """Converts a graphsurgeon graph, which stays untouched.

    Raises:
        ModelError: The graph is not a valid model.
    """
    import onnx_graphsurgeon as gs

    return proto.from_proto(gs.export_onnx(graph.copy()))


def from_ir(model: ir.Model, *, allow_loss: bool = False) -> gs.Graph:
    """Converts a model to a graphsurgeon graph.

    Args:
        model: The model; weights are read into memory, since graphsurgeon holds arrays.
        allow_loss: Go on although something is lost.

    Raises:
        ModelError: Something would be lost, and that was not allowed.
    """
    import onnx_graphsurgeon as gs

    lost = losses(model)
    if lost and not allow_loss:
        raise ModelError(
            f"a graphsurgeon graph cannot hold all of this model; lost would be: {'; '.join(lost)}",
            hint="Pass allow_loss=True to accept that, or work on an onnx_ir.Model or a file.",
        )
    return gs.import_onnx(proto.to_proto(model))


def losses(model: ir.Model) -> list[str]:
    """What a graphsurgeon graph would lose of ``model``, in words; empty if nothing."""
    found: dict[str, None] = {}
    if model.metadata_props:
        found["metadata of the model"] = None
    if model.doc_string:
        found["documentation of the model"] = None
    for scope in walk.scopes(model):
        values = [*scope.graph.inputs, *scope.graph.outputs]
        if any(value.is_graph_input() and value.is_initializer() for value in values):
            found["initializers that the caller may override"] = None
        if any(isinstance(value.type, ir.OptionalType) for value in values):
            found["optional types"] = None
        for node in scope.graph:
            if node.metadata_props:
                found["metadata of nodes"] = None
            if node.doc_string:
                found["documentation of nodes"] = None
            values += node.outputs
        if any(value.metadata_props for value in values):
            found["metadata of values"] = None
        if any(value.doc_string for value in values):
            found["documentation of values"] = None
        if any(isinstance(value.type, ir.SparseTensorType) for value in values):
            found["sparse tensors"] = None
    return list(found)
