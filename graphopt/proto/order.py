"""Bring the nodes of a message into topological order, or say why there is none."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from typing import Any

import onnx

from graphopt.errors import ModelError

__all__ = ["sort_model"]


def sort_model(proto: onnx.ModelProto) -> None:
    """Sort the nodes of every graph and function in place, keeping their order where it is free.

    Raises:
        ModelError: A name is used but defined nowhere, or nodes depend on each other in a cycle.
    """
    _sort(proto.graph, _defined(proto.graph), "graph", frozenset())
    for function in proto.functions:
        _sort(function, set(function.input), "function", frozenset())


def _sort(graph: Any, given: set[str], what: str, outer: frozenset[str]) -> None:
    """Sort one graph. ``given``: what is there before any node runs; ``outer``: names of enclosing graphs."""
    producer: dict[str, int] = {}
    for index, node in enumerate(graph.node):
        producer.update(dict.fromkeys(filter(None, node.output), index))
    visible = outer | given | producer.keys()
    for node in graph.node:
        for subgraph in _subgraphs(node):
            _sort(subgraph, _defined(subgraph), "subgraph", visible)
    waiting: list[set[int]] = []
    users: list[list[int]] = [[] for _ in graph.node]
    for index, node in enumerate(graph.node):
        needs = _needs(node)
        if undefined := [name for name in needs if name not in visible]:
            raise ModelError(f"{_label(node)} uses {undefined[0]!r}, which nothing in the {what} defines")
        waiting.append({producer[name] for name in needs if name in producer and name not in given})
        for source in waiting[-1]:
            users[source].append(index)
    order = _topological(waiting, users)
    if len(order) < len(waiting):
        stuck = _on_cycle(waiting, set(order))
        raise ModelError(f"the {what} has a cycle through {_label(graph.node[stuck])}")
    nodes = [onnx.NodeProto.FromString(graph.node[index].SerializeToString()) for index in order]
    del graph.node[:]
    graph.node.extend(nodes)


def _topological(waiting: list[set[int]], users: list[list[int]]) -> list[int]:
    """Kahn's algorithm, always taking the ready node that came first in the file."""
    missing = [len(sources) for sources in waiting]
    ready = [index for index, count in enumerate(missing) if not count]
    order = []
    while ready:
        index = heapq.heappop(ready)
        order.append(index)
        for user in users[index]:
            missing[user] -= 1
            if not missing[user]:
                heapq.heappush(ready, user)
    return order


def _on_cycle(waiting: Sequence[set[int]], done: set[int]) -> int:
    """A node on a cycle: walk from any node that cannot run to what it waits for, until one comes up twice."""
    at = next(index for index in range(len(waiting)) if index not in done)
    seen: set[int] = set()
    while at not in seen:
        seen.add(at)
        at = min(waiting[at] - done)
    return at


def _needs(node: onnx.NodeProto) -> list[str]:
    """Names that a node reads: its inputs, and what its subgraphs capture."""
    needs = [name for name in node.input if name]
    for subgraph in _subgraphs(node):
        own = _defined(subgraph)
        for inner in subgraph.node:
            own.update(inner.output)
        needs += [name for inner in subgraph.node for name in _needs(inner) if name not in own]
    return needs


def _defined(graph: onnx.GraphProto) -> set[str]:
    names = {info.name for info in graph.input} | {tensor.name for tensor in graph.initializer}
    return names | {tensor.values.name for tensor in graph.sparse_initializer}


def _subgraphs(node: onnx.NodeProto) -> Iterable[onnx.GraphProto]:
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            yield attribute.g
        elif attribute.type == onnx.AttributeProto.GRAPHS:
            yield from attribute.graphs


def _label(node: onnx.NodeProto) -> str:
    return f"node {node.name!r} ({node.op_type})" if node.name else f"the {node.op_type} node of {list(node.output)}"
