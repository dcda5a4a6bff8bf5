"""Costs gathered into what people talk about: operators, layers, blocks."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from graphopt.names import label, operator

if TYPE_CHECKING:
    from graphopt.analysis.cost import NodeCost

__all__ = ["Group", "Layer", "OperatorCount", "groups", "label", "layers", "operator", "operators"]

_DEEPEST = 8
_FEWEST_GROUPS = 3
_MOST_GROUPS = 64


@dataclasses.dataclass(frozen=True, slots=True)
class Layer:
    """A node that has weights. Bytes are of one run of the node; ``macs`` is ``None`` where unknown."""

    name: str
    operator: str
    times: int
    macs: int | None
    parameters: int
    weight_bytes: int
    activation_bytes: int


@dataclasses.dataclass(frozen=True, slots=True)
class OperatorCount:
    """All nodes of one operator; figures are of one run of the model."""

    operator: str
    nodes: int
    macs: int
    flops: int
    moved_bytes: int


@dataclasses.dataclass(frozen=True, slots=True)
class Group:
    """All nodes whose names share a scope; figures are of one run of the model, parameters as each node reads them."""

    name: str
    nodes: int
    macs: int
    flops: int
    parameters: int
    moved_bytes: int


def layers(costs: Iterable[NodeCost]) -> tuple[Layer, ...]:
    """Every node with weights that runs, in execution order."""
    return tuple(
        Layer(
            label(cost.node),
            operator(cost.node),
            cost.times,
            cost.macs,
            cost.parameters,
            cost.weight_bytes,
            cost.read_bytes + cost.write_bytes,
        )
        for cost in costs
        if cost.parameters > 1 and cost.times
    )


def operators(costs: Iterable[NodeCost]) -> tuple[OperatorCount, ...]:
    """The operators, those with the most work first; Constant nodes are data, not work."""
    found: dict[str, list[NodeCost]] = collections.defaultdict(list)
    for cost in costs:
        if operator(cost.node) != "Constant":
            found[operator(cost.node)].append(cost)
    counts = [OperatorCount(name, len(members), *_totals(members)) for name, members in found.items()]
    return tuple(sorted(counts, key=lambda one: (-one.macs, -one.nodes, one.operator)))


def groups(costs: Sequence[NodeCost]) -> tuple[Group, ...]:
    """The model's blocks by the scopes in node names (``/layer1/conv/Conv``), in the order they first run.

    The shallowest depth that tells at least three apart counts; empty when names have no scopes or hardly repeat.
    """
    running = [cost for cost in costs if cost.times and operator(cost.node) != "Constant"]
    scopes = [label(cost.node).strip("/").split("/")[:-1] for cost in running]
    if sum(map(bool, scopes)) * 2 < len(scopes):
        return ()
    for depth in range(1, _DEEPEST + 1):
        found: dict[str, list[NodeCost]] = collections.defaultdict(list)
        for cost, scope in zip(running, scopes, strict=True):
            found["/".join(scope[:depth])].append(cost)
        if len(found.keys() - {""}) < _FEWEST_GROUPS:
            continue
        if len(found) > _MOST_GROUPS or len(found) * 2 > len(running):
            return ()
        return tuple(
            Group(name or "(no scope)", len(members), *_group_totals(members)) for name, members in found.items()
        )
    return ()


def _totals(costs: Iterable[NodeCost]) -> tuple[int, int, int]:
    macs = flops = moved = 0
    for cost in costs:
        macs += (cost.macs or 0) * cost.times
        flops += (cost.flops or 0) * cost.times
        moved += cost.moved_bytes * cost.times
    return macs, flops, moved


def _group_totals(costs: Sequence[NodeCost]) -> tuple[int, int, int, int]:
    macs, flops, moved = _totals(costs)
    return macs, flops, sum(cost.parameters for cost in costs), moved
