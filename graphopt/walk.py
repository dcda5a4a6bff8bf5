"""The one traversal: every graph, nested subgraph and function body of a model."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

import onnx_ir as ir

__all__ = ["Scope", "captures", "nodes", "scopes", "subgraphs", "within"]

_GRAPH, _GRAPHS = ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Scope:
    """A list of nodes that see the same names.

    Attributes:
        graph: The nodes, in execution order.
        opset: Operator-set version by domain (``""`` is ONNX's own).
        function: The function whose body this is, or contains this subgraph; ``None`` in the main graph.
        owner: The node (If, Loop, Scan, ...) that holds this subgraph; ``None`` at the top of a graph or function.
    """

    graph: ir.Graph
    opset: Mapping[str, int]
    function: ir.Function | None = None
    owner: ir.Node | None = None


def subgraphs(node: ir.Node) -> Sequence[ir.Graph]:
    """The graphs that ``node`` holds in its attributes, not deeper."""
    # ``data`` is the plain dict inside; this runs for every node of every walk.
    holders = [one for one in node._attributes.data.values() if one._type is _GRAPH or one._type is _GRAPHS]
    if not holders:
        return ()
    return [
        graph
        for attribute in holders
        if not attribute.is_ref()
        for graph in ([attribute.as_graph()] if attribute.type == ir.AttributeType.GRAPH else attribute.as_graphs())
    ]


def within(scope: Scope) -> Iterator[Scope]:
    """``scope`` and everything nested in it, outermost first."""
    stack = [scope]
    while stack:
        current = stack.pop()
        yield current
        inner = [
            Scope(graph, current.opset, current.function, node)
            for node in current.graph
            if node._attributes.data
            for graph in subgraphs(node)
        ]
        stack.extend(reversed(inner))


def scopes(model: ir.Model) -> Iterator[Scope]:
    """Every scope of ``model``: the main graph and its subgraphs, then each function and its subgraphs."""
    yield from within(Scope(model.graph, model.opset_imports))
    for function in model.functions.values():
        yield from within(Scope(function.graph, function.opset_imports, function))


def nodes(model: ir.Model) -> Iterator[ir.Node]:
    """Every node of ``model``, wherever it is nested."""
    for scope in scopes(model):
        yield from scope.graph


def captures(graph: ir.Graph) -> list[ir.Value]:
    """The outer values that ``graph`` and what is nested in it read, each once, in the order of first use."""
    own = {graph}
    found: dict[ir.Value, None] = {}
    for scope in within(Scope(graph, {})):
        own.add(scope.graph)
        for node in scope.graph:
            found.update(dict.fromkeys(value for value in node.inputs if value is not None))
        found.update(dict.fromkeys(scope.graph.outputs))
    return [value for value in found if value.graph not in own]
