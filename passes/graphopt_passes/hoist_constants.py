"""Turns Constant nodes into initializers."""

from __future__ import annotations

import dataclasses

import onnx_ir as ir

from graphopt.analysis.constants import tensor_of_constant_node
from graphopt.pipeline.base import Context, GraphPass, Outcome, Safety

__all__ = ["HoistConstants"]


@dataclasses.dataclass(frozen=True)
class HoistConstants(GraphPass):
    """Turns Constant nodes into initializers of the same graph.

    What it does:
        The tensor moves from the node's attribute to the graph; the value keeps its name.

    Before:
        ``w = Constant <value = ...> (); y = Add(x, w)``

    After:
        ``y = Add(x, w)`` with initializer ``w``

    Does not apply when:
        - the constant is a graph output (some runtimes want a node there);
        - the node is in a function, where there are no initializers, or its value is sparse or bound to an attribute
          of the function.

    Safety:
        Exact.
    """

    name = "hoist-constants"
    safety = Safety.EXACT
    needs = frozenset({"Constant"})

    def run(self, model: ir.Model, context: Context) -> Outcome:
        count = 0
        touched: list[ir.Node] = []
        for scope in context.scopes():
            if scope.function is not None:
                continue
            hoisted: list[ir.Node] = []
            for node in scope.graph:
                if node._op_type != "Constant" or node.domain or node.outputs[0].is_graph_output():
                    continue
                tensor = tensor_of_constant_node(node)
                if tensor is not None:
                    _detach(node.outputs[0], tensor)
                    hoisted.append(node)
            for node in hoisted:
                touched += node.outputs[0].consumers()
                scope.graph.register_initializer(node.outputs[0])
            scope.graph.remove(hoisted)
            count += len(hoisted)
        return Outcome(count, touched)


def _detach(value: ir.Value, tensor: ir.TensorProtocol) -> None:
    """Makes the output of a Constant node a value of its own: a new one would have to be put into each reader."""
    value._producer = value._index = None
    tensor.name = value.name
    value.const_value = tensor
    value.shape, value.type = ir.Shape(tensor.shape.numpy()), ir.TensorType(tensor.dtype)
