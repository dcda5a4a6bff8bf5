"""Units that do nothing: what a model pruned by zeros can lose without another result.

A unit is *dead* when every sum over its lanes can do without them: because the lane is always zero, because it is
multiplied by zeros, or because it is always one number whose products can go into a bias. That is local knowledge of
lanes (``lanes``), and the channel graph says where lanes are added up.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from graphopt.channels.atoms import GRANULARITIES
from graphopt.channels.axes import Axis, find, leaves
from graphopt.channels.groups import ChannelGraph
from graphopt.channels.linker import Linker
from graphopt.channels.liveness.folding import Fold, takes_constants
from graphopt.channels.liveness.lanes import Floats, Lanes, Step
from graphopt.channels.liveness.rules.linear import grouped_inputs, is_zero
from graphopt.channels.liveness.uniform import uniform
from graphopt.channels.records import Sum
from graphopt.channels.rules import cutting, elementwise, linear, movement, norm
from graphopt.channels.slicing import carve
from graphopt.channels.workpiece import Workpiece
from graphopt.names import operator

__all__ = ["Dead", "bury", "dead_units", "remove_dead"]

Mask = npt.NDArray[np.bool_]

_RECURRENT = frozenset({"GRU", "LSTM", "RNN"})
_CONVOLUTIONS = frozenset({"Conv", "ConvInteger", "ConvTranspose", "QLinearConv"})
_LOCAL = frozenset(
    {
        *cutting.TABLE,
        *elementwise.TABLE,
        *linear.TABLE,
        *movement.TABLE,
        *norm.TABLE,
        "DequantizeLinear",
        "If",
        "QuantizeLinear",
    }
) - {"com.microsoft::SkipSimplifiedLayerNormalization"}
"""Operators of which a lane of the result depends on the same lane of the operands, or on the sums that they declare.

Others are taken to look at all lanes, so that only lanes of zeros can go: masking makes them that, and their rules say
that a model masked so equals the pruned one.
"""


@dataclasses.dataclass(frozen=True, slots=True)
class Dead:
    """What can go.

    Attributes:
        units: Numbers of units, ascending.
        folds: What they add to sums, for the biases.
    """

    units: list[int]
    folds: list[Fold]


def dead_units(graph: ChannelGraph) -> Dead:
    """Finds the units that no result depends on; of each set of which one must stay, it stays.

    Reads weights only where slices of them may be zero.
    """
    if not graph.groups:
        return Dead([], [])
    seen = np.zeros(len(graph.units), bool)
    for group in graph.groups:
        if group.statistics:
            seen[[unit.index for unit in group.units]] = True
    lanes = Lanes(graph)
    declared = {(total.node, total.input, total.axis) for total in graph.linker.sums}
    declared |= {
        (total.node, total.factor, total.factor_axis) for total in graph.linker.sums if total.factor is not None
    }
    for node in graph.linker.nodes:
        _look_along(graph, lanes, node, declared, seen)
    open_sums = []
    for total in graph.linker.sums:
        summands = _Summands.of(graph, lanes, total)
        if summands is None:
            continue
        seen[summands.units[~summands.harmless & (summands.units >= 0)]] = True
        open_sums.append(summands)
    while True:
        dead = _all_but_one(graph, ~seen)
        folds = [(one, one.fold(dead)) for one in open_sums if one.foldable]
        too_large = [one for one, fold in folds if fold is not None and not fold.fits]
        if not too_large:
            return Dead(np.flatnonzero(dead).tolist(), [fold for _, fold in folds if fold is not None])
        for one in too_large:
            seen[one.units[~one.zero & (one.units >= 0)]] = True


def bury(graph: ChannelGraph, dead: Dead) -> ir.Model:
    """A copy of the graph's model without the dead units, what they add to sums in biases."""
    gone = graph.gone(dead.units)
    workpiece = Workpiece(graph.model)
    carve(graph, gone, workpiece)
    for fold in dead.folds:
        fold.apply(graph, gone, workpiece)
    workpiece.remove_orphans()
    return workpiece.model


def remove_dead(model: ir.Model) -> int:
    """Removes dead units from a model without functions, which gets another graph; heads first, then their lanes.

    Returns:
        How many went.
    """
    count = 0
    for granularity in GRANULARITIES:
        graph = ChannelGraph(model, Linker(model), granularity)
        dead = dead_units(graph)
        if dead.units:
            model.graph = bury(graph, dead).graph
            count += len(dead.units)
        if not any(group.heads for group in graph.groups):
            break
    return count


def _all_but_one(graph: ChannelGraph, dead: Mask) -> Mask:
    """Leaves one unit in each segment."""
    dead = dead.copy()
    for group in graph.groups:
        for segment in group.segments:
            own = np.fromiter(segment, np.int64)
            if dead[own].all():
                dead[own.min()] = False
    return dead


@dataclasses.dataclass(frozen=True, slots=True)
class _Summands:
    """The lanes that one node adds up.

    Attributes:
        step: The node.
        total: The sum.
        units: The unit of each lane; -1 where it stays.
        zero: Whether a lane adds nothing.
        lanes: What each lane is.
        foldable: Whether lanes that are constant may go into a bias.
    """

    step: Step
    total: Sum
    units: npt.NDArray[np.int64]
    zero: Mask
    lanes: Floats
    foldable: bool

    @classmethod
    def of(cls, graph: ChannelGraph, lanes: Lanes, total: Sum) -> _Summands | None:
        """The summands of a sum; ``None`` if all of them stay."""
        step = Step(lanes, total.node)
        axis = step.axes(total.input)[total.axis]
        if not lanes.is_open(axis):
            return None
        units = graph.unit_at(graph.atoms(axis))
        zero = is_zero(step, total.input, total.axis)
        if total.factor is not None:
            zero = zero | _zero_factors(step, total)
            if step.is_constant(total.input):  # the constant is what is multiplied with
                total = Sum(total.node, total.factor, total.factor_axis, total.input, total.axis)
        foldable = takes_constants(step, total)
        return cls(step, total, units, zero, step.lanes(total.input, total.axis), foldable)

    @property
    def harmless(self) -> Mask:
        """Which lanes the sum can do without."""
        return self.zero | ~np.isnan(self.lanes) if self.foldable else self.zero

    def fold(self, dead: Mask) -> Fold | None:
        """What the lanes of dead units add."""
        gone = (self.units >= 0) & dead[self.units] & ~self.zero
        return Fold.of(self.step, self.total, np.where(gone, self.lanes, 0.0)) if gone.any() else None


def _zero_factors(step: Step, total: Sum) -> Mask:
    assert total.factor is not None
    if step.node.op_type in _CONVOLUTIONS:
        return grouped_inputs(step, total.factor, step.node.op_type == "ConvTranspose")
    return is_zero(step, total.factor, total.factor_axis)


def _look_along(
    graph: ChannelGraph, lanes: Lanes, node: ir.Node, declared: set[tuple[ir.Node, int, int]], seen: Mask
) -> None:
    """Marks the units that a node looks at in a way that it has not declared as a sum."""
    if operator(node) in _LOCAL:
        return
    step = Step(lanes, node)
    if node.op_type in _RECURRENT and not node.domain:
        _look_at_states(graph, lanes, step, seen)
        return
    for index, value in enumerate(node.inputs):
        if value is None or graph.linker.axes.get(value) is None:
            continue
        for place, axis in enumerate(step.axes(index)):
            if axis.size == 1 or (node, index, place) in declared or not lanes.is_open(axis) or _counts_heads(axis):
                continue
            units = graph.unit_at(graph.atoms(axis))
            needed = units[~is_zero(step, index, place)]
            seen[needed[needed >= 0]] = True


def _counts_heads(axis: Axis) -> bool:
    """Whether what is free of an axis are heads, which no operator mixes."""
    return any(leaf.role.head and leaf.frozen is None for leaf in map(find, leaves(axis)))


def _look_at_states(graph: ChannelGraph, lanes: Lanes, step: Step, seen: Mask) -> None:
    """A hidden unit acts on the others through its column of the recurrence, unless it is always zero."""
    axis = step.axes(2)[2]
    if not lanes.is_open(axis):
        return
    units = graph.unit_at(graph.atoms(axis))
    outputs = [index for index, value in enumerate(step.node.outputs) if value.name]
    idle = np.zeros(len(units), bool)
    recurrence = step.linker.constant(step.value(2))
    if recurrence is not None:
        idle |= uniform(recurrence, 2) == 0
    if outputs:
        states = lanes.of(step.node.outputs[outputs[0]], len(step.gives(outputs[0])) - 1, axis)
        idle |= states == 0
    needed = units[~idle]
    seen[needed[needed >= 0]] = True
