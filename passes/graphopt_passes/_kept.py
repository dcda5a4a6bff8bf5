"""Which nodes keep their float type when the model around them gets another one."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Sequence

import onnx_ir as ir

from graphopt import walk
from graphopt.errors import ModelError, UsageError
from graphopt.names import label
from graphopt.pipeline.base import Context
from graphopt.proto.operands import operands
from graphopt.rewrite.match import Miss
from graphopt_passes._narrowing import Extent, extent, largest, smallest
from graphopt_passes._precision_rules import (
    BOUNDS,
    DECIDED_ELSEWHERE,
    FILLS,
    INDIFFERENT,
    KEPT,
    MOVING,
    SMALLEST_DATA,
    WHOLE,
    Request,
)

__all__ = ["Kept"]

_NEAR = 0.75  # of the range: other inputs may give larger numbers
_MOST_NUMBERS = 512  # frequencies of positions are some hundred
_IN_PLACE = frozenset({"add", "mul", "max", "min"})
_CONTROL = frozenset({"If", "Loop", "Scan"})
_INTEGERS = frozenset(dtype for dtype in ir.DataType if dtype.is_integer())
_DISCRETE = _INTEGERS | {ir.DataType.BOOL}


class Kept:
    """Decides, for each node, whether it keeps its type.

    Args:
        model: The model, as it is.
        context: What is known about it.
        request: What to convert.
        scopes: Where: all but functions.
        extents: What is known of constants already; more is added.

    Attributes:
        nodes: Those that keep their type, and why.

    Raises:
        UsageError: A pattern fits no node.
        ModelError: The operator set is so old that it has no such type.
    """

    def __init__(
        self,
        model: ir.Model,
        context: Context,
        request: Request,
        scopes: Sequence[walk.Scope],
        extents: dict[ir.TensorProtocol, Extent],
    ) -> None:
        self._model = model
        self._context = context
        self._request = request
        self._scopes = scopes
        self._owners = {scope.graph: scope.owner for scope in scopes}
        self._largest = largest(request.new)
        self._extents = extents
        self._used: set[str] = set()
        self.nodes: dict[ir.Node, str] = {}
        self._check_version()
        self._derived = self._from_integers()
        for node in self._all():
            reason = self._reason(node)
            if reason:
                self.nodes[node] = reason
        unused = [pattern for pattern in request.keep if pattern not in self._used]
        if unused and any(True for _ in self._all()):
            raise UsageError(
                f"{request.name}: no node and no operator is called '{unused[0]}'",
                hint="keep takes names of nodes and operators, with * and ?, joined by +.",
            )
        self._keep_counts_and_sizes()
        for node in self._all():
            if node not in self.nodes and (reason := self._misfit(node)):
                self.nodes[node] = reason
        self._keep_what_only_moves()

    def note(self) -> None:
        """Tells why, for the explanation."""
        for node, reason in self.nodes.items():
            if any(self.is_old(value) for value in (*node.inputs, *node.outputs) if value is not None):
                self._context.note(self._request.name, Miss(reason, node))

    def is_old(self, value: ir.Value) -> bool:
        """Whether the value is a tensor of a type that goes."""
        if not isinstance(value.type, ir.TensorType | None):
            return False
        return self._context.shapes.dtype(value) in self._request.old

    def clamped(self) -> list[ir.Value]:
        """Constants that do not fit the new type and will be clamped to it."""
        found: dict[ir.Value, None] = {}
        for node in self._all():
            for index, value in enumerate(node.inputs):
                if value is None or not self.is_old(value) or self.demand(node, index) != self._request.new:
                    continue
                tensor = self._context.constant(value)
                maker = value.producer()
                if maker is not None and maker.op_type == "ConstantOfShape" and "value" in maker.attributes:
                    tensor = maker.attributes["value"].as_tensor()
                if tensor is not None and self._extent(tensor).largest > self._largest:
                    found[value] = None
        return list(found)

    def demand(self, node: ir.Node, index: int) -> ir.DataType | None:
        """The type that a node wants at an input of an old type; ``None`` if it does not care."""
        value = node.inputs[index]
        assert value is not None
        own = self._context.shapes.dtype(value)
        if not node.domain and (node.op_type, index) in INDIFFERENT:
            return None
        if node in self.nodes:
            return own
        if node.op_type in _CONTROL:
            return self._request.new
        known = operands(node.op_type, self._context.opset(node))
        return self._request.new if known and self._request.new in known.of_input(index) else own

    def demand_of_output(self, graph: ir.Graph, value: ir.Value) -> ir.DataType | None:
        """The type that an output of a graph must have, which is one of an old type."""
        owner = self._owners[graph]
        stays = self._request.keep_io if owner is None else owner in self.nodes
        return self._context.shapes.dtype(value) if stays else self._request.new

    def _demand_here(self, output: ir.Value) -> ir.DataType | None:
        graph = output.graph
        assert isinstance(graph, ir.Graph)
        return self.demand_of_output(graph, output)

    def native(self, value: ir.Value) -> ir.DataType | None:
        """The type that a value of an old type is made in; ``None`` if it can be made in either."""
        own, new = self._context.shapes.dtype(value), self._request.new
        node = value.producer()
        if node is None:
            if value.is_initializer() and not value.is_graph_input():
                return None
            owner = self._owners.get(value.graph) if value.graph is not None else None
            stays = self._request.keep_io if owner is None else owner in self.nodes
            return own if stays else new
        if node in self.nodes:
            return own
        if not node.domain and node.op_type in ("Cast", "Constant", "ConstantOfShape"):
            return None
        if node.op_type in _CONTROL:
            return new
        known = operands(node.op_type, self._context.opset(node))
        index = value.index()
        if known is None or index is None or (node.op_type, index) in DECIDED_ELSEWHERE:
            return own
        return new if new in known.of_output(index) else own

    def _check_version(self) -> None:
        version = self._model.opset_imports.get("")
        cast = operands("Cast", version) if version is not None else None
        if cast is not None and self._request.new not in cast.of_output(0):
            raise ModelError(
                f"operator set {version}, for which the model is written, has no {self._request.new.name.lower()}",
                hint="Let convert-opset take it to a newer one first, in a run of its own.",
            )

    # -- deciding ----------------------------------------------------------------------------------------------------

    def _all(self) -> Iterator[ir.Node]:
        for scope in self._scopes:
            yield from scope.graph

    def _reason(self, node: ir.Node) -> str:
        """Why the node keeps its type, as far as it alone can tell."""
        for pattern in self._request.keep:
            if fnmatch.fnmatchcase(node.name or "", pattern) or fnmatch.fnmatchcase(node.op_type, pattern):
                self._used.add(pattern)
                return "it shall keep its type"
        if node.domain or node.op_identifier() in self._model.functions:
            return "nothing is known about its types"
        if node.op_type in KEPT and KEPT[node.op_type][0] in self._request.lacks:
            return KEPT[node.op_type][1]
        if "range" in self._request.lacks and node.op_type == "Mul" and node.inputs[0] is node.inputs[1]:
            return "the square of 256 is too large already"
        if "digits" in self._request.lacks and node.attributes.get_string("reduction", "none") in _IN_PLACE:
            return "it adds up in place, which ONNX Runtime does in float32 only"
        if walk.subgraphs(node) and node.op_type not in _CONTROL:
            return "nothing is known about its types"
        known = operands(node.op_type, self._context.opset(node))
        if known is None:
            return "nothing is known about its types"
        if node.op_type in _CONTROL and self._request.new not in known.of_output(0):
            return "its operator set has no such type for it"
        around = [value for value in (*node.inputs, *node.outputs) if value is not None]
        if any(self._request.reach.get(value.name or "", 0) > _NEAR * self._largest for value in around):
            return "it reads or gives numbers that are too large"
        if not all(self._has_type(value) for value in around):
            return "the types around it are not known"
        return ""

    def _has_type(self, value: ir.Value) -> bool:
        if isinstance(value.type, ir.SequenceType | ir.OptionalType):
            return True
        return self._context.shapes.dtype(value) is not None or not (value.uses() or value.is_graph_output())

    def _from_integers(self) -> set[ir.Value]:
        """What follows from integers, booleans and constants alone, such as sizes, positions and masks."""
        found: set[ir.Value] = set()
        for node in self._all():
            floats = [value for value in node.inputs if value is not None and self.is_old(value)]
            held = [self._context.constant(value) for value in floats]
            moved = [value for value, tensor in zip(floats, held, strict=True) if tensor is None]
            if any(tensor is not None and tensor.size > _MOST_NUMBERS for tensor in held):
                continue  # weights: what follows is data
            is_cast = node.op_type == "Cast" and self._context.shapes.dtype(_first(node)) in _DISCRETE
            if is_cast or (moved and all(value in found for value in moved) and not walk.subgraphs(node)):
                found.update(node.outputs)
        return found

    def _keep_counts_and_sizes(self) -> None:
        """Sizes and positions that are floats for a while keep all their digits."""
        if "digits" not in self._request.lacks:
            return
        pending = [value for node in self._all() for value in self._exact_operands(node)]
        while pending:
            value = pending.pop()
            node = value.producer()
            if value not in self._derived or node is None or node in self.nodes or node.op_type == "Cast":
                continue
            self.nodes[node] = "it computes a size or a position"
            pending += [one for one in node.inputs if one is not None]

    def _exact_operands(self, node: ir.Node) -> list[ir.Value]:
        old = [index for index, value in enumerate(node.inputs) if value is not None and self.is_old(value)]
        if node in self.nodes:
            needs_all = not node.domain and node.op_type in KEPT and KEPT[node.op_type][0] == "digits"
        else:
            needs_all = node.op_type in WHOLE or (
                node.op_type == "Cast" and self._context.shapes.dtype(node.outputs[0]) in _INTEGERS
            )
        wanted = [index for index in old if needs_all or self.demand(node, index) not in (None, self._request.new)]
        return [value for index in wanted if (value := node.inputs[index]) is not None]

    def _misfit(self, node: ir.Node) -> str:
        """Whether a constant does not fit the new type, and can neither be clamped."""
        for index, value in enumerate(node.inputs):
            if value is None or not self.is_old(value) or self.demand(node, index) != self._request.new:
                continue
            tensor = self._context.constant(value)
            if tensor is not None and not self._fits(node, tensor):
                return "a constant of it does not fit"
        return ""

    def _extent(self, tensor: ir.TensorProtocol) -> Extent:
        known = self._extents.get(tensor)
        if known is None:
            known = self._extents[tensor] = extent(tensor)
        return known

    def _fits(self, node: ir.Node, tensor: ir.TensorProtocol) -> bool:
        known = self._extent(tensor)
        clamps = node.op_type in FILLS or node.op_type in BOUNDS or node.op_type in MOVING
        if tensor.size < SMALLEST_DATA and known.tiny < 4 * smallest(self._request.new):
            return clamps and node.op_type != "Mul"
        if known.largest <= self._largest:
            return True
        if node.op_type == "Mul":  # a mask times a fill; else it is a factor
            others = [value for value in node.inputs if value is not None and self._context.constant(value) is None]
            return known.high <= self._largest or all(value in self._derived for value in others)
        return clamps

    def _keep_what_only_moves(self) -> None:
        """What moves the results of nodes that keep their type to others that do keeps it, too."""
        moving = {node: None for node in self._all() if not node.domain and node.op_type in MOVING}
        moving = {node: None for node in moving if node not in self.nodes and any(map(self.is_old, node.outputs))}
        shrinks = True
        while shrinks:
            left = {node: None for node in moving if self._is_between(node, moving)}
            shrinks = len(left) < len(moving)
            moving = left
        self.nodes.update(dict.fromkeys(moving, "what is around it keeps its type"))

    def _is_between(self, node: ir.Node, moving: dict[ir.Node, None]) -> bool:
        for value in node.inputs:
            if value is not None and self.is_old(value) and self._context.constant(value) is None:
                maker = value.producer()
                if maker not in moving and self.native(value) == self._request.new:
                    return False
        for output in node.outputs:
            for user, index in output.uses():
                if user not in moving and self.demand(user, index) == self._request.new:
                    return False
            if output.is_graph_output() and self._demand_here(output) == self._request.new:
                return False
        return True


def _first(node: ir.Node) -> ir.Value:
    value = node.inputs[0]
    assert value is not None, label(node)
    return value
