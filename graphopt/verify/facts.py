"""What the verifier must know about the original's graph: how to feed it, how precise it is, what in it is random."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import onnx_ir as ir

from graphopt import walk
from graphopt.analysis import constants, effects
from graphopt.verify.feeds import Plan
from graphopt.verify.tolerance import CLOSENESS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["PRECISION", "Facts"]

PRECISION: Final = "graphopt.precision"
"""Where the ``meta`` of a model may say, by NumPy's or ml_dtypes' name, a coarser float type to compare in."""

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
    names += [name for name in (model.meta.get(PRECISION),) if name is not None]
    return max(names, key=order.index, default="float32")


def _is_computed(value: ir.Value | None) -> bool:
    return value is not None and value.const_value is None


def _target(node: ir.Node) -> ir.DataType | None:
    attribute = node.attributes.get("to") or node.attributes.get("output_dtype")
    if attribute is None or attribute.is_ref():
        return None
    wanted = attribute.value  # before opset 6 a name
    return next((kind for kind in ir.DataType if wanted in (kind.value, kind.name)), None)


def _random_outputs(model: ir.Model) -> frozenset[str]:
    """Graph outputs downstream of a random operator, wherever that is nested."""
    scopes = list(walk.scopes(model))
    if not any(_is_random(node) for scope in scopes for node in scope.graph):
        return frozenset()
    owner = {scope.graph: scope.owner for scope in scopes}
    functions = _random_functions(scopes)
    queue = [
        _outermost(node, owner)
        for scope in scopes
        if scope.function is None
        for node in scope.graph
        if _is_random(node) or node.op_identifier() in functions
    ]
    seen = set(queue)
    while queue:
        for output in queue.pop().outputs:
            followers = {_outermost(use.node, owner) for use in output.uses()} - seen
            seen |= followers
            queue += followers
    return frozenset(str(value.name) for value in model.graph.outputs if value.producer() in seen)


def _random_functions(scopes: Sequence[walk.Scope]) -> set[ir.OperatorIdentifier]:
    """Functions with a random operator in them, or in a function that they call."""
    found: set[ir.OperatorIdentifier] = set()
    size = -1
    while len(found) > size:
        size = len(found)
        for scope in scopes:
            if scope.function is not None and any(
                _is_random(node) or node.op_identifier() in found for node in scope.graph
            ):
                found.add(scope.function.identifier())
    return found


def _outermost(node: ir.Node, owner: Mapping[ir.Graph, ir.Node | None]) -> ir.Node:
    """The node of the main graph in whose subgraphs a node is nested; itself when it is not."""
    while True:
        graph = node.graph
        holder = owner.get(graph) if isinstance(graph, ir.Graph) else None
        if holder is None:
            return node
        node = holder


def _is_random(node: ir.Node) -> bool:
    """A seed makes a run of a fresh session repeatable, unlike a rewrite that would compute the value once."""
    if node.domain not in ("", "ai.onnx") or "seed" in node.attributes:
        return False
    if node.op_type == "Dropout":
        training = node.inputs[2] if len(node.inputs) > 2 else None
        return training is not None and constants.scalar(training) in (None, True)
    return node.op_type in effects.RANDOM_OPS
