"""Moves what constant lanes add to a sum into a bias, so that the lanes can go."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from graphopt.analysis import constants
from graphopt.channels.groups import ChannelGraph
from graphopt.channels.liveness.lanes import Floats, Step
from graphopt.channels.liveness.rules.linear import pads_nothing
from graphopt.channels.records import Sum
from graphopt.channels.workpiece import Workpiece

__all__ = ["Fold", "takes_constants"]

_CHUNK = 1 << 20  # elements of a weight that are read at a time


def takes_constants(step: Step, total: Sum) -> bool:
    """Whether what constant lanes of input ``total.input`` add to the sum is one number for each output channel.

    Not where a convolution pads: its window then holds fewer of them at the border.
    """
    if total.factor is None or (total.input, total.factor) not in ((0, 1), (1, 0)):
        return False
    weight = step.linker.constant(step.value(total.factor))
    if weight is None or weight.dtype not in constants.FLOAT_TYPES or step.node.domain:
        return False
    if step.node.op_type == "Conv":
        bias = not step.has(2) or step.is_constant(2)
        return total.input == 0 and bias and pads_nothing(step)
    if step.node.op_type == "Gemm":
        return total.input == 0
    return step.node.op_type == "MatMul" and len(weight.shape) == 2


@dataclasses.dataclass(frozen=True, slots=True)
class Fold:
    """What the lanes that go add to one sum.

    Attributes:
        node: Adds up.
        axis: Of its output, along which the summands differ.
        shift: The summands.
        dtype: What they are stored as.
    """

    node: ir.Node
    axis: int
    shift: Floats
    dtype: npt.DTypeLike

    @classmethod
    def of(cls, step: Step, total: Sum, lanes: Floats) -> Fold:
        """The fold of ``lanes`` (0 for those that stay) of the input that ``total`` adds up."""
        assert total.factor is not None
        weight = step.linker.constant(step.value(total.factor))
        assert weight is not None
        array = weight.numpy()
        dtype = array.dtype.newbyteorder("=")
        rank = len(step.gives())
        if step.node.op_type == "Conv":
            group = step.integer("group", 1)
            inner = array.shape[1]
            blocks = array.reshape(group, -1, *array.shape[1:])
            own = [_times(block, 1, lanes[at * inner : (at + 1) * inner]) for at, block in enumerate(blocks)]
            return cls(step.node, 1, np.concatenate(own), dtype)
        shift = _times(array, total.factor_axis, lanes)
        if step.node.op_type == "Gemm":
            return cls(step.node, 1, step.node.attributes.get_float("alpha", 1.0) * shift, dtype)
        columns = total.factor == 1 or len(step.axes(1)) == 1
        return cls(step.node, rank - (1 if columns else 2), shift, dtype)

    @property
    def fits(self) -> bool:
        """Whether the summands are numbers of their type."""
        with np.errstate(over="ignore"):
            return bool(np.isfinite(self.shift.astype(self.dtype)).all())

    def apply(self, graph: ChannelGraph, gone: npt.NDArray[np.bool_], workpiece: Workpiece) -> None:
        """Adds the summands, in a bias where there is one to add them to."""
        axes = graph.linker.axes[self.node.outputs[0]]
        if not self.shift.any() or axes is None:
            return
        kept = graph.kept(axes[self.axis], gone)
        found = self._adder(graph)
        if found is not None:
            node, index, shift = found
            shift = shift if kept is None else shift[kept]
            old = node.inputs[index] if index < len(node.inputs) else None
            name, rank = (f"{node.name or node.op_type}_bias", 1) if old is None else (old.name, self._rank(graph, old))
            shift = shift.reshape([1] * (rank - 1) + [-1])  # a rank above the product's is one of the result's
            bias = workpiece.constant(workpiece.node(node), shift.astype(self.dtype), name)
            workpiece.replace_input(node, index, bias)
            return
        copy, shift = workpiece.node(self.node), self.shift if kept is None else self.shift[kept]
        output = copy.outputs[0]
        shape = [-1, *[1] * (len(axes) - self.axis - 1)]
        constant = workpiece.constant(copy, shift.reshape(shape).astype(self.dtype), None)
        moved = workpiece.insert(copy, "Add", [output, constant], after=True)
        moved.type, moved.shape = output.type, output.shape
        producer = moved.producer()
        assert producer is not None
        workpiece.redirect(output, moved, producer)

    def _adder(self, graph: ChannelGraph) -> tuple[ir.Node, int, Floats] | None:
        """The node that adds a bias to the sum, its input with it, and what the bias is with the summands."""
        node, index = self.node, 2
        if node.op_type == "MatMul":
            uses = list(node.outputs[0].uses())
            if len(uses) != 1 or node.outputs[0].is_graph_output() or uses[0].node.op_type != "Add":
                return None
            index = 1 - uses[0].idx
            node = uses[0].node
            if node.domain or node.graph is not self.node.graph:
                return None
        elif node.op_type == "Gemm" and node.attributes.get_float("beta", 1.0) != 1:
            return None
        bias = node.inputs[index] if index < len(node.inputs) else None
        if bias is None:
            return None if node.op_type == "Add" else (node, index, self.shift)
        tensor, shape = graph.linker.constant(bias), self.shift.shape
        if tensor is None or self.axis != (1 if node.op_type == "Conv" else self._last(graph)):
            return None
        if math.prod(tensor.shape.numpy()) != len(self.shift) or tensor.shape.numpy()[-1:] != shape:
            return None
        return node, index, np.asarray(tensor.numpy(), np.float64).reshape(-1) + self.shift

    def _rank(self, graph: ChannelGraph, bias: ir.Value) -> int:
        tensor = graph.linker.constant(bias)
        assert tensor is not None
        return len(tensor.shape)

    def _last(self, graph: ChannelGraph) -> int:
        return len(graph.linker.axes[self.node.outputs[0]] or ()) - 1


def _times(array: npt.NDArray[Any], axis: int, lanes: Floats) -> Floats:
    """The products of lanes with the slices of a weight along an axis, added up; by places of axis 1 - ``axis``."""
    total = np.zeros(array.shape[1 - axis])
    places = np.flatnonzero(lanes)
    step = max(1, _CHUNK * array.shape[axis] // max(1, array.size))
    others = tuple(range(2, array.ndim))
    for start in range(0, len(places), step):
        some = places[start : start + step]
        slices = array.take(some, axis).astype(np.float64).sum(axis=others)
        total += lanes[some] @ (slices.T if axis == 1 else slices)
    return total
