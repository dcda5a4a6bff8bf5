"""Turns Constant nodes into initializers."""

from __future__ import annotations

import dataclasses

import onnx_ir as ir

from graphopt import walk
from graphopt.analysis.constants import tensor_of_constant_node
from graphopt.pipeline.base import Context, GraphPass, Outcome, Safety
from graphopt.rewrite import edit

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

    def run(self, model: ir.Model, context: Context) -> Outcome:
        count = 0
        touched: list[ir.Node] = []
        for scope in walk.scopes(model):
            if scope.function is not None:
                continue
            for node in [node for node in scope.graph if node.op_type == "Constant" and not node.domain]:
                tensor = tensor_of_constant_node(node)
                old = node.outputs[0]
                if tensor is None or old.is_graph_output():
                    continue
                name, old.name = old.name, None
                tensor.name = name
                new = edit.constant_value(name, tensor)
                scope.graph.register_initializer(new)
                touched += edit.redirect(old, new)
                edit.erase(node)
                count += 1
        return Outcome(count, touched)
