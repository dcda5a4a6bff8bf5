"""Whether a model hangs together: what every graph, subgraph and function body must satisfy before anyone runs it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx_ir as ir

from graphopt import walk
from graphopt.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["check"]

_Visible = dict[str, ir.Value]


def check(model: ir.Model) -> None:
    """Check names and order in all scopes; linear in the size of the model.

    A value is assigned once, before it is used, in the scope that uses it or one around it, under a name that no
    other value visible there has. Names and objects must agree: a file is bound by names, a pass by objects.

    Raises:
        ModelError: The first violation, naming the node and the value.
    """
    roots = [("graph", model.graph)]
    roots += [(f"function '{function.name}'", function.graph) for function in model.functions.values()]
    for where, graph in roots:
        visible: _Visible = {}
        stack = [_check_graph(graph, visible, where)]
        while stack:  # not by recursion: models nest deeper than Python does
            inner = next(stack[-1], None)
            if inner is None:
                stack.pop()
            else:
                stack.append(_check_graph(inner[0], visible, inner[1]))


def _check_graph(graph: ir.Graph, visible: _Visible, where: str) -> Iterator[tuple[ir.Graph, str]]:
    """Check one graph; yields its subgraphs where they stand, when ``visible`` holds what they can see."""
    own: list[str] = []
    for name, value in graph.initializers.items():
        if name != value.name:
            raise ModelError(f"{where}: initializer '{value.name}' is registered as '{name}'")
        if value.const_value is None:
            raise ModelError(f"{where}: initializer '{name}' has no value")
    for value in dict.fromkeys((*graph.inputs, *graph.initializers.values())):
        _define(value, visible, own, f"{where}: an input or initializer")
    if len(set(graph.inputs)) != len(graph.inputs):
        raise ModelError(f"{where}: an input is listed twice")
    for node in graph:
        at = f"{where}: {_describe(node)}"
        for used in node.inputs:
            if used is not None:
                _use(used, visible, graph, at)
        for subgraph in walk.subgraphs(node):
            yield subgraph, f"{at}, subgraph '{subgraph.name or ''}'"
        for output in node.outputs:
            if output.name != "":
                _define(output, visible, own, at)
    for value in graph.outputs:
        _use(value, visible, graph, f"{where}: a graph output")
    for name in own:
        del visible[name]


def _define(value: ir.Value, visible: _Visible, own: list[str], at: str) -> None:
    if not value.name:
        raise ModelError(f"{at} has no name")
    if value.name in visible:
        raise ModelError(f"{at} assigns '{value.name}' a second time", hint="Names must be unique in a graph.")
    visible[value.name] = value
    own.append(value.name)


def _use(value: ir.Value, visible: _Visible, graph: ir.Graph, at: str) -> None:
    found = visible.get(value.name or "")
    if found is value:
        return
    if found is not None:
        raise ModelError(f"{at} uses another value named '{value.name}' than the one of that name in its graph")
    producer = value.producer()
    if producer is not None and producer.graph is graph:
        raise ModelError(
            f"{at} uses '{value.name}' before {_describe(producer)} makes it",
            hint="The nodes are out of order, or in a cycle.",
        )
    raise ModelError(f"{at} uses '{value.name}', which nothing in its graph makes")


def _describe(node: ir.Node) -> str:
    kind = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
    return f"{kind} node '{node.name}'" if node.name else f"unnamed {kind} node"
