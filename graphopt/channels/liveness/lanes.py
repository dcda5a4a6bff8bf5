"""What each lane of each value always is, whatever the model is fed.

A lane is one place of one axis: a channel of an image, a head, a hidden unit. It is *constant* when all its elements
are one number in every run, as those are that a filter of zeros gives. Lanes are followed forwards through the model,
operator by operator (``rules``); an operator without a rule gives lanes of which nothing is known.

An axis that is symbolic in part has one lane for each place of its static factors.
"""

from __future__ import annotations

import collections
import contextlib
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from graphopt import runtime
from graphopt.channels.axes import LARGEST, Axis, find, leaves
from graphopt.channels.groups import ChannelGraph
from graphopt.channels.liveness.uniform import of_all, uniform
from graphopt.channels.op import Op, Unlinkable
from graphopt.channels.records import Axes, Link, Place
from graphopt.errors import ModelError
from graphopt.names import operator

__all__ = [
    "Floats",
    "Lanes",
    "Rule",
    "Step",
    "carrying",
    "nothing",
    "rounded",
    "same",
    "static",
    "with_settings",
    "zero_only",
]

Floats = npt.NDArray[np.float64]
"""A number a lane, NaN where it is not known to be constant."""


def nothing(size: int) -> Floats:
    """Lanes of which nothing is known."""
    return np.full(size, np.nan)


def rounded(lanes: Floats, dtype: ir.DataType) -> Floats:
    """Lanes as a type holds them; what is too large for it, or no whole number of a type of those, is not known."""
    if np.isnan(lanes).all():
        return lanes
    with np.errstate(all="ignore"):
        held = lanes.astype(dtype.numpy()).astype(np.float64)
    known = np.isfinite(lanes) & np.isfinite(held)
    return np.where(known if dtype.is_floating_point() else held == lanes, held, np.nan)


def static(axis: Axis) -> list[Axis]:
    """The static factors of an axis, outermost first."""
    return [leaf for leaf in map(find, leaves(axis)) if isinstance(leaf.size, int) and leaf.size != 1]


class Lanes:
    """The lanes of all values of a model.

    Attributes:
        graph: The units that lanes belong to.
        links: Elements that go together, by the node that moves them.
    """

    def __init__(self, graph: ChannelGraph) -> None:
        from graphopt.channels.liveness.rules import RULES

        self.graph = graph
        self.links: Mapping[ir.Node, list[Link]] = collections.defaultdict(list)
        self._known: dict[ir.Value, dict[int, Floats]] = {}
        self._constants: dict[tuple[ir.Value, int | None], Floats] = {}
        self._open: dict[Axis, bool] = {}
        self._functions: dict[object, Any] = {}
        for link in graph.linker.links:
            self.links[link.node].append(link)
        for node in graph.linker.nodes:
            rule = RULES.get(operator(node))
            if rule is not None and not self._is_absurd(node):
                with contextlib.suppress(Unlinkable, LookupError, ValueError, TypeError, ArithmeticError):
                    rule(Step(self, node))

    def _is_absurd(self, node: ir.Node) -> bool:
        """Whether an axis is too long to make an array of its places."""
        values = [value for value in (*node.inputs, *node.outputs) if value is not None]
        axes = [axis for value in values for axis in self.graph.linker.axes.get(value) or ()]
        return any(isinstance(axis.size, int) and axis.size > LARGEST for axis in axes)

    def is_open(self, axis: Axis) -> bool:
        """Whether anything along an axis could go; of others nobody wants to know."""
        root = find(axis)
        if root not in self._open:
            self._open[root] = bool((self.graph.unit_at(self.graph.atoms(root)) >= 0).any())
        return self._open[root]

    def of(self, value: ir.Value, place: int, axis: Axis) -> Floats:
        """The lanes of an axis of a value."""
        tensor = self.graph.linker.constant(value)
        if tensor is None:
            found = self._known.get(value, {}).get(place)
            return nothing(math.prod(_sizes(axis))) if found is None else found
        if (value, place) not in self._constants:
            self._constants[value, place] = uniform(tensor, place)
        return self._constants[value, place]

    def number(self, value: ir.Value) -> float:
        """The number that all elements of a constant are; NaN otherwise."""
        tensor = self.graph.linker.constant(value)
        if tensor is None:
            return math.nan
        if (value, None) not in self._constants:
            self._constants[value, None] = of_all(tensor)
        return float(self._constants[value, None][0])

    def put(self, value: ir.Value, place: int, axis: Axis, lanes: Floats) -> None:
        """Says what the lanes of an axis of a value are."""
        if self.is_open(axis) and len(lanes) == math.prod(_sizes(axis)):
            dtype = self.graph.linker.shapes.dtype(value)
            lanes = np.where(np.isfinite(lanes), lanes, np.nan) if dtype is None else rounded(lanes, dtype)
            if not np.isnan(lanes).all():
                known = self._known.setdefault(value, {})
                known[place] = np.where(np.isnan(lanes), known[place], lanes) if place in known else lanes

    def computed(self, node: ir.Node, opset: int, numbers: Floats) -> Floats:
        """What an elementwise operator of one input gives for each of these numbers, in its own type."""
        known, dtype = ~np.isnan(numbers), self.graph.linker.shapes.dtype(node.outputs[0])
        if dtype is None or not known.any():
            return nothing(len(numbers))
        if dtype in (ir.DataType.FLOAT16, ir.DataType.BFLOAT16):
            dtype = ir.DataType.FLOAT  # of which ONNX Runtime rounds the result
        key = (
            node.op_identifier(),
            opset,
            dtype,
            *[(name, str(one.value)) for name, one in sorted(node.attributes.items())],
        )
        if key not in self._functions:
            self._functions[key] = _session(node, opset, dtype, self.graph.model)
        session, result = self._functions[key], nothing(len(numbers))
        if session is not None:
            result[known] = session.run(None, {"x": numbers[known].astype(dtype.numpy())})[0]
        return result


def _sizes(axis: Axis) -> list[int]:
    return [leaf.size for leaf in static(axis) if isinstance(leaf.size, int)]


def _session(node: ir.Node, opset: int, dtype: ir.DataType, model: ir.Model) -> Any:
    """One node on a vector of any length; ``None`` if ONNX Runtime does not run it."""
    x = ir.Value(name="x", type=ir.TensorType(dtype), shape=ir.Shape([None]))
    twin = ir.Node(node.domain, node.op_type, [x], node.attributes.values(), num_outputs=1)
    (y,) = twin.outputs
    y.name, y.type, y.shape = "y", ir.TensorType(dtype), ir.Shape([None])
    opsets = {"": opset} | ({node.domain: model.opset_imports.get(node.domain, 1)} if node.domain else {})
    graph = ir.Graph([x], [y], nodes=[twin], opset_imports=opsets, name="lanes")
    try:
        return runtime.open_session(ir.Model(graph, ir_version=model.ir_version), optimization="off", threads=1)
    except ModelError:
        return None


class Step(Op):
    """One node, as a rule sees it."""

    def __init__(self, lanes: Lanes, node: ir.Node) -> None:
        super().__init__(lanes.graph.linker, node)
        self._lanes = lanes

    def axes(self, index: int) -> Axes:
        """The axes of an input, as the linker left them."""
        value = self.value(index)
        axes = self.linker.constants.get(Place(self.node, index, value), self.linker.axes.get(value))
        if axes is None:
            raise Unlinkable(f"{self.node.op_type} reads a tensor of unknown rank")
        return axes

    def gives(self, output: int = 0) -> Axes:
        """The axes of an output."""
        axes = self.linker.axes.get(self.node.outputs[output])
        if axes is None:
            raise Unlinkable(f"the shape that {self.node.op_type} gives is unknown")
        return axes

    def upstream(self, node: ir.Node) -> Step:
        """Another node that has been seen already."""
        return Step(self._lanes, node)

    @property
    def links(self) -> Sequence[Link]:
        """Which elements this node ties together."""
        return self._lanes.links.get(self.node, ())

    def lanes(self, index: int, place: int) -> Floats:
        """The lanes of an axis of an input, counted from the front or the back."""
        axes = self.axes(index)
        place %= max(len(axes), 1)
        axis = axes[place]
        if not self._lanes.is_open(axis):
            return nothing(math.prod(_sizes(axis)))
        return self._lanes.of(self.value(index), place, axis)

    def lanes_of(self, value: ir.Value, place: int) -> Floats:
        """The lanes of an axis of a value that a branch gives."""
        axes = self.linker.axes.get(value)
        if axes is None or not self._lanes.is_open(axes[place]):
            return nothing(1)
        return self._lanes.of(value, place, axes[place])

    def any_known(self, index: int) -> bool:
        """Whether anything is known of a computed input; of constants something always may be."""
        value = self.value(index)
        return value in self._lanes._known or self.is_constant(index)

    def number(self, index: int) -> float:
        """The number that all elements of a constant input are; NaN otherwise."""
        return self._lanes.number(self.value(index)) if self.has(index) else math.nan

    def vector(self, index: int, size: int, default: float = math.nan) -> Floats:
        """An input that is one number a channel, for ``size`` channels; ``default`` where it is left out."""
        if not self.has(index):
            return np.full(size, default)
        axes = self.axes(index)
        wide = [place for place, axis in enumerate(axes) if axis.size != 1]
        if not wide:
            return np.full(size, self.number(index))
        found = self._lanes.of(self.value(index), wide[0], axes[wide[0]])
        return found if len(wide) == 1 and len(found) == size else nothing(size)

    def is_uniformly(self, index: int, number: float) -> bool:
        """Whether an input is left out, or all of it is one number."""
        return not self.has(index) or self.number(index) == number

    def applied(self, numbers: Floats) -> Floats:
        """What this node, elementwise and of one input, makes of numbers."""
        return self._lanes.computed(self.node, self.opset, numbers)

    def give_lanes(self, place: int, lanes: Floats, output: int = 0) -> None:
        """Says what the lanes of an axis of an output are."""
        axes = self.gives(output)
        if axes:
            place %= len(axes)
            self._lanes.put(self.node.outputs[output], place, axes[place], lanes)

    def carry(self, function: Callable[[Floats], Floats], index: int = 0, output: int = 0) -> None:
        """Lanes of the axes that an output has of an input are a function of what they were there."""
        if not self.any_known(index):
            return
        source = self.axes(index)
        for place, axis in enumerate(self.gives(output)):
            same = [at for at, one in enumerate(source) if one is axis]
            if len(same) == 1 and axis.size != 1 and self._lanes.is_open(axis):
                self.give_lanes(place, function(self.lanes(index, same[0])), output)

    def regroup(self) -> None:
        """The output has the elements of the input in the same order, its factors split and joined in another way."""
        if not self.any_known(0):
            return
        source, target = self.axes(0), self.gives()
        before, after = [static(axis) for axis in source], [static(axis) for axis in target]
        count = collections.Counter(leaf for one in before for leaf in one)
        twice = {leaf for leaf, times in count.items() if times > 1}
        twice |= {leaf for one in after for leaf in one if sum(part.count(leaf) for part in after) > 1}
        in_order = _untied(source) == _untied(target)
        for at, axis in enumerate(source):
            if axis.size == 1 or not self._lanes.is_open(axis):
                continue
            lanes = self.lanes(0, at)
            if np.isnan(lanes).all():
                continue
            for place, own in enumerate(after):
                shared = [leaf for leaf in before[at] if leaf in own and leaf not in twice]
                shared = [leaf for leaf in shared if in_order or leaf.frozen is None]
                if any(leaf.frozen is None for leaf in shared):
                    self.give_lanes(place, _spread(lanes, before[at], own, shared))


def _untied(axes: Axes) -> list[Axis]:
    return [leaf for axis in axes for leaf in map(find, leaves(axis)) if leaf.size != 1]


def _spread(lanes: Floats, before: Sequence[Axis], after: Sequence[Axis], shared: Sequence[Axis]) -> Floats:
    """Lanes along one list of factors as lanes along another that shares some: constant where all others agree."""
    array = lanes.reshape([leaf.size for leaf in before if isinstance(leaf.size, int)])
    others = tuple(place for place, leaf in enumerate(before) if leaf not in shared)
    if others:
        lowest = array.min(axis=others)
        array = np.where(lowest == array.max(axis=others), lowest, np.nan)
    own = [leaf for leaf in before if leaf in shared]
    order = [leaf for leaf in after if leaf in shared]
    array = array.transpose([own.index(leaf) for leaf in order])
    sizes = [leaf.size for leaf in after if isinstance(leaf.size, int)]
    wide = array.reshape([size if leaf in shared else 1 for leaf, size in zip(after, sizes, strict=True)])
    return np.broadcast_to(wide, sizes).reshape(-1)


Rule = Callable[[Step], None]
"""Says what the lanes of the outputs of an operator are."""


def same(lanes: Floats) -> Floats:
    """Lanes stay what they are."""
    return lanes


def zero_only(lanes: Floats) -> Floats:
    """Lanes of zeros stay zero; of others nothing is known."""
    return np.where(lanes == 0, 0.0, np.nan)


def carrying(function: Callable[[Floats], Floats]) -> Rule:
    """The rule that applies a function to the lanes of each axis that the output has of the first input."""
    return lambda step: step.carry(function)


def with_settings(function: Callable[..., None], *settings: int) -> Rule:
    """A rule of a function that takes settings besides."""
    return lambda step: function(step, *settings)
