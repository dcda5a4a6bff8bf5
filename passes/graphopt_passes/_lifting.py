"""Moves what is in a subgraph to the graph around it."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from graphopt.pipeline.base import Context
from graphopt.rewrite import edit

__all__ = ["lift", "replace"]


def lift(graph: ir.Graph, node: ir.Node, context: Context) -> tuple[list[ir.Node], list[ir.Value]]:
    """Moves the nodes and constants of ``graph``, whose inputs nothing reads any more, in front of ``node``.

    Returns:
        What moved, and the results of the graph.
    """
    parent = node.graph
    assert parent is not None
    results = list(graph.outputs)
    graph.outputs.clear()
    for value in list(graph.initializers.values()):
        assert value.const_value is not None
        constant = context.new_constant(node, value.const_value, value.name)
        edit.redirect(value, constant)
        results = [constant if result is value else result for result in results]
    nodes = list(graph)
    graph.remove(nodes)
    for inner in nodes:
        for output in inner.outputs:
            if output.name:
                output.name = context.names.fresh(output.name)
    parent.insert_before(node, nodes)
    return nodes, results


def replace(node: ir.Node, results: Sequence[ir.Value], context: Context) -> tuple[list[ir.Node], list[ir.Node]]:
    """Puts ``results`` in the place of what ``node`` gives and removes the node.

    Returns:
        Identity nodes that a graph output needed, and what deserves another look.
    """
    parent = node.graph
    assert parent is not None
    wrappers: list[ir.Node] = []
    readers: list[ir.Node] = []
    for old, new in zip(node.outputs, results, strict=True):
        if not edit.can_stand_in(old, new):
            wrapper = ir.node("Identity", [new], name=context.names.fresh(f"{node.name or node.op_type}_output"))
            parent.insert_before(node, wrapper)
            wrappers.append(wrapper)
            new = wrapper.outputs[0]
            new.type, new.shape = old.type, old.shape
        readers += edit.redirect(old, new)
    _, weakened = edit.erase_if_dead([node])
    return wrappers, readers + weakened
