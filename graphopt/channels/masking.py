"""The masked model: every tensor keeps its size, and the lanes that would go count for nothing.

That is what removal is compared with. Slices of constants become zero (the zero point where they are quantized), and
normalizations over a masked axis take their statistics over the other lanes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from graphopt.analysis import constants
from graphopt.channels.axes import find, leaves
from graphopt.channels.groups import ChannelGraph
from graphopt.channels.records import Axes, Place
from graphopt.channels.slicing import constants_of
from graphopt.channels.tensors import MaskedTensor
from graphopt.channels.workpiece import Workpiece

__all__ = ["cover"]

Gone = npt.NDArray[np.bool_]
Array = npt.NDArray[Any]


def cover(graph: ChannelGraph, gone: Gone, change: Callable[[Workpiece], None] | None = None) -> ir.Model:
    """A copy of the graph's model in which the atoms ``gone`` count for nothing.

    Args:
        graph: The channel graph of the model.
        gone: The atoms.
        change: What else is done to the copy, once constants are masked, and as long as all nodes are there.
    """
    workpiece = Workpiece(graph.model)
    for places in constants_of(graph).values():
        for place, axes in places.items():
            if place not in graph.linker.kept:
                _zero(graph, gone, workpiece, place, axes)
    for value in graph.linker.generated:
        _zero_generated(graph, gone, workpiece, value)
    if change is not None:
        change(workpiece)
    for node in graph.linker.nodes:
        over = _normalized(graph, gone, node)
        if over is not None:
            _Statistics(graph, gone, workpiece, node, over).replace()
    workpiece.remove_orphans()
    return workpiece.model


def _zero(graph: ChannelGraph, gone: Gone, workpiece: Workpiece, place: Place, axes: Axes) -> None:
    tensor = graph.linker.constant(place.value)
    assert tensor is not None
    point = graph.linker.zero_points.get(place)
    if tensor.dtype is ir.DataType.STRING:
        return
    kept = [graph.kept(axis, gone) for axis in axes]
    if all(one is None for one in kept):
        return
    fill: Any = 0
    if point is not None and point.value is not None:
        points = constants.constant(point.value)
        assert points is not None
        fill = points.numpy()
        if fill.ndim:
            fill = fill.reshape([-1 if axis == point.axis else 1 for axis in range(len(axes))])
    masked = MaskedTensor(
        tensor,
        [None if one is None else _others(one, size) for one, size in zip(kept, tensor.shape.numpy(), strict=True)],
        fill,
    )
    readers = place.value.uses() if place.node is None else [(place.node, place.slot)]
    for node, index in readers:
        if place.node is not None or Place(node, index, place.value) not in graph.linker.constants:
            copy = workpiece.node(node)
            workpiece.replace_input(node, index, workpiece.constant(copy, masked, place.value.name))


def _others(kept: npt.NDArray[np.int64], size: int) -> Gone:
    dead = np.ones(size, bool)
    dead[kept] = False
    return dead


def _zero_generated(graph: ChannelGraph, gone: Gone, workpiece: Workpiece, value: ir.Value) -> None:
    axes = graph.linker.of(value) or ()
    dtype = graph.linker.shapes.dtype(value)
    for place, axis in enumerate(axes):
        kept = graph.kept(axis, gone)
        if kept is None or dtype is None:
            continue
        assert isinstance(axis.size, int)
        mask = np.zeros(axis.size, dtype.numpy())
        mask[kept] = 1
        copy = workpiece.value(value)
        node = copy.producer()
        assert node is not None
        users = list(copy.uses())
        factor = workpiece.constant(node, mask.reshape([-1 if at == place else 1 for at in range(len(axes))]), None)
        masked = workpiece.insert(node, "Mul", [copy, factor], after=True)
        for user, index in users:
            user.replace_input_with(index, masked)


def _normalized(graph: ChannelGraph, gone: Gone, node: ir.Node) -> list[int] | None:
    """The axes of its first input that a node normalizes over, if lanes of one of them are gone."""
    over = graph.linker.normalized.get(node)
    value = node.inputs[0] if node.inputs else None
    if over is None or value is None:
        return None
    factors = {find(leaf) for axis in over for leaf in leaves(axis)}
    axes = graph.linker.of(value) or ()
    places = [place for place, axis in enumerate(axes) if any(find(leaf) in factors for leaf in leaves(axis))]
    return places if any(graph.size(axes[place], gone)[1:] != (1, 1) for place in places) else None


class _Statistics:
    """Replaces one normalization by what it computes, with the mask in it."""

    def __init__(
        self, graph: ChannelGraph, gone: Gone, workpiece: Workpiece, node: ir.Node, over: Sequence[int]
    ) -> None:
        self._graph = graph
        self._gone = gone
        self._workpiece = workpiece
        self._original = node
        self._node = workpiece.node(node)
        self._over = list(over)
        dtype = graph.linker.shapes.dtype(node.outputs[0]) or ir.DataType.FLOAT
        self._dtype = dtype.numpy()
        axes = graph.linker.of(node.inputs[0]) if node.inputs[0] is not None else None
        assert axes is not None
        self._axes = axes

    def replace(self) -> None:
        """Puts the masked computation in place."""
        x = self._node.inputs[0]
        assert x is not None
        result = _MASKED[self._original.op_type](self, x)
        output = self._node.outputs[0]
        for user, index in list(output.uses()):
            user.replace_input_with(index, result)
        if output.is_graph_output():
            self._workpiece.redirect(output, result, self._node)
        self._workpiece.forget(self._node)

    def reduce_mean(self, x: ir.Value) -> ir.Value:
        """ReduceMean, as half of a decomposed normalization."""
        mean = self._mean(x)
        return mean if self._integer("keepdims", 1) else self._op("Squeeze", [mean, self._ints(self._over)])

    def layer_norm(self, x: ir.Value) -> ir.Value:
        """LayerNormalization."""
        return self._affine(self._standardized(x, self._epsilon()), 1, 2, None)

    def instance_norm(self, x: ir.Value) -> ir.Value:
        """InstanceNormalization."""
        shape = [1, -1] + [1] * (len(self._axes) - 2)
        return self._affine(self._standardized(x, self._epsilon()), 1, 2, shape)

    def skip_layer_norm(self, x: ir.Value) -> ir.Value:
        """com.microsoft SkipLayerNormalization, whose fourth output is the sum."""
        inputs = self._node.inputs
        total = self._op("Add", [x, inputs[1]])
        if len(inputs) > 4 and inputs[4] is not None:
            total = self._op("Add", [total, inputs[4]])
        if len(self._node.outputs) > 3:
            self._workpiece.redirect(self._node.outputs[3], total, self._node)
        return self._affine(self._standardized(total, self._epsilon(1e-12)), 2, 3, None)

    def mean_variance(self, x: ir.Value) -> ir.Value:
        """MeanVarianceNormalization."""
        return self._standardized(x, 1e-9)

    def group_norm(self, x: ir.Value) -> ir.Value:
        """GroupNormalization."""
        return self._group_norm(x, self._integer("num_groups", 1), self._epsilon())

    def _integer(self, name: str, default: int) -> int:
        return self._original.attributes.get_int(name, default)

    def _epsilon(self, default: float = 1e-5) -> float:
        return self._original.attributes.get_float("epsilon", default)

    def _op(
        self, op_type: str, inputs: Sequence[ir.Value | None], attributes: dict[str, Any] | None = None
    ) -> ir.Value:
        return self._workpiece.insert(self._node, op_type, inputs, attributes)

    def _floats(self, contents: Any) -> ir.Value:
        return self._workpiece.constant(self._node, np.asarray(contents, self._dtype), None)

    def _ints(self, contents: Sequence[int]) -> ir.Value:
        return self._workpiece.constant(self._node, np.array(contents, np.int64), None)

    def _mask(self, x: ir.Value, place: int) -> ir.Value | None:
        """Ones and zeros along an axis, shaped to multiply ``x``."""
        axis = self._axes[place]
        shape = [-1 if at == place else 1 for at in range(len(self._axes))]
        if isinstance(axis.size, int):
            kept = self._graph.kept(axis, self._gone)
            if kept is None:
                return None
            mask = np.zeros(axis.size)
            mask[kept] = 1
            return self._floats(mask.reshape(shape))
        # Static factors followed by symbolic ones, such as c*H*W where an image has any size.
        factors = leaves(axis)
        leading = 1
        mask = np.ones(1)
        for leaf in factors:
            if not isinstance(leaf.size, int):
                break
            own = np.ones(leaf.size)
            kept = self._graph.kept(leaf, self._gone)
            if kept is not None:
                own[:] = 0
                own[kept] = 1
            mask = (mask[:, None] * own[None, :]).reshape(-1)
            leading *= leaf.size
        if mask.all():
            return None
        size = self._op("Gather", [self._op("Shape", [x]), self._ints([place])], {"axis": 0})
        rest = self._op("Div", [size, self._ints([leading])])
        target = self._op("Concat", [self._ints([leading]), rest], {"axis": 0})
        wide = self._op("Expand", [self._floats(mask[:, None]), target])
        return self._op("Reshape", [wide, self._ints(shape)])

    def _mean(self, x: ir.Value) -> ir.Value:
        """The mean over the lanes that stay."""
        ratio = 1.0
        for place in self._over:
            mask = self._mask(x, place)
            if mask is not None:
                x = self._op("Mul", [x, mask])
            _, before, after = self._graph.size(self._axes[place], self._gone)
            ratio *= before / after
        if self._opset >= 18:
            mean = self._op("ReduceMean", [x, self._ints(self._over)], {"keepdims": 1})
        else:
            mean = self._op("ReduceMean", [x], {"axes": self._over, "keepdims": 1})
        return self._op("Mul", [mean, self._floats(ratio)])

    @property
    def _opset(self) -> int:
        return self._graph.linker.opset(self._original)

    def _standardized(self, x: ir.Value, epsilon: float) -> ir.Value:
        centred = self._op("Sub", [x, self._mean(x)])
        variance = self._mean(self._op("Mul", [centred, centred]))
        deviation = self._op("Sqrt", [self._op("Add", [variance, self._floats(epsilon)])])
        return self._op("Div", [centred, deviation])

    def _affine(self, x: ir.Value, scale: int, bias: int, shape: list[int] | None) -> ir.Value:
        for index, op_type in ((scale, "Mul"), (bias, "Add")):
            value = self._node.inputs[index] if index < len(self._node.inputs) else None
            if value is not None:
                if shape is not None:
                    value = self._op("Reshape", [value, self._ints(shape)])
                x = self._op(op_type, [x, value])
        return x

    def _group_norm(self, x: ir.Value, groups: int, epsilon: float) -> ir.Value:
        """As (N, groups, channels of a group, rest)."""
        channels = self._axes[1]
        assert isinstance(channels.size, int)
        inner = channels.size // groups
        apart = self._op("Reshape", [x, self._ints([0, groups, inner, -1])])
        kept = self._graph.kept(channels, self._gone)
        mask = np.zeros(channels.size)
        mask[np.arange(channels.size) if kept is None else kept] = 1
        share = self._floats(mask.reshape(1, groups, inner, 1))
        left = self._floats(inner / mask.reshape(groups, inner).sum(axis=1).max())

        def mean(value: ir.Value) -> ir.Value:
            masked = self._op("Mul", [value, share])
            return self._op("Mul", [self._op("ReduceMean", [masked, self._ints([2, 3])], {"keepdims": 1}), left])

        centred = self._op("Sub", [apart, mean(apart)])
        variance = mean(self._op("Mul", [centred, centred]))
        normal = self._op("Div", [centred, self._op("Sqrt", [self._op("Add", [variance, self._floats(epsilon)])])])
        scale = self._node.inputs[1]
        size = None if scale is None or scale.shape is None else scale.shape[0]
        if size == groups:
            normal = self._affine(normal, 1, 2, [1, -1, 1, 1])
        else:
            normal = self._affine(normal, 1, 2, [1, groups, inner, 1])
        return self._op("Reshape", [normal, self._op("Shape", [x])])


_MASKED = {
    "GroupNormalization": _Statistics.group_norm,
    "InstanceNormalization": _Statistics.instance_norm,
    "LayerNormalization": _Statistics.layer_norm,
    "MeanVarianceNormalization": _Statistics.mean_variance,
    "ReduceMean": _Statistics.reduce_mean,
    "SkipLayerNormalization": _Statistics.skip_layer_norm,
}
"""Every operator whose rule says that it takes statistics."""
