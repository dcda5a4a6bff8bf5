"""What the verifier must know about the original's graph: how to feed it, how precise it is, what in it is random."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import onnx_ir as ir

from graphopt import walk
from graphopt.analysis import effects
from graphopt.verify.feeds import Plan
from graphopt.verify.tolerance import CLOSENESS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Facts"]

_STORAGE: Final = frozenset({"Cast", "CastLike", "DequantizeLinear", "Identity"})
_NUMPY_NAME: Final = {
    ir.DataType.DOUBLE: "float64",
    ir.DataType.FLOAT: "float32",
    ir.DataType.FLOAT16: "float16",
    ir.DataType.BFLOAT16: "bfloat16",
    ir.DataType.FLOAT8E4M3FN: "float8_e4m3fn",
    ir.DataType.FLOAT8E4M3FNUZ: "float8_e4m3fnuz",
    ir.DataType.FLOAT8E5M2: "float8_e5m2",
    ir.DataType.FLOAT8E5M2FNUZ: "float8_e5m2fnuz",
}


@dataclass(frozen=True, slots=True)
class Facts:
    """Attributes:
    plan: How to feed the model.
    precision: NumPy or ml_dtypes name of the coarsest float type it computes in.
    random_outputs: Outputs that depend on a random operator without a seed.
    """

    plan: Plan
    precision: str
    random_outputs: frozenset[str]

    @classmethod
    def of(cls, model: ir.Model, shapes: Mapping[str, Sequence[int]]) -> Facts:
        """Look at a model; linear in its size."""
        return cls(Plan.of(model, shapes), _precision(model), _random_outputs(model))


def _precision(model: ir.Model) -> str:
    """The coarsest float type of inputs, casts and weights, except where weights are only stored in it."""
    types = {value.dtype for value in model.graph.inputs}
    for node in walk.nodes(model):
        if node.op_type in ("Cast", "DequantizeLinear") and any(_is_computed(value) for value in node.inputs[:1]):
            types.add(_target(node))
        if node.op_type not in _STORAGE:
            types.update(value.dtype for value in node.inputs if value is not None and not _is_computed(value))
    names = [_NUMPY_NAME[kind] for kind in types if kind in _NUMPY_NAME]
    order = list(CLOSENESS)
    return max(names, key=order.index, default="float32")


def _is_computed(value: ir.Value | None) -> bool:
    return value is not None and value.const_value is None


def _target(node: ir.Node) -> ir.DataType | None:
    attribute = node.attributes.get("to") or node.attributes.get("output_dtype")
    return None if attribute is None or attribute.is_ref() else ir.DataType(attribute.as_int())


def _random_outputs(model: ir.Model) -> frozenset[str]:
    """Graph outputs downstream of a random operator."""
    queue = [node for node in walk.nodes(model) if _is_random(node)]
    if not queue:
        return frozenset()
    if any(node.graph is not model.graph for node in queue):
        inner = {node for node in queue if node.graph is not model.graph}
        queue = [node for node in queue if node not in inner] + _holders(model, inner)
    seen = set(queue)
    reached: set[ir.Value] = set()
    while queue:
        node = queue.pop()
        reached.update(node.outputs)
        for follower in {user for output in node.outputs for user in _users(model, output)} - seen:
            seen.add(follower)
            queue.append(follower)
    return frozenset(str(value.name) for value in model.graph.outputs if value in reached)


def _holders(model: ir.Model, inner: set[ir.Node]) -> list[ir.Node]:
    """Main-graph nodes that hold the given nodes in a subgraph, or call a function that does."""
    functions = {
        name
        for name, function in model.functions.items()
        if any(node in inner for scope in walk.within(walk.Scope(function.graph, {})) for node in scope.graph)
    }
    held = []
    for node in model.graph:
        graphs = list(walk.subgraphs(node))
        scopes = [scope for graph in graphs for scope in walk.within(walk.Scope(graph, {}))]
        inside = any(one in inner or one.op_identifier() in functions for scope in scopes for one in scope.graph)
        if inside or node.op_identifier() in functions:
            held.append(node)
    return held


def _users(model: ir.Model, value: ir.Value) -> list[ir.Node]:
    """Main-graph nodes that read a value, themselves or in a subgraph."""
    users = []
    for use in value.uses():
        node: ir.Node | None = use.node
        while node is not None and node.graph is not model.graph:
            graph = node.graph
            node = None if graph is None else getattr(graph, "parent_node", None)
        if node is not None:
            users.append(node)
    return users


def _is_random(node: ir.Node) -> bool:
    if node.op_type == "Dropout":
        return not effects.is_deterministic(node) and "seed" not in node.attributes
    return node.op_type in effects.RANDOM_OPS and "seed" not in node.attributes
