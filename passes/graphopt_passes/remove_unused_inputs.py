"""Removes inputs of the model that nothing reads."""

from __future__ import annotations

import dataclasses

import onnx_ir as ir

from graphopt.pipeline.base import Context, GraphPass, Outcome, Safety
from graphopt_passes.eliminate_dead_nodes import EliminateDeadNodes

__all__ = ["RemoveUnusedInputs"]


@dataclasses.dataclass(frozen=True)
class RemoveUnusedInputs(GraphPass):
    """Removes inputs of the model that nothing reads, such as a mask that an export has no use for.

    What it does:
        The input goes away, and the caller must not feed it any more. So do nodes whose results nobody needs, first.
        It runs before all other passes.

    Before:
        ``(x, mask) => y { y = Relu(x) }``

    After:
        ``(x) => y { y = Relu(x) }``

    Does not apply when:
        - a node whose result is needed reads the input, in a subgraph too, or it is an output as well;
        - it is the input of a body or a function: who calls that passes it by its place.

    Safety:
        Lossy: what is lost is a part of the interface; the results stay. No preset includes it.
    """

    name = "remove-unused-inputs"
    safety = Safety.LOSSY

    def run(self, model: ir.Model, context: Context) -> Outcome:
        EliminateDeadNodes().run(model, context)
        inputs = model.graph.inputs
        unused = [value for value in inputs if not (value.uses() or value.is_graph_output() or value.is_initializer())]
        for value in unused:
            inputs.remove(value)
        return Outcome(len(unused))
