"""One node as a rule sees it: the axes of its inputs, and what a rule may say of those of its outputs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from graphopt import walk
from graphopt.analysis import constants
from graphopt.analysis.dims import Dim
from graphopt.channels.axes import LARGEST, Axis, align, freeze, unite, with_leaves
from graphopt.channels.records import Axes, Indices, Link, Place, Product, Sum, ZeroPoint

if TYPE_CHECKING:
    from graphopt.channels.linker import Linker

__all__ = ["Op", "Unlinkable", "link_vector", "link_vectors"]


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

    def axis(self, default: int, rank: int) -> int:
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
        if count > LARGEST:
            return  # both are frozen
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
