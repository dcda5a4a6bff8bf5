"""Relates the axes of all values of a model, operator by operator.

Each rule (``rules``) sees one node as an :class:`Op`: the axes of its inputs, and methods to say what its outputs'
axes are. Weights are values like any other, so a member of a unit is simply a slice of a constant along an axis.

A lane is *zero* when masking it, which zeroes the slices of all constants along it, makes every element of it zero.
Sums over lanes need that; products with a masked weight do not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from graphopt import walk
from graphopt.analysis import constants
from graphopt.analysis.constness import initializer_inputs_are_fixed
from graphopt.analysis.dims import Dim
from graphopt.analysis.shapes import Shapes
from graphopt.channels.axes import Axis, align, freeze, unite, with_leaves

__all__ = [
    "Axes",
    "Link",
    "Linker",
    "Op",
    "Place",
    "Product",
    "Sum",
    "Unlinkable",
    "ZeroPoint",
    "link_vector",
    "link_vectors",
]

Axes = tuple[Axis, ...]
Indices = npt.NDArray[np.int64]


class Place(NamedTuple):
    """Where a constant is read: what two readers of one vector do with it need not agree.

    Attributes:
        node: The reader; ``None`` for constants that have the same axes for all their readers.
        slot: The number of its input.
        value: The constant.
    """

    node: ir.Node | None
    slot: int
    value: ir.Value


class Link(NamedTuple):
    """Elements of two axes that go together: flat indices of both, pair by pair.

    ``b`` is ``None`` where the elements of ``a`` must stay.
    """

    a: Axis
    a_indices: Indices
    b: Axis | None
    b_indices: Indices
    node: ir.Node


class ZeroPoint(NamedTuple):
    """What stands for zero in an integer constant.

    Attributes:
        value: Holds it, one for all or one for each place along ``axis``; ``None`` for zero itself.
        axis: An axis of the constant.
    """

    value: ir.Value | None
    axis: int


class Sum(NamedTuple):
    """An input that a node adds up along an axis.

    Attributes:
        node: The node.
        input: The number of its input.
        axis: The axis of it.
        factor: The number of the input that it is multiplied with first; ``None`` if with none.
        factor_axis: The axis of that one which runs along.
    """

    node: ir.Node
    input: int
    axis: int
    factor: int | None
    factor_axis: int


class Product(NamedTuple):
    """A node that multiplies and adds: ``macs`` is the product of the sizes of ``axes``."""

    node: ir.Node
    axes: Axes


class Linker:
    """What the rules say of one model, and all there is to compute groups from.

    Attributes:
        model: The model; weights are not read.
        shapes: Its shapes.
        axes: The axes of each value with a known rank.
        constants: The axes of each constant, by where it is read.
        zero: For each axis of a value, whether masked lanes along it are zero.
        links: Elements that go together though their axes do not.
        products: Where the work is.
        sums: Where lanes are added up.
        kept: Constants that masking must not zero, such as scales, by where they are read.
        scaled: Nodes that average over lanes that are zero, with the axes: exact once corrected for their number.
        normalized: Nodes that take statistics, and over which axes.
        zero_points: What masking puts into quantized constants.
        generated: Weights that a node makes from their shape alone.
        nodes: Every node, those nested in another before it.
    """

    def __init__(self, model: ir.Model, *, may_shrink: Callable[[str], bool] = lambda _: False) -> None:
        self.model = model
        self.shapes = Shapes(model, believe_declared=True)
        self.axes: dict[ir.Value, Axes | None] = {}
        self.constants: dict[Place, Axes] = {}
        self.zero: dict[ir.Value, tuple[bool, ...]] = {}
        self.links: list[Link] = []
        self.products: list[Product] = []
        self.sums: list[Sum] = []
        self.kept: set[Place] = set()
        self.scaled: dict[ir.Node, Axes] = {}
        self.normalized: dict[ir.Node, list[Axis]] = {}
        self.zero_points: dict[Place, ZeroPoint] = {}
        self.generated: list[ir.Value] = []
        self.nodes: list[ir.Node] = []
        self._fixed = initializer_inputs_are_fixed(model)
        self._may_shrink = may_shrink
        self._opsets: dict[ir.Graph | None, int] = {}
        self._run()

    def opset(self, node: ir.Node) -> int:
        """The version of ONNX's own operator set where the node stands."""
        return self._opsets.get(node.graph, 0)

    def _run(self) -> None:
        from graphopt.channels.rules import RULES

        for value in self.model.graph.inputs:
            if not (value.is_initializer() and self._fixed):
                self._boundary(value, "it is part of the model's input")
        ordered = list(walk.scopes(self.model))
        for scope in ordered:
            self._opsets[scope.graph] = scope.opset.get("", 0)
        self._walk(self.model.graph, RULES)
        for value in self.model.graph.outputs:
            self._boundary(value, "it is part of the model's output")

    def _boundary(self, value: ir.Value, reason: str) -> None:
        if not self._may_shrink(value.name or ""):
            for axis in self.of(value) or ():
                freeze(axis, None, reason)

    def _walk(self, graph: ir.Graph, rules: Any) -> None:
        for node in graph:
            # what is nested comes first: its outputs are what the node's rule relates
            for inner in walk.subgraphs(node):
                for value in inner.inputs:
                    for axis in self.of(value) or ():
                        freeze(axis, node, "it enters the body of a loop")
                self._walk(inner, rules)
            if node.op_type == "Constant" and not node.domain:
                continue
            operator = f"{node.domain}::{node.op_type}" if node.domain else node.op_type
            rule = rules.get(operator)
            op = Op(self, node)
            if rule is None or any(attribute.is_ref() for attribute in node.attributes.values()):
                op.freeze_all(f"{node.op_type} has no rule")
            else:
                try:
                    rule.link(op)
                except Unlinkable as error:
                    op.freeze_all(str(error))
            op.finish()
            self.nodes.append(node)

    # -- axes --------------------------------------------------------------------------------------------------------

    def of(self, value: ir.Value) -> Axes | None:
        """The axes of a value; ``None`` when its rank is unknown."""
        if value not in self.axes:
            shape = self.shapes.of(value)
            self.axes[value] = None if shape is None else tuple([Axis(size) for size in shape])
            constant = self.constant(value)
            axes = self.axes[value] or ()
            # A constant is masked to zero; what is computed says for itself.
            self.zero.setdefault(value, (constant is not None,) * len(axes))
            if constant is not None:
                self.constants[Place(None, 0, value)] = axes
            elif value.is_initializer():
                for axis in axes:
                    freeze(axis, None, "the caller may override it")
        return self.axes[value]

    def constant(self, value: ir.Value) -> ir.TensorProtocol | None:
        """The tensor that a value always holds."""
        if value.is_initializer() and value.is_graph_input() and self._fixed:
            return value.const_value
        return constants.constant(value)


class Unlinkable(Exception):
    """A rule does not cover this form of its operator."""


class Op:
    """One node, as a rule sees it."""

    def __init__(self, linker: Linker, node: ir.Node) -> None:
        self.linker = linker
        self.node = node
        self._seen: set[int] = set()
        self._done: set[int] = set()

    # -- reading -----------------------------------------------------------------------------------------------------

    @property
    def opset(self) -> int:
        """The version of ONNX's own operator set."""
        return self.linker.opset(self.node)

    def has(self, index: int) -> bool:
        """Whether an input is given."""
        return index < len(self.node.inputs) and self.node.inputs[index] is not None

    def value(self, index: int) -> ir.Value:
        """An input."""
        value = self.node.inputs[index] if index < len(self.node.inputs) else None
        if value is None:
            raise Unlinkable(f"{self.node.op_type} lacks an input")
        return value

    def axes(self, index: int) -> Axes:
        """The axes of an input; a vector of constants has its own for each of its readers."""
        value = self.value(index)
        self._seen.add(index)
        shared = self.linker.of(value)
        if shared is None:
            raise Unlinkable(f"{self.node.op_type} reads a tensor of unknown rank")
        if sum(axis.size != 1 for axis in shared) != 1 or self.linker.constant(value) is None:
            return shared
        return self.linker.constants.setdefault(
            Place(self.node, index, value), tuple([Axis(axis.size, axis.frozen) for axis in shared])
        )

    def place(self, index: int) -> Place:
        """Where a constant input is registered."""
        value = self.value(index)
        own = Place(self.node, index, value)
        return own if own in self.linker.constants else Place(None, 0, value)

    def _own_place(self, index: int) -> Place:
        """Where a constant input is registered, apart from its other readers: masking differs for this one."""
        axes, value = self.axes(index), self.value(index)
        if len(value.uses()) > 1:
            self.linker.constants.setdefault(Place(self.node, index, value), axes)
        return self.place(index)

    def is_constant(self, index: int) -> bool:
        """Whether an input is the same in every run."""
        return self.has(index) and self.linker.constant(self.value(index)) is not None

    def is_zero(self, index: int, axis: int) -> bool:
        """Whether masked lanes of an input are zero."""
        self.axes(index)
        return self.linker.zero[self.value(index)][axis]

    def zeros(self, index: int) -> tuple[bool, ...]:
        """:meth:`is_zero` of every axis."""
        self.axes(index)
        return self.linker.zero[self.value(index)]

    def shape(self, output: int = 0) -> tuple[Dim, ...]:
        """The shape of an output."""
        shape = self.linker.shapes.of(self.node.outputs[output])
        if shape is None:
            raise Unlinkable(f"the shape that {self.node.op_type} gives is unknown")
        return shape

    def data(self, index: int) -> tuple[Dim, ...] | None:
        """The contents of a small integer input."""
        return self.linker.shapes.data(self.value(index)) if self.has(index) else None

    def ints(self, index: int) -> tuple[int, ...] | None:
        """The contents of a small integer input, where all are known."""
        data = self.data(index)
        if data is None:
            return None
        known = [item for item in data if isinstance(item, int)]
        return tuple(known) if len(known) == len(data) else None

    def indices(self, index: int) -> npt.NDArray[Any] | None:
        """The contents of a constant integer input of any size."""
        value = self.value(index)
        tensor = self.linker.constant(value)
        if tensor is None or tensor.dtype not in (ir.DataType.INT64, ir.DataType.INT32):
            return None
        return tensor.numpy()

    def scalar(self, index: int) -> float | None:
        """The one number that a constant input holds."""
        if not self.has(index):
            return None
        number = constants.scalar(self.value(index))
        return None if number is None else float(number)

    def integer(self, name: str, default: int) -> int:
        """An integer attribute."""
        return self.node.attributes.get_int(name, default)

    def integers(self, name: str) -> tuple[int, ...] | None:
        """An integer-list attribute."""
        attribute = self.node.attributes.get(name)
        return None if attribute is None else tuple(attribute.as_ints())

    def axis(self, index: int, default: int, rank: int) -> int:
        """The attribute ``axis``, counted from the front."""
        axis = self.integer("axis", default)
        if not -rank <= axis < rank:
            raise Unlinkable(f"{self.node.op_type} names an axis that is not there")
        return axis % rank

    # -- relating ----------------------------------------------------------------------------------------------------

    def unite(self, a: Axis, b: Axis) -> None:
        """Two axes are one."""
        unite(a, b, self.node)

    def align(self, a: Iterable[Axis], b: Iterable[Axis]) -> None:
        """Two lists of axes hold the same elements in the same order."""
        align(a, b, self.node)

    def freeze(self, axis: Axis, reason: str) -> None:
        """An axis keeps its size."""
        freeze(axis, self.node, reason)

    def new(self, size: Dim, reason: str = "") -> Axis:
        """An axis that starts here; frozen if there is a reason."""
        axis = Axis(size)
        if reason:
            freeze(axis, self.node, reason)
        return axis

    def spatial(self, size: Dim) -> Axis:
        """An axis whose positions are mixed with their neighbours."""
        return self.new(size, "positions are mixed with their neighbours")

    def channel(self, *axes: Axis) -> None:
        """Weights are laid out along these axes."""
        for axis in axes:
            for one in with_leaves(axis):
                one.role.channel = True

    def contract(self, a: int, a_axis: int, b: int, b_axis: int) -> None:
        """Products of two inputs are added up along an axis of each."""
        first, second = self.axes(a)[a_axis], self.axes(b)[b_axis]
        self.unite(first, second)
        self.channel(first)
        self.linker.sums.append(Sum(self.node, a, a_axis, b, b_axis))
        if not (self.is_zero(a, a_axis) or self.is_zero(b, b_axis)):
            self._needs_zero(first)

    def add_up(self, index: int, axis: int) -> None:
        """An input is added up along an axis, which only zero lanes may be left out of."""
        self.linker.sums.append(Sum(self.node, index, axis, None, 0))
        if not self.is_zero(index, axis):
            self._needs_zero(self.axes(index)[axis])

    def _needs_zero(self, axis: Axis) -> None:
        self.freeze(axis, f"{self.node.op_type} adds up lanes that are not zero when masked")

    def statistics(self, axis: Axis) -> None:
        """The node normalizes by statistics over the axis."""
        self.linker.normalized.setdefault(self.node, []).append(axis)

    def keep(self, index: int) -> None:
        """Masking must not zero this constant."""
        if self.is_constant(index):
            self.linker.kept.add(self._own_place(index))

    def quantized(self, index: int, point: int | None, axis: int) -> None:
        """A constant is integer and masked to a zero point, that of input ``point``."""
        if self.is_constant(index):
            value = self.value(point) if point is not None and self.has(point) else None
            if value is not None and self.linker.constant(value) is None:
                raise Unlinkable(f"{self.node.op_type} with a zero point that is computed has no rule")
            self.linker.zero_points[self._own_place(index)] = ZeroPoint(value, axis)

    def link(self, a: Axis, a_indices: Indices, b: Axis | None, b_indices: Indices | None = None) -> None:
        """Elements of two axes go together, or those of one must stay."""
        pairs = a_indices if b_indices is None else b_indices
        self.linker.links.append(Link(a, a_indices, b, pairs, self.node))

    def link_range(self, a: Axis, start: int, b: Axis, b_start: int, count: int) -> None:
        """A run of elements of one axis goes with a run of another."""
        run = np.arange(count, dtype=np.int64)
        self.link(a, run + start, b, run + b_start)

    def work(self, *axes: Axis) -> None:
        """The node takes as many multiplications as the product of these axes."""
        self.linker.products.append(Product(self.node, axes))

    def give(self, axes: Sequence[Axis], zero: Sequence[bool] | bool = False, output: int = 0) -> None:
        """Says what the axes of an output are, and whether masked lanes along each are zero."""
        if output >= len(self.node.outputs):
            return
        value = self.node.outputs[output]
        self.linker.axes[value] = tuple(axes)
        self.linker.zero[value] = (zero,) * len(axes) if isinstance(zero, bool) else tuple(zero)
        self._done.add(output)

    def uses(self, output: int) -> bool:
        """Whether anything reads an output."""
        if output >= len(self.node.outputs):
            return False
        value = self.node.outputs[output]
        return bool(value.uses()) or value.is_graph_output()

    def freeze_all(self, reason: str) -> None:
        """Everything that the node reads or gives keeps its size."""
        for value in self.node.inputs:
            for axis in (value is not None and self.linker.of(value)) or ():
                freeze(axis, self.node, reason)
        for index in range(len(self.node.inputs)):
            own = self.linker.constants.get(Place(self.node, index, self.node.inputs[index]))  # type: ignore[arg-type]
            for axis in own or ():
                freeze(axis, self.node, reason)
        for output in self.node.outputs:
            self.linker.axes.pop(output, None)
            for axis in self.linker.of(output) or ():
                freeze(axis, self.node, reason)
            self._done.update(range(len(self.node.outputs)))
        for graph in walk.subgraphs(self.node):
            for output in graph.outputs:
                for axis in self.linker.of(output) or ():
                    freeze(axis, self.node, reason)

    def finish(self) -> None:
        """What the rule said nothing of keeps its size: sizes and pads among the inputs; all, if a rare output is."""
        if any(self.uses(index) for index in range(len(self.node.outputs)) if index not in self._done):
            self.freeze_all(f"{self.node.op_type} gives an output of fixed size")
        for index, value in enumerate(self.node.inputs):
            if value is not None and index not in self._seen:
                for axis in self.linker.of(value) or ():
                    freeze(axis, self.node, f"{self.node.op_type} reads it as a whole")
        for index, output in enumerate(self.node.outputs):
            if index not in self._done:
                for axis in self.linker.of(output) or ():
                    freeze(axis, self.node, f"{self.node.op_type} gives an output of fixed size")


def link_vector(op: Op, index: int, channels: Axis) -> bool:
    """Unites a vector of one number a channel with the channels.

    Returns:
        Whether masking zeroes it.
    """
    (axis,) = op.axes(index)
    if axis.size == 1 and channels.size != 1:
        return False
    op.unite(axis, channels)
    return op.is_zero(index, 0)


def link_vectors(op: Op, indices: Iterable[int], channels: Axis) -> bool:
    """:func:`link_vector` of several inputs.

    Returns:
        Whether masking zeroes all of them.
    """
    return all([link_vector(op, index, channels) for index in indices])  # noqa: C419 - each one has to be linked
