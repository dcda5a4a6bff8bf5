"""Which values are the same in every run, by linear propagation of constants through deterministic nodes."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

from graphopt import walk
from graphopt.analysis import constants, effects

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["NEVER_FOLDED", "constant_values", "initializer_inputs_are_fixed"]

NEVER_FOLDED = frozenset({"DequantizeLinear"})
"""Folding these would undo a compression that the runtime makes use of."""

_FIRST_IR_WITH_OVERRIDES = 4


def initializer_inputs_are_fixed(model: ir.Model) -> bool:
    """Whether an initializer listed as a graph input is fixed nonetheless: older IR versions demanded the listing."""
    return bool(model.ir_version) and model.ir_version < _FIRST_IR_WITH_OVERRIDES


def constant_values(
    model: ir.Model,
    *,
    overridable: bool = False,
    barriers: Collection[str] = (),
    known: Callable[[ir.Node], bool] | None = None,
) -> set[ir.Value]:
    """Every value that no input can change.

    Args:
        model: The model; nothing is computed and no weight is read.
        overridable: Whether initializers that the caller may override count as constant.
        barriers: Operators whose results do not count even where their inputs are constant.
        known: Whether a node's result is known though its inputs are not (the Shape of a static value).
    """
    overridable = overridable or initializer_inputs_are_fixed(model)
    found: set[ir.Value] = set()
    for scope in walk.scopes(model):
        found.update(value for value in scope.graph.initializers.values() if overridable or not value.is_graph_input())
        for node in scope.graph:
            if _is_constant(node, found, barriers) or (known is not None and known(node)):
                found.update(node.outputs)
    return found


def _is_constant(node: ir.Node, found: set[ir.Value], barriers: Collection[str]) -> bool:
    if node.op_type == "Constant" and not node.domain:
        return constants.tensor_of_constant_node(node) is not None or "sparse_value" in node.attributes
    if node.op_type in barriers or any(value is not None and value not in found for value in node.inputs):
        return False
    if not effects.is_deterministic(node):
        return False
    return all(value in found for graph in walk.subgraphs(node) for value in walk.captures(graph))
