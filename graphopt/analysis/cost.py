"""What a model costs to run: multiply-accumulates, operations, parameters and bytes, node by node.

Everything is computed from shapes and attributes. Symbolic dimensions take the values of ``input_shapes``, or 1, and
:attr:`Costs.assumed` says which did. What runs once at load (weights computed from weights) is free; of an If, the
branch with more work counts; a Loop counts as often as it is known to run, else once.
"""

from __future__ import annotations

import collections
import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from graphopt import walk
from graphopt.analysis import dims
from graphopt.analysis.constness import constant_values
from graphopt.analysis.cost_rules import GATHERS, RULES, VIEWS, Operands, Unknown, Work
from graphopt.analysis.inlining import inlined
from graphopt.analysis.parameters import attribute_parameters, is_parameter_dtype, tensor_bytes
from graphopt.errors import UsageError

if TYPE_CHECKING:
    import onnx_ir as ir

    from graphopt.analysis.shapes import Shapes

__all__ = ["Costs", "Meter", "NodeCost", "bind", "costs", "metered"]

InputShapes = Mapping[str, Sequence[int]]


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class NodeCost:
    """What one node costs each time it runs.

    Attributes:
        node: The node.
        within: The names of the control-flow nodes around it, outermost first.
        times: How often it runs for one run of the model; 0 for the branch not taken and for what folds at load.
        macs: Multiply-accumulates; ``None`` where the operator or a shape is unknown.
        flops: All arithmetic operations, a multiply-accumulate counting as two; ``None`` likewise.
        parameters: Elements of the weights it reads.
        weight_bytes: Bytes of the constants it reads.
        read_bytes: Bytes of the other tensors it reads, as far as shapes are known.
        write_bytes: Bytes of its outputs, as far as shapes are known.
    """

    node: ir.Node
    within: tuple[str, ...]
    times: int
    macs: int | None
    flops: int | None
    parameters: int
    weight_bytes: int
    read_bytes: int
    write_bytes: int

    @property
    def moved_bytes(self) -> int:
        """All bytes in and out."""
        return self.weight_bytes + self.read_bytes + self.write_bytes


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Costs:
    """The costs of a model.

    Attributes:
        nodes: Every node's, nested ones after the node that holds them.
        bindings: Symbolic dimensions and the extents that ``input_shapes`` gave them.
        assumed: Those that nothing determined, and loop trip counts: taken to be 1.
        uncounted: Operators that run but whose work is not known, and how many there are.
        empty: Values that symbols leave without elements; many mean that the extents are too small for the model.
    """

    nodes: tuple[NodeCost, ...]
    bindings: Mapping[str, int]
    assumed: tuple[str, ...]
    uncounted: Mapping[str, int]
    empty: int = 0

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one run."""
        return sum((cost.macs or 0) * cost.times for cost in self.nodes)

    @property
    def flops(self) -> int:
        """Arithmetic operations of one run; a multiply-accumulate is two."""
        return sum((cost.flops or 0) * cost.times for cost in self.nodes)

    @property
    def weight_bytes(self) -> int:
        """Bytes of constants read in one run, a weight as often as it is read."""
        return sum(cost.weight_bytes * cost.times for cost in self.nodes)

    @property
    def activation_bytes(self) -> int:
        """Bytes of other tensors read and written in one run, were every node to go through memory."""
        return sum((cost.read_bytes + cost.write_bytes) * cost.times for cost in self.nodes)


def metered(
    model: ir.Model, shapes: Shapes | None = None, input_shapes: InputShapes | None = None
) -> tuple[ir.Model, Meter]:
    """The model without calls of its own functions, and what measures its nodes; arguments as for :func:`costs`."""
    if model.functions:
        model, shapes = inlined(model), None
    if shapes is None:
        from graphopt.analysis.shapes import Shapes

        shapes = Shapes(model, believe_declared=True)
    return model, Meter(model, shapes, input_shapes or {})


def costs(model: ir.Model, shapes: Shapes | None = None, *, input_shapes: InputShapes | None = None) -> Costs:
    """Cost every node of ``model``; calls of model-local functions are counted as if inlined.

    Args:
        model: The model, left as it is.
        shapes: Its shapes, if the caller has them already.
        input_shapes: Extents by input name, for symbolic dimensions.

    Raises:
        UsageError: ``input_shapes`` names no input or contradicts the model.
        ModelError: A function calls itself, or is called with too many operands.
        LimitReached: Inlined, the model is too large.
    """
    model, meter = metered(model, shapes, input_shapes)
    nodes = tuple(meter.graph(model.graph, ()))
    uncounted = collections.Counter(
        _operator(cost.node) for cost in nodes if cost.times and cost.macs is None and not _holds_graph(cost.node)
    )
    bindings = {_label(symbol): extent for symbol, extent in meter.bindings.given.items()}
    return Costs(nodes, bindings, tuple(meter.bindings.assumed), dict(uncounted), meter.empty)


def _operator(node: ir.Node) -> str:
    return f"{node.domain}::{node.op_type}" if node.domain else node.op_type


def _label(symbol: str) -> str:
    return symbol.describe() if isinstance(symbol, dims.Atom) else symbol


def _holds_graph(node: ir.Node) -> bool:
    return any(True for _ in walk.subgraphs(node))


class _Bindings(Mapping[str, int]):
    """Symbols to extents: as given, else 1, which is noted."""

    def __init__(self) -> None:
        self.given: dict[str, int] = {}
        self.assumed: dict[str, None] = {}

    def __getitem__(self, key: str) -> int:
        if key in self.given:
            return self.given[key]
        if isinstance(key, dims.Atom) and key.args:
            raise KeyError(key)  # a function of other symbols: the caller evaluates those
        self.assumed[_label(key)] = None
        return 1

    def __iter__(self) -> Iterator[str]:
        return iter(self.given)

    def __len__(self) -> int:
        return len(self.given)


class Meter:
    """Walks the graphs of one model without functions; shapes are made concrete once a value.

    Args:
        model: The model.
        shapes: Its shapes.
        input_shapes: Extents by input name, for symbolic dimensions.

    Attributes:
        constants: Values that are the same in every run.
        bindings: Symbolic dimensions and their extents.
        empty: Values that symbols leave without elements.

    Raises:
        UsageError: ``input_shapes`` names no input or contradicts the model.
    """

    def __init__(self, model: ir.Model, shapes: Shapes, input_shapes: InputShapes) -> None:
        self._shapes = shapes
        self.constants = constant_values(model, overridable=True)
        self._concrete: dict[ir.Value, tuple[int, ...] | None] = {}
        self.bindings = _Bindings()
        self.empty = 0
        self.bindings.given.update(bind(model, shapes, input_shapes))

    def graph(self, graph: ir.Graph, within: tuple[str, ...]) -> Iterator[NodeCost]:
        """The costs of one execution of ``graph``."""
        for node in graph:
            yield self._node(node, within)
            bodies = [list(self.graph(body, (*within, node.name or node.op_type))) for body in walk.subgraphs(node)]
            if not bodies:
                continue
            if node.op_type == "If":
                busiest = max(bodies, key=lambda body: sum((cost.macs or 0) * cost.times for cost in body))
                trips = [int(body is busiest) for body in bodies]
            else:
                trips = [self._trips(node)] * len(bodies)
            for body, times in zip(bodies, trips, strict=True):
                yield from (dataclasses.replace(cost, times=cost.times * times) for cost in body)

    def _node(self, node: ir.Node, within: tuple[str, ...]) -> NodeCost:
        work = self._work(node)
        read, written = self._activations(node)
        weights = list(dict.fromkeys(value for value in node.inputs if value in self.constants))
        return NodeCost(
            node,
            within,
            times=0 if node.outputs and all(value in self.constants for value in node.outputs) else 1,
            macs=None if work is None else work.macs,
            flops=None if work is None else 2 * work.macs + work.other,
            parameters=sum(self._parameters(value) for value in weights) + sum(attribute_parameters(node)),
            weight_bytes=sum(self._weight_bytes(node, value) for value in weights if value is not None),
            read_bytes=read,
            write_bytes=written,
        )

    def _work(self, node: ir.Node) -> Work | None:
        rule = RULES.get((node.domain, node.op_type))
        if rule is None:
            return None
        try:
            return rule(Operands(node, self.concrete))
        except (Unknown, IndexError):  # an operand is missing, or of another rank than the operator takes
            return None

    def _activations(self, node: ir.Node) -> tuple[int, int]:
        if node.op_type in VIEWS:
            return 0, 0
        written = sum(self.bytes_of(value) for value in node.outputs)
        sources = list(dict.fromkeys(value for value in node.inputs if value is not None))
        read = [self.bytes_of(value) for value in sources if value not in self.constants]
        if node.op_type in GATHERS and read and sources[0] not in self.constants:
            read[0] = min(read[0], written)
        return sum(read), written

    def _weight_bytes(self, node: ir.Node, value: ir.Value) -> int:
        producer = value.producer()
        if producer is not None and producer.op_type == "DequantizeLinear" and producer.inputs[0] is not None:
            value = producer.inputs[0]  # runtimes keep the weight quantized and fuse this node away
        size = 0 if node.op_type in VIEWS else self.bytes_of(value)
        if node.op_type in GATHERS and value is node.inputs[0]:
            return min(size, sum(self.bytes_of(output) for output in node.outputs))
        return size

    def _parameters(self, value: ir.Value | None) -> int:
        if value is None or not is_parameter_dtype(self._dtype(value)):
            return 0
        shape = self.concrete(value)
        return 0 if shape is None else math.prod(shape)

    def bytes_of(self, value: ir.Value) -> int:
        """The value's bytes; 0 where its shape or type is unknown."""
        shape = self.concrete(value)
        return 0 if shape is None else tensor_bytes(shape, self._dtype(value))

    def _dtype(self, value: ir.Value) -> ir.DataType | None:
        return value.const_value.dtype if value.const_value is not None else self._shapes.dtype(value)

    def concrete(self, value: ir.Value) -> tuple[int, ...] | None:
        """The value's shape with every symbol replaced; extents are at least 0."""
        if value in self._concrete:
            return self._concrete[value]
        shape = self._shapes.of(value)
        sizes = None if shape is None else [dims.evaluate(dim, self.bindings) for dim in shape]
        result = None if sizes is None or None in sizes else tuple(max(0, size) for size in sizes if size is not None)
        self.empty += bool(result is not None and 0 in result and 0 not in (shape or ()))
        self._concrete[value] = result
        return result

    def _trips(self, node: ir.Node) -> int:
        """How often a Loop or Scan runs its body."""
        if node.op_type == "Scan" and not node.domain:
            count = node.attributes["num_scan_inputs"].as_int()
            axes = node.attributes.get("scan_input_axes")
            value = node.inputs[len(node.inputs) - count]
            shape = None if value is None else self.concrete(value)
            return shape[axes.as_ints()[0] if axes else 0] if shape else self._assume(node)
        if node.op_type == "Loop" and not node.domain and node.inputs[0] is not None:
            known = self._shapes.data(node.inputs[0])
            if known is not None and len(known) == 1:
                trips = dims.evaluate(known[0], self.bindings.given)
                return self._assume(node) if trips is None else max(0, trips)
        return self._assume(node)

    def _assume(self, node: ir.Node) -> int:
        self.bindings.assumed[f"trips of {node.name or node.op_type}"] = None
        return 1


def bind(model: ir.Model, shapes: Shapes, wanted: InputShapes) -> dict[str, int]:
    """The extents of the symbols in the inputs' dims, where inputs have the shapes ``wanted``.

    Raises:
        UsageError: ``wanted`` names no input or contradicts the model.
    """
    bindings: dict[str, int] = {}
    inputs = {value.name: value for value in model.graph.inputs}
    for name, extents in wanted.items():
        if name not in inputs:
            raise UsageError(f"no input is named {name!r}", hint=f"Inputs are: {', '.join(map(str, inputs))}")
        known = shapes.of(inputs[name])
        if known is None:
            continue
        if len(known) != len(extents):
            raise UsageError(f"input {name!r} has {len(known)} dimensions, not {len(extents)}")
        for axis, (dim, extent) in enumerate(zip(known, extents, strict=True)):
            symbol = _symbol(dim)
            before = bindings.setdefault(symbol, extent) if symbol is not None else dim
            if isinstance(before, int) and before != extent:
                raise UsageError(f"axis {axis} of input {name!r} is {before}, not {extent}")
    return bindings


def _symbol(dim: dims.Dim) -> dims.Atom | None:
    """The symbol that ``dim`` is, where it is nothing else."""
    if isinstance(dim, int) or len(dim.terms) != 1:
        return None
    monomial, factor = dim.terms[0]
    return monomial[0] if factor == 1 and len(monomial) == 1 else None
