"""Adapts one node once lanes are gone: attributes, and constants that encode sizes.

Whatever a model computes from the shapes of its tensors keeps its old value (:meth:`Fit.pin`), for it may be a scale
as well as a size; where a size is wanted, :meth:`Fit.target` puts in the new one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from graphopt.analysis.dims import Dim
from graphopt.channels.axes import Axis
from graphopt.channels.groups import ChannelGraph
from graphopt.channels.op import Op
from graphopt.channels.records import Axes
from graphopt.channels.workpiece import Workpiece

__all__ = ["Fit"]

Indices = npt.NDArray[np.int64]


class Fit:
    """One node that touches an axis of which lanes are gone.

    Attributes:
        op: The node as it was, for reading.
    """

    def __init__(self, graph: ChannelGraph, gone: npt.NDArray[np.bool_], workpiece: Workpiece, node: ir.Node) -> None:
        self.op = Op(graph.linker, node)
        self._graph = graph
        self._gone = gone
        self._workpiece = workpiece
        self._node = workpiece.node(node)

    # -- reading -----------------------------------------------------------------------------------------------------

    def gives(self, output: int) -> Axes:
        """The axes of an output."""
        axes = self._graph.linker.of(self.op.node.outputs[output])
        assert axes is not None
        return axes

    def _ratio(self, axis: Axis) -> tuple[int, int]:
        _, before, after = self._graph.size(axis, self._gone)
        return before, after

    def changed(self, axis: Axis) -> bool:
        """Whether lanes of an axis are gone."""
        before, after = self._ratio(axis)
        return before != after

    def static(self, axis: Axis) -> int:
        """The new size of a static axis."""
        assert isinstance(axis.size, int)
        before, after = self._ratio(axis)
        return axis.size // before * after

    def outer(self, axis: Axis, size: int) -> int:
        """How many are left of the ``size`` blocks that a static axis consists of: heads, groups."""
        assert isinstance(axis.size, int)
        return len(np.unique(self.kept(axis) // (axis.size // size)))

    def kept(self, axis: Axis) -> Indices:
        """The places of a static axis that stay."""
        assert isinstance(axis.size, int)
        kept = self._graph.kept(axis, self._gone)
        return np.arange(axis.size) if kept is None else kept

    def moved(self, axis: Axis, places: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Where places of a static axis, all of which stay, have moved to."""
        rank = np.zeros(axis.size if isinstance(axis.size, int) else 0, np.int64)
        kept = self.kept(axis)
        rank[kept] = np.arange(len(kept))
        moved: npt.NDArray[np.int64] = np.asarray(rank[places])
        return moved

    def ratio(self, axes: Iterable[Axis]) -> float:
        """What share of the lanes of these axes together is left."""
        ratios = [self._ratio(axis) for axis in axes]
        return math.prod(after for _, after in ratios) / math.prod(before for before, _ in ratios)

    # -- writing -----------------------------------------------------------------------------------------------------

    def attribute(self, name: str, value: Any) -> None:
        """Sets an attribute; removes it if ``None``."""
        self._node.attributes.pop(name, None)
        if value is not None:
            self._node.attributes[name] = ir.convenience.convert_attribute(name, value)

    def constant(self, index: int, contents: npt.NDArray[Any]) -> None:
        """Gives the node another constant to read."""
        old = self._node.inputs[index] if index < len(self._node.inputs) else None
        name = None if old is None else old.name
        self._workpiece.replace_input(self.op.node, index, self._workpiece.constant(self._node, contents, name))

    def target(self, index: int, axes: Axes, *, inferable: bool) -> None:
        """Corrects the sizes that an input tells the node to give.

        Args:
            index: The input.
            axes: The axes that it tells the sizes of, in order.
            inferable: Whether -1 stands for what is left over, and 0 for what it was (Reshape).
        """
        count = self._graph.linker.shapes.of(self.op.value(index))
        if count is not None and isinstance(count[0], int) and count[0] < len(axes):
            axes = axes[len(axes) - count[0] :]  # Expand leaves out the outer ones
        changed = [self.changed(axis) for axis in axes]
        if not any(changed):
            return
        told: Sequence[Dim | None] = self.op.data(index) or (None,) * len(axes)
        may_infer = inferable and -1 not in told
        wanted: list[int | tuple[int, int]] = []  # a number, or old times / by these
        for axis, is_changed, old in zip(axes, changed, told, strict=True):
            placeholder = isinstance(old, int) and ((inferable and old < 1) or (not inferable and old == 1))
            if placeholder and (old == -1 or not isinstance(axis.size, int) or not is_changed or old == 1):
                assert isinstance(old, int)
                wanted.append(old)
            elif isinstance(axis.size, int):
                wanted.append(self.static(axis))
            elif is_changed and may_infer:
                wanted.append(-1)
                may_infer = False
            else:
                wanted.append(self._ratio(axis))
        dtype = self._dtype(index)
        if all(isinstance(one, int) for one in wanted):
            self.constant(index, np.array(wanted, dtype))
            return
        self._workpiece.replace_input(self.op.node, index, self._assembled(index, wanted, dtype))

    def _assembled(self, index: int, wanted: Sequence[int | tuple[int, int]], dtype: Any) -> ir.Value:
        """A vector of which some elements are known and the others are those of an input, corrected."""
        old = self._node.inputs[index]
        parts: list[ir.Value] = []
        for place, one in enumerate(wanted):
            if isinstance(one, int):
                parts.append(self._vector([one], dtype))
                continue
            part = self._workpiece.insert(self._node, "Gather", [old, self._vector([place], np.int64)], {"axis": 0})
            parts.append(self._corrected(part, [one[0]], [one[1]], dtype))
        return self._workpiece.insert(self._node, "Concat", parts, {"axis": 0})

    def _corrected(self, value: ir.Value, divide: Sequence[int], multiply: Sequence[int], dtype: Any) -> ir.Value:
        if list(divide) == list(multiply):
            return value
        times = self._workpiece.insert(self._node, "Mul", [value, self._vector(multiply, dtype)])
        return self._workpiece.insert(self._node, "Div", [times, self._vector(divide, dtype)])

    def _vector(self, numbers: Sequence[int], dtype: Any) -> ir.Value:
        return self._workpiece.constant(self._node, np.array(numbers, dtype), None)

    def _dtype(self, index: int) -> Any:
        dtype = self._graph.linker.shapes.dtype(self.op.value(index))
        return np.int64 if dtype is None else dtype.numpy()

    def pin(self, axes: Axes) -> None:
        """Lets what reads this Shape or Size see the old sizes."""
        if self.op.node.op_type == "Shape":
            start, end = self.op.integer("start", 0), self.op.node.attributes.get("end")
            axes = axes[start : None if end is None else end.as_int()]
        ratios = [self._ratio(axis) for axis in axes]
        if all(before == after for before, after in ratios):
            return
        output = self._node.outputs[0]
        before, after = zip(*ratios, strict=True)
        if all(isinstance(axis.size, int) for axis in axes):
            sizes = np.array([axis.size for axis in axes], np.int64)
            if self.op.node.op_type == "Size":
                sizes = np.array(math.prod(sizes.tolist()), np.int64)
            self._workpiece.redirect_to_constant(self._node, sizes)
            return
        if self.op.node.op_type == "Size":
            before, after = (math.prod(before),), (math.prod(after),)
        users = list(output.uses())
        divided = self._workpiece.insert(self._node, "Mul", [output, self._scalars(before)], after=True)
        producer = divided.producer()
        assert producer is not None
        pinned = self._workpiece.insert(producer, "Div", [divided, self._scalars(after)], after=True)
        for user, place in users:
            user.replace_input_with(place, pinned)

    def _scalars(self, numbers: Sequence[int]) -> ir.Value:
        array = np.array(numbers if self.op.node.op_type == "Shape" else numbers[0], np.int64)
        return self._workpiece.constant(self._node, array, None)

    def gather(self, axis: int, places: Indices) -> None:
        """Takes places of an axis out of what the node gives."""
        output = self._node.outputs[0]
        picked = self._workpiece.insert(
            self._node, "Gather", [output, self._vector(places.tolist(), np.int64)], {"axis": axis}, after=True
        )
        producer = picked.producer()
        assert producer is not None
        self._workpiece.redirect(output, picked, producer)

    def scale_output(self, factor: float) -> None:
        """Multiplies what the node gives."""
        if factor == 1:
            return
        dtype = self._graph.linker.shapes.dtype(self.op.node.outputs[0]) or ir.DataType.FLOAT
        output = self._node.outputs[0]
        constant = self._workpiece.constant(self._node, np.array(factor, dtype.numpy()), None)
        scaled = self._workpiece.insert(self._node, "Mul", [output, constant], after=True)
        producer = scaled.producer()
        assert producer is not None
        self._workpiece.redirect(output, scaled, producer)

    def scale_constant(self, index: int, factor: float) -> None:
        """Multiplies a weight that the node's output is proportional to."""
        value = self._node.inputs[index]
        tensor = None if value is None else value.const_value
        if tensor is None or factor == 1:
            self.scale_output(factor)
            return
        array = tensor.numpy()
        self.constant(index, (array.astype(np.float64) * factor).astype(array.dtype))
