"""Which nodes a provider takes, why not the others, and in how many parts."""

from __future__ import annotations

import collections
from collections.abc import Collection, Mapping
from typing import Final

import onnx_ir as ir

from graphopt import walk
from graphopt.mobile.demands import Demand, Kind, Row
from graphopt.mobile.providers import Provider
from graphopt.mobile.sight import Graph, Sight, is_quantized

__all__ = ["parts", "refusals"]

_NO_OPERATOR: Final = Demand(Kind.OPERATOR, "it has no such operator", lambda _: False)
_NO_BODY: Final = Demand(Kind.BODY, "it takes nothing in branches and loop bodies", lambda _: False)
_NOT_FUSED: Final = Demand(Kind.OPERATOR, "it does not follow a node that is taken", lambda _: False)


def refusals(model: ir.Model, graph: Graph, provider: Provider) -> dict[ir.Node, Demand]:
    """The nodes that a provider leaves, each with the first demand that it does not meet.

    Args:
        model: As ONNX Runtime divides it: its basic optimizations done.
        graph: What is known about it.
        provider: The provider.
    """
    rows = provider.operators()
    left: dict[ir.Node, Demand] = {}
    taken: set[ir.Node] = set()
    for scope in walk.scopes(model):
        for node in scope.graph:
            sight = Sight(node, graph, scope.owner is not None, provider.quantized and is_quantized(node))
            unmet = _unmet(sight, provider, rows, taken)
            if unmet is None:
                taken.update(sight.unit())
            else:
                left[node] = unmet
    return {node: unmet for node, unmet in left.items() if node not in taken}


def _unmet(sight: Sight, provider: Provider, rows: Mapping[str, Row], taken: Collection[ir.Node]) -> Demand | None:
    if sight.nested and not provider.bodies:
        return _NO_BODY
    row = rows.get(sight.operator)
    if row is None and sight.operator in provider.fused:
        return None if _is_fused(sight, provider.fused_into, taken) else _NOT_FUSED
    if row is None:
        return _NO_OPERATOR
    if row.versions is not None and sight.version not in row.versions:
        return _version(sight, row.versions)
    return next((one for one in (*provider.demands, *row.demands) if not one.met(sight)), None)


def _version(sight: Sight, versions: Collection[int]) -> Demand:
    there = "newer" if sight.version > max(versions) else "older"
    return Demand(Kind.OPSET, f"it is {there} than the kernels (operator set {_known(versions)})", lambda _: False)


def _known(versions: Collection[int]) -> str:
    low, high = min(versions), max(versions)
    return str(low) if low == high else f"{low} to {high}"


def _is_fused(sight: Sight, into: Collection[str], taken: Collection[ir.Node]) -> bool:
    """Whether an activation becomes part of the node before it, which only it reads."""
    value = sight.operand(0)
    before = None if value is None else value.producer()
    if value is None or before is None or before not in taken or before.op_type not in into or is_quantized(before):
        return False
    limits = all(not sight.has(index) or sight.constant(index) is not None for index in (1, 2))
    return limits and len(value.uses()) == 1 and not value.is_graph_output()


def parts(graph: ir.Graph, taken: Collection[ir.Node]) -> int:
    """How many parts the nodes taken of a graph come to, as ONNX Runtime forms them.

    Nodes are visited as their inputs become known. A node that is left, and reads from the part that is being formed,
    waits with all behind it until nothing more can join the part.
    Source: ``CreateSupportedPartitionNodeGroups`` in ``onnxruntime/core/providers/partitioning_utils.cc``.
    """
    readers, missing = _links(graph)
    ready = collections.deque(node for node in graph if not missing[node])
    waiting: collections.deque[ir.Node] = collections.deque()
    border: set[ir.Node] = set()
    found, is_open = 0, False
    while ready or waiting:
        if not ready:
            ready, waiting = waiting, ready
            border.clear()
            is_open = False
            continue
        node = ready.popleft()
        if node in taken:
            found += not is_open
            is_open = True
            border.discard(node)
            border.update(readers[node])
        elif node in border:
            waiting.append(node)
            continue
        for reader in readers[node]:
            missing[reader] -= 1
            if not missing[reader]:
                ready.append(reader)
    return found


def _links(graph: ir.Graph) -> tuple[dict[ir.Node, list[ir.Node]], dict[ir.Node, int]]:
    """Who reads from each node, each reader once; and from how many nodes each one reads, its subgraphs included."""
    readers: dict[ir.Node, list[ir.Node]] = {node: [] for node in graph}
    missing: dict[ir.Node, int] = {}
    for node in graph:
        inner = [value for subgraph in walk.subgraphs(node) for value in walk.captures(subgraph)]
        sources = {value.producer(): None for value in (*node.inputs, *inner) if value is not None}
        own = [source for source in sources if source is not None and source.graph is graph]
        missing[node] = len(own)
        for source in own:
            readers[source].append(node)
    return readers, missing
