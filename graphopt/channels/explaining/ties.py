"""What ties two layers, and what makes channels stay, told from the way between them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np
import onnx_ir as ir

from graphopt.channels.axes import Axis
from graphopt.channels.explaining.index import Index, Slice, State, Strand, Track
from graphopt.channels.explaining.wording import MOVERS, does, plain
from graphopt.channels.groups import ChannelGraph
from graphopt.channels.units import Group
from graphopt.names import label, operator

__all__ = ["Cause", "Piece", "Step", "Tie", "cause", "is_layer", "layers_of", "piece", "role", "shape", "tie"]


@dataclasses.dataclass(frozen=True, slots=True)
class Piece:
    """An axis of a tensor; ``lanes`` of its ``size`` places go at once."""

    tensor: str
    axis: int
    size: int
    lanes: int
    shape: tuple[int | None, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class Step:
    """An operator on the way from one layer to another, and what it does with their channels."""

    node: str
    operator: str
    does: str

    def __str__(self) -> str:
        return f"{self.operator} '{self.node}'"


@dataclasses.dataclass(frozen=True, slots=True)
class Tie:
    """A layer whose channels go with those of the subject.

    Attributes:
        name: The layer.
        operator: Its operator.
        role: ``gives`` them, ``reads`` them, ``keeps`` them side by side, ``reads and gives`` or ``holds`` them.
        slices: What of its weights one unit has.
        via: The operators that couple the two, from the subject on.
        because: The same in a sentence.
    """

    name: str
    operator: str
    role: str
    slices: tuple[Piece, ...]
    via: tuple[Step, ...]
    because: str


@dataclasses.dataclass(frozen=True, slots=True)
class Cause:
    """Why channels stay.

    Attributes:
        node: The operator that needs them; ``None`` where no operator does.
        operator: Its type.
        where: Inputs and outputs of the model that have them, where the interface is the reason.
        reason: The reason on record.
        plain: What that means; may be empty.
        via: The operators between the subject and the cause.
    """

    node: str | None
    operator: str | None
    where: tuple[str, ...]
    reason: str
    plain: str
    via: tuple[Step, ...]

    @property
    def is_choice(self) -> bool:
        """Whether another granularity would free them."""
        return "granularity" in self.reason


def layers_of(group: Group) -> list[ir.Node]:
    """The nodes of a group that have a weight which is more than one number a channel."""
    graph = group.graph
    strand = graph.index.strand(int(graph.unit_atoms(group.units[0].index)[0]))
    return [node for node in strand.nodes if is_layer(strand, node)]


def is_layer(strand: Strand, node: ir.Node) -> bool:
    """Whether the node has a weight that is more than one number a channel."""
    return any(sum(size != 1 for size in shape(strand.index, one.value)) > 1 for one in strand.constants(node))


def shape(index: Index, value: ir.Value) -> tuple[int | None, ...]:
    """The extents of a tensor, as far as they are known."""
    tensor = index.graph.linker.constant(value)
    known = value.shape if tensor is None else tensor.shape
    return () if known is None else tuple([dim if isinstance(dim, int) else None for dim in known])


def role(strand: Strand, node: ir.Node) -> str:
    """What a node does with channels; see :class:`Tie`."""
    reads, gives = bool(strand.inputs(node)), bool(strand.outputs(node))
    if reads and gives:
        axes = {(one.value, one.number) for one in strand.constants(node)}
        if not axes:
            return "passes on"
        return "reads and gives" if len(axes) > len({value for value, _ in axes}) else "keeps"
    return "gives" if gives else "reads" if reads else "holds"


def piece(strand: Strand, one: Slice) -> Piece:
    """How much of an axis goes at once."""
    graph = strand.index.graph
    size = one.axis.size if isinstance(one.axis.size, int) else 0
    lanes = int(np.isin(graph.atoms(one.axis), strand.atoms).sum()) if size else 0
    if not lanes:  # a factor that stays beside one that is free
        lanes = size
    return Piece(one.value.name or "", one.number, size, lanes, shape(strand.index, one.value))


def _path(track: Track, state: State) -> list[ir.Node]:
    """The nodes that tie a state to where the walk began, from there on; each once in a row."""
    nodes: list[ir.Node] = []
    at: State | None = state
    while at is not None and (step := track[at]) is not None:
        at, node = step
        if node is not None and (not nodes or nodes[-1] is not node):
            nodes.append(node)
    return nodes[::-1]


def _nearest(strand: Strand, track: Track, axes: Iterable[Axis]) -> list[ir.Node]:
    reached = [state for axis in axes for state in strand.states(axis) if state in track]
    return min((_path(track, state) for state in reached), key=len, default=[])


def tie(strand: Strand, track: Track, anchor: ir.Node | None, node: ir.Node) -> Tie:
    """What couples the layer ``node`` with where the walk ``track`` began, which is at ``anchor``."""
    path = _nearest(strand, track, (one.axis for one in strand.constants(node)))
    between = [one for one in path if one is not node and one is not anchor]
    steps = tuple(_step(one) for one in between)
    what = role(strand, node)
    pieces = tuple(dict.fromkeys(piece(strand, one) for one in strand.constants(node)))
    joins = tuple(step for step, one in zip(steps, between, strict=True) if len(strand.inputs(one)) > 1)
    because = _because(joins, steps, what, anchor is not None and role(strand, anchor) == "gives")
    return Tie(label(node), operator(node), what, pieces, steps, because)


def _step(node: ir.Node) -> Step:
    return Step(label(node), operator(node), does(operator(node)))


def _because(joins: Sequence[Step], steps: Sequence[Step], what: str, gives: bool) -> str:
    """``joins`` are the steps in which channels of several tensors meet, which is what couples layers."""
    if what in ("reads", "keeps"):
        return f"reads them after {_listed(joins)}" if joins else "reads them"
    if not joins and gives:
        joins = [step for step in steps if step.operator not in MOVERS] or steps
    if not joins:
        return "has the same weights" if gives or what == "holds" else "gives them"
    then = f", then {_listed(joins[1:])}" if len(joins) > 1 else ""
    return f"{joins[0]} {joins[0].does}{then}"


def _listed(steps: Sequence[Step]) -> str:
    names = [str(step) for step in steps]
    return " and ".join(names) if len(names) < 3 else f"{names[0]} ... {names[-1]} ({len(names)} operators)"


def cause(graph: ChannelGraph, strand: Strand, track: Track, atom: int, anchor: ir.Node | None) -> Cause:
    """Why an atom stays, and the way there."""
    freeze = graph.reason(atom)
    node = freeze.node
    where: tuple[str, ...] = ()
    if node is not None:
        touched = (*graph.index.reads(node), *node.outputs)
        path = _nearest(strand, track, [one.axis for one in strand.slices if one.value in touched])
    else:
        ends = graph.model.graph.inputs if "input" in freeze.reason else graph.model.graph.outputs
        outside = [one for one in strand.slices if "model's" in freeze.reason and one.value in ends]
        where = tuple(dict.fromkeys(one.value.name or "" for one in outside))
        path = _nearest(strand, track, [one.axis for one in outside])
    steps = tuple(_step(one) for one in path if one is not node and one is not anchor)
    name, kind = (None, None) if node is None else (label(node), operator(node))
    return Cause(name, kind, where, freeze.reason, plain(freeze.reason), steps)
