"""The model without model-local functions: every call replaced by what it calls."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from graphopt import walk
from graphopt.errors import LimitReached, ModelError

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["inlined"]

_MOST_NODES: Final = 1_000_000


def inlined(model: ir.Model) -> ir.Model:
    """A copy with all calls inlined; the model itself where there are no functions.

    Raises:
        ModelError: A function calls itself, or a call has more operands than its function.
        LimitReached: The copy would have more than a million nodes: functions that call functions grow exponentially.
    """
    if not model.functions:
        return model
    from onnx_ir.passes.common import InlinePass

    sizes = _sizes(model)
    total = sum(sizes.get(node.op_identifier(), 1) for node in _nodes(model.graph, model))
    if total > _MOST_NODES:
        raise LimitReached(f"without its functions the model has {total:,} nodes, more than {_MOST_NODES:,}")
    return InlinePass()(model.clone()).model


def _sizes(model: ir.Model) -> dict[ir.OperatorIdentifier, int]:
    """The nodes of each function, of those that it calls included."""
    sizes: dict[ir.OperatorIdentifier, int] = {}
    waiting = list(model.functions)
    begun = set()
    while waiting:
        key = waiting[-1]
        called = [node.op_identifier() for node in _nodes(model.functions[key].graph, model)]
        unknown = [other for other in called if other in model.functions and other not in sizes]
        if key in sizes or not unknown:
            sizes.setdefault(key, sum(sizes.get(other, 1) for other in called))
            waiting.pop()
        elif key in begun:
            raise ModelError(f"function '{key[0]}::{key[1]}' calls itself")
        else:
            begun.add(key)
            waiting += unknown
    return sizes


def _nodes(graph: ir.Graph, model: ir.Model) -> Iterator[ir.Node]:
    """The nodes of a graph and its subgraphs; calls among them fit what they call."""
    graphs = [graph]
    while graphs:
        for node in graphs.pop():
            graphs += walk.subgraphs(node)
            function = model.functions.get(node.op_identifier())
            if function is not None and (
                len(node.inputs) > len(function.inputs) or len(node.outputs) > len(function.outputs)
            ):
                raise ModelError(f"the call of '{node.domain}::{node.op_type}' has more operands than the function")
            yield node
