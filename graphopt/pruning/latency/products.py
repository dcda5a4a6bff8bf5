"""What of a model's products shrinks with which channels, and what an operator looks like at any number of them."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import onnx_ir as ir

from graphopt.analysis import dims
from graphopt.analysis.constness import constant_values
from graphopt.analysis.cost import costs
from graphopt.channels.axes import Axis, find, leaves
from graphopt.channels.records import Place
from graphopt.pruning.latency.micro import Operand, Operator

if TYPE_CHECKING:
    from graphopt.channels.groups import ChannelGraph

__all__ = ["Counts", "Factor", "Kind", "Site", "Sizes", "kind_of", "moved", "sites"]

_CONVOLUTIONS = {"Conv": 1, "ConvInteger": 1, "QLinearConv": 3}
"""The number of the input that is the weight."""
_RECURRENT = frozenset({"GRU", "LSTM", "RNN"})
_SEQUENCE_LENGTHS = 4
_SMALL = 64
_FUSING = frozenset({"Conv", "Gemm"})
_FUSED = frozenset({"Clip", "HardSigmoid", "LeakyRelu", "Relu", "Sigmoid", "Tanh"})
"""What ONNX Runtime fuses into those. A Relu costs nothing then; a Clip made MobileNetV2's convolutions take 1.3 times
as long."""

Counts = Mapping[int, int]
"""How many places of a factor are kept, by the number of the factor."""


@dataclasses.dataclass(frozen=True)
class Factor:
    """A factor of an axis that channels can be taken from.

    Attributes:
        number: Its number in the channel graph.
        size: How many places it has.
        first: The first of its atoms; the others follow.
        step: In what multiples the execution provider likes it.
    """

    number: int
    size: int
    first: int
    step: int = 1


class Sizes:
    """Concrete sizes of one model's axes, at the shapes of its inputs.

    Raises:
        UsageError: ``shapes`` names no input or contradicts the model.
    """

    def __init__(self, graph: ChannelGraph, shapes: Mapping[str, Sequence[int]]) -> None:
        self.graph = graph
        self.costs = costs(graph.model, graph.linker.shapes, input_shapes=shapes)  # it checks the shapes, too
        self._bindings: dict[str, int] = {}
        for value in graph.model.graph.inputs:
            known = graph.linker.shapes.of(value) or ()
            for dim, extent in zip(known, shapes.get(value.name or "", ()), strict=False):
                if not isinstance(dim, int) and len(dim.terms) == 1 and len(dim.terms[0][0]) == 1:
                    self._bindings[dim.terms[0][0][0]] = extent
        self._factors: dict[int, Factor | None] = {}

    def of(self, axis: Axis) -> int:
        """The full size of an axis; what is not known counts as 1."""
        size = dims.evaluate(axis.size, self._bindings)
        return 1 if size is None else max(0, size)

    def factors(self, axis: Axis) -> list[Factor]:
        """The factors of an axis that channels can be taken from."""
        found = (self._factor(find(leaf)) for leaf in leaves(axis))
        return [factor for factor in found if factor is not None]

    def _factor(self, leaf: Axis) -> Factor | None:
        if not isinstance(leaf.size, int) or leaf.size < 2 or leaf.frozen is not None:
            return None
        number = self.graph.number(leaf)
        if number not in self._factors:
            atoms = self.graph.atoms(leaf)
            free = bool((self.graph.blamed(atoms) < 0).any())
            self._factors[number] = Factor(number, leaf.size, int(atoms[0])) if free else None
        return self._factors[number]

    def left(self, axis: Axis, counts: Counts) -> int:
        """The size of an axis when so many places of its factors are kept."""
        size = self.of(axis)
        for factor in self.factors(axis):
            size = size // factor.size * counts.get(factor.number, factor.size)
        return size

    @functools.cached_property
    def constants(self) -> set[ir.Value]:
        """All values that are the same in every run."""
        return constant_values(self.graph.model, overridable=True)


Kind = Literal["product", "norm", "softmax", "other"]
"""What kind of operator takes time; the time of each but products goes with the bytes that operators of it move."""

_KINDS: tuple[tuple[str, Kind], ...] = (
    *((part, "product") for part in ("Conv", "Gemm", "MatMul", "Attention", "LSTM", "GRU", "RNN", "Einsum")),
    ("Norm", "norm"),
    ("Softmax", "softmax"),
)
"""By parts of the names of operators, those that ONNX Runtime's optimizer makes up included."""


def kind_of(op_type: str) -> Kind:
    """The kind of an operator, which is that of what it becomes part of when it is fused."""
    return next((kind for part, kind in _KINDS if part in op_type), "other")


class Site:
    """One product where it stands in its model.

    Attributes:
        node: The node.
        times: How often it runs in a run of the model.
        factors: What it shrinks with.
        macs: Multiply-accumulates at full size.
    """

    def __init__(self, sizes: Sizes, node: ir.Node, times: int, axes: Sequence[Axis], multiple: int) -> None:
        self.node = node
        self.times = times
        self._sizes = sizes
        self._axes = axes
        self.macs = math.prod(sizes.of(axis) for axis in axes)
        self.factors = self._find_factors(multiple)

    def _operand_axes(self) -> list[tuple[Axis, ...] | None]:
        linker = self._sizes.graph.linker
        found: list[tuple[Axis, ...] | None] = []
        for index, value in enumerate(self.node.inputs):
            own = None if value is None else linker.constants.get(Place(self.node, index, value), linker.of(value))
            found.append(own)
        return found

    def _find_factors(self, multiple: int) -> tuple[Factor, ...]:
        steps: dict[Factor, int] = {}
        outputs = [self._sizes.graph.linker.of(value) for value in self.node.outputs]
        for axes in (*self._operand_axes(), *outputs):
            for place, axis in enumerate(axes or ()):
                for factor in self._sizes.factors(axis):
                    # a factor of 12 heads of 64 lanes each is aligned whatever their number, as is one of a batch
                    inner = max(1, self._sizes.of(axis) // factor.size)
                    batch = axes is not None and len(axes) > 2 and self._is_stack and place < len(axes) - 2
                    step = 1 if batch else max(1, multiple // math.gcd(multiple, inner))
                    steps[factor] = max(steps.get(factor, 1), step)
        return tuple([dataclasses.replace(factor, step=_fitting(factor, step)) for factor, step in steps.items()])

    @property
    def _is_stack(self) -> bool:
        return self.node.op_type in ("MatMul", "FusedMatMul", "MatMulInteger", "QLinearMatMul")

    def macs_at(self, counts: Counts) -> float:
        """Multiply-accumulates when so many places of the factors are kept."""
        return math.prod(self._sizes.left(axis, counts) for axis in self._axes)

    def operator(self, counts: Counts) -> Operator | None:
        """The operator when so many places of its factors are kept; ``None`` where a shape is not known."""
        operands: list[Operand | None] = []
        for index, (value, axes) in enumerate(zip(self.node.inputs, self._operand_axes(), strict=True)):
            if value is None or (self.node.op_type in _RECURRENT and index == _SEQUENCE_LENGTHS):
                operands.append(None)
                continue
            operand = self._operand(value, axes, counts)
            if operand is None:
                return None
            operands.append(operand)
        graph = self._sizes.graph
        standard = graph.linker.opset(self.node)
        version = graph.model.opset_imports.get(self.node.domain, 1) if self.node.domain else standard
        outputs = tuple([bool(value.uses()) or value.is_graph_output() for value in self.node.outputs])
        attributes = tuple(self._attributes(operands, counts))
        activation = self._activation(standard)
        return Operator(
            self.node.domain, self.node.op_type, version, standard, attributes, tuple(operands), outputs, activation
        )

    def _activation(self, standard: int) -> Operator | None:
        """What runtimes compute together with the node: fused or not, it goes over all of its output."""
        uses = list(self.node.outputs[0].uses()) if self.node.op_type in _FUSING and not self.node.domain else []
        if len(uses) != 1 or self.node.outputs[0].is_graph_output():
            return None
        node, place = uses[0]
        if node.op_type not in _FUSED or node.domain or place:
            return None
        bounds = [None if value is None else self._operand(value, (), {}) for value in node.inputs[1:]]
        if any(bound is not None and (not bound.fixed or bound.contents is None) for bound in bounds):
            return None
        return Operator("", node.op_type, standard, standard, tuple(node.attributes.values()), (None, *bounds))

    def _operand(self, value: ir.Value, axes: tuple[Axis, ...] | None, counts: Counts) -> Operand | None:
        linker = self._sizes.graph.linker
        tensor = linker.constant(value)
        dtype = linker.shapes.dtype(value) if tensor is None else tensor.dtype
        if axes is None or dtype is None:
            return None
        shape = tuple([self._sizes.left(axis, counts) for axis in axes])
        contents = None
        if tensor is not None and shape == tuple(tensor.shape.numpy()) and tensor.size <= _SMALL:
            contents = tensor.numpy() if tensor.size == 1 or not dtype.is_floating_point() else None
        return Operand(dtype, shape, value in self._sizes.constants, contents)

    def _attributes(self, operands: Sequence[Operand | None], counts: Counts) -> list[ir.Attr]:
        """The node's attributes, those that count channels adapted."""
        changed = self._counted(operands, counts)
        return [
            ir.AttrInt64(name, changed[name]) if name in changed else attribute
            for name, attribute in self.node.attributes.items()
        ]

    def _counted(self, operands: Sequence[Operand | None], counts: Counts) -> dict[str, int]:
        kind, node = self.node.op_type, self.node
        if kind in _RECURRENT and operands[2] is not None:
            return {"hidden_size": operands[2].shape[2]}
        if node.attributes.get_int("group", 1) > 1:
            x, weight = operands[0], operands[_CONVOLUTIONS.get(kind, 1)]
            assert x is not None
            assert weight is not None
            channels = x.shape[1]
            if kind == "ConvTranspose":
                channels = self._sizes.left((self._sizes.graph.linker.of(node.outputs[0]) or ())[1], counts)
            return {"group": channels // weight.shape[1]}
        if kind == "Attention" and node.domain:
            heads = node.attributes.get_int("num_heads", 1)
            hidden = (self._sizes.graph.linker.of(node.outputs[0]) or ())[-1]
            whole = any(find(leaf).role.head and self._sizes.factors(leaf) for leaf in leaves(hidden))
            return {"num_heads": heads * self._sizes.left(hidden, counts) // self._sizes.of(hidden) if whole else heads}
        return {}


def _fitting(factor: Factor, step: int) -> int:
    """A finer step where a factor has few places."""
    while step > 1 and factor.size < 2 * step:
        step //= 2
    return step


def sites(sizes: Sizes, multiples: Mapping[str, int]) -> list[Site]:
    """The products of a model that run, in its order.

    Args:
        sizes: Of the model.
        multiples: Of channels, by ``conv`` and ``matmul``.
    """
    times = {cost.node: cost.times for cost in sizes.costs.nodes}
    axes: dict[ir.Node, list[Axis]] = {}
    for product in sizes.graph.linker.products:
        axes.setdefault(product.node, list(product.axes))  # a recurrent node has two, which shrink alike
    found = []
    for node, own in axes.items():
        multiple = multiples["conv" if "Conv" in node.op_type else "matmul"]
        if times.get(node, 0):
            found.append(Site(sizes, node, times[node], own, multiple))
    return found


def _bytes(sizes: Sizes, value: ir.Value) -> int:
    """Bytes of a value at full size; 0 where they are not known."""
    linker = sizes.graph.linker
    axes, dtype = linker.of(value), linker.shapes.dtype(value)
    if axes is None or dtype is None or dtype == ir.DataType.STRING:
        return 0
    return math.ceil(math.prod(sizes.of(axis) for axis in axes) * dtype.bitwidth / 8)


def moved(sizes: Sizes) -> dict[tuple[Kind, tuple[int, ...]], int]:
    """Bytes of activations that nodes other than products move, by kind and by the factors they shrink with."""
    products = {product.node for product in sizes.graph.linker.products}
    total: dict[tuple[Kind, tuple[int, ...]], int] = {}
    for cost in sizes.costs.nodes:
        if not cost.times or cost.node in products or not cost.read_bytes + cost.write_bytes:
            continue
        for value in (*dict.fromkeys(cost.node.inputs), *cost.node.outputs):
            if value is None or value in sizes.constants:
                continue
            axes = sizes.graph.linker.of(value) or ()
            numbers = tuple(sorted(factor.number for axis in axes for factor in sizes.factors(axis)))
            key = kind_of(cost.node.op_type), numbers
            total[key] = total.get(key, 0) + cost.times * _bytes(sizes, value)
    return total
