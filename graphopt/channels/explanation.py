"""Why channels go together, or stay: for one node or tensor, what it shares with which layers.

The JSON form, as ``graphopt explain --json`` prints it::

    {
      "schema": "graphopt.explanation/1",
      "name": "conv1", "kind": "node", "operator": "Conv", "granularity": "heads",
      "channels": [{
        "role": "gives", "count": 64, "group": 3, "group_name": "conv1", "units": 64, "heads": false, "exact": true,
        "slices": [{"tensor": "w1", "axis": 0, "size": 64, "lanes": 1}, ...],
        "statistics": [{"node": "norm", "operator": "LayerNormalization"}],
        "saving_per_unit": {"parameters": ..., "bytes": ..., "macs": ...}, "saving_half": {...},
        "share_half": {...},
        "layers": [{"name": "conv2", "operator": "Conv", "role": "gives", "because": "Add 'add_3' adds them",
                    "slices": [...], "via": [{"node": "add_3", "operator": "Add", "does": "adds them"}]}],
        "attendants": [{"name": "bn1", "operator": "BatchNormalization"}],
        "frozen": null
      }, {
        "role": "reads", "count": 3, "group": null, ...,
        "frozen": {"node": null, "operator": null, "where": ["x"], "reason": "it is part of the model's input",
                   "plain": "callers rely on its size", "via": [...]}
      }]
    }

``lanes`` are the places that one unit has along the axis (of what is frozen: all). Savings of what is frozen are what
one lane and half of them would have saved.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from graphopt import walk
from graphopt.channels.axes import Axis, leaves
from graphopt.channels.groups import ChannelGraph, Group, Saving
from graphopt.channels.index import Slice, State, Strand, Track
from graphopt.channels.wording import MOVERS, does, plain
from graphopt.errors import UsageError
from graphopt.names import label, operator

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult

__all__ = ["Cause", "Channels", "Explanation", "Piece", "Step", "Tie", "explain", "is_layer", "role"]

SCHEMA = "graphopt.explanation/1"


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


@dataclasses.dataclass(frozen=True, slots=True)
class Channels:
    """Some channels of the subject: those of one group, or those that one cause keeps.

    Attributes:
        role: What the subject does with them, as in :class:`Tie`; ``has`` for a tensor.
        count: How many of them the subject has.
        slices: Where it has them.
        group: Their group; ``None`` if they stay.
        layers: The other layers that have them, the nearest first.
        attendants: Normalizations, biases and the like that have them.
        saving: What one of them saves, or would.
        half: What half of them save, or would.
        frozen: Why they stay, if they do.
        strand: What they run through.
    """

    role: str
    count: int
    slices: tuple[Piece, ...]
    group: Group | None
    layers: tuple[Tie, ...]
    attendants: tuple[tuple[str, str], ...]
    saving: Saving
    half: Saving
    frozen: Cause | None
    strand: Strand = dataclasses.field(repr=False, compare=False)


@dataclasses.dataclass(frozen=True, slots=True)
class Explanation:
    """What is known of the channels of one node or tensor; prints itself in a terminal and in a notebook.

    Attributes:
        name: Its name.
        kind: ``node`` or ``tensor``.
        operator: The node's operator, or that of the node that gives the tensor; empty if none does.
        channels: Its channels, group by group, then those that stay.
        graph: The channel graph.
        node: The node itself, or the one that gives or first reads the tensor.
    """

    name: str
    kind: str
    operator: str
    channels: tuple[Channels, ...]
    graph: ChannelGraph = dataclasses.field(repr=False, compare=False)
    node: ir.Node | None = dataclasses.field(repr=False, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """The JSON form that the module's page documents."""
        return {
            "schema": SCHEMA,
            "name": self.name,
            "kind": self.kind,
            "operator": self.operator,
            "granularity": self.graph.granularity,
            "channels": [_plain(one, self.graph) for one in self.channels],
        }

    def to_svg(self) -> str:
        """The first of its channels in the graph as a picture.

        Raises:
            UsageError: It has none.
        """
        from graphopt.channels import drawing

        return drawing.to_svg(self._picture())

    def to_dot(self) -> str:
        """The same as Graphviz text."""
        from graphopt.channels import drawing

        return drawing.to_dot(self._picture())

    def _picture(self) -> Any:
        from graphopt.channels import drawing

        if not self.channels:
            raise UsageError(f"'{self.name}' has no channels to draw", hint="Name a node with weights.")
        return drawing.explained(self)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from graphopt.channels import render

        yield from render.explanation(self, options)

    def _repr_html_(self) -> str:
        from graphopt.channels import render

        return render.explanation_html(self)


def explain(graph: ChannelGraph, name: str) -> Explanation:
    """Says which channels a node or a tensor has, with which layers they go together and why, or why they stay.

    Args:
        graph: The channel graph of a model.
        name: A node, or a value or constant.

    Raises:
        UsageError: The model has nothing of that name, or several nodes.
    """
    node, value = _find(graph, name)
    slices = list(_slices(graph, node, value))
    anchor = node if node is not None else _anchor(value)
    found = [_channels(graph, anchor, slices, atom, value is not None) for atom in _kinds(graph, slices)]
    order = {"gives": 0, "reads and gives": 1, "keeps": 2, "has": 3, "holds": 4, "reads": 5}
    found.sort(key=lambda one: (one.frozen is not None, order[one.role]))
    source = node if node is not None else value.producer() if value is not None else None
    return Explanation(
        name, "tensor" if node is None else "node", "" if source is None else operator(source), tuple(found), graph, anchor
    )


def is_layer(strand: Strand, node: ir.Node) -> bool:
    """Whether the node has a weight that is more than one number a channel."""
    return any(sum(size != 1 for size in _shape(one.value)) > 1 for one in strand.constants(node))


def role(strand: Strand, node: ir.Node) -> str:
    """What a node does with channels; see :class:`Tie`."""
    reads, gives = bool(strand.inputs(node)), bool(strand.outputs(node))
    if reads and gives:
        axes = {(one.value, one.number) for one in strand.constants(node)}
        return "reads and gives" if len(axes) > len({value for value, _ in axes}) else "keeps"
    return "gives" if gives else "reads" if reads else "holds"


# -- the subject -----------------------------------------------------------------------------------------------------


def _find(graph: ChannelGraph, name: str) -> tuple[ir.Node | None, ir.Value | None]:
    nodes = [node for node in walk.nodes(graph.model) if node.name == name and name]
    if len(nodes) > 1:
        outputs = ", ".join(f"'{value.name}'" for node in nodes[:3] for value in node.outputs[:1])
        raise UsageError(f"{len(nodes)} nodes are called '{name}'", hint=f"Name what one of them gives: {outputs}.")
    if nodes:
        return nodes[0], None
    values: dict[str, ir.Value] = {}
    for value in _values(graph.model):
        if value.name == name and name:
            return None, value
        values.setdefault(value.name or "", value)
    names = [*dict.fromkeys([node.name or "" for node in walk.nodes(graph.model)] + list(values))]
    near = difflib.get_close_matches(name, names, n=3) or [one for one in names if name and name.lower() in one.lower()]
    hint = f"Did you mean {' or '.join(repr(one) for one in near[:3])}?" if near else "See 'graphopt inspect --groups'."
    raise UsageError(f"the model has no node and no tensor '{name}'", hint=hint)


def _values(model: ir.Model) -> Iterator[ir.Value]:
    for scope in walk.scopes(model):
        yield from scope.graph.inputs
        yield from scope.graph.initializers.values()
        for node in scope.graph:
            yield from node.outputs


def _anchor(value: ir.Value | None) -> ir.Node | None:
    if value is None:
        return None
    producer = value.producer()
    if producer is not None and producer.op_type != "Constant":
        return producer
    return next(iter(value.consumers()), None)


def _slices(graph: ChannelGraph, node: ir.Node | None, value: ir.Value | None) -> Iterator[Slice]:
    """The axes of the subject: of a node those of its constants, then of what it gives and reads."""
    linker = graph.linker
    if node is None:
        assert value is not None
        for place, axes in linker.constants.items():
            if place.value is value:
                yield from (Slice(value, number, axis, place.node) for number, axis in enumerate(axes))
        if not graph.index.is_constant(value):
            yield from (Slice(value, number, axis) for number, axis in enumerate(linker.axes.get(value) or ()))
        return
    for place, axes in linker.constants.items():
        if place.node is node or (place.node is None and any(place.value is one for one in node.inputs)):
            yield from (Slice(place.value, number, axis, place.node) for number, axis in enumerate(axes))
    for one in (*node.outputs, *[value for value in node.inputs if value is not None]):
        if not graph.index.is_constant(one):
            yield from (Slice(one, number, axis) for number, axis in enumerate(linker.axes.get(one) or ()))


def _kinds(graph: ChannelGraph, slices: Sequence[Slice]) -> list[int]:
    """One atom for each group, and for each reason to stay, among the channels of some axes."""
    found: dict[tuple[str, int], int] = {}
    for one in slices:
        for leaf in leaves(one.axis):
            if not isinstance(leaf.size, int) or leaf.size < 2:
                continue
            atoms = graph.atoms(leaf)
            units, blamed = graph.unit_at(atoms), graph.blamed(atoms)
            for unit in np.unique(units[units >= 0]).tolist():
                found.setdefault(("group", int(graph.group_of[unit])), int(atoms[units == unit][0]))
            for blame in np.unique(blamed[blamed >= 0]).tolist():
                atom = int(atoms[blamed == blame][0])
                if _has_weights(graph, atom):
                    found.setdefault(("stays", blame), atom)
    return list(found.values())


def _has_weights(graph: ChannelGraph, atom: int) -> bool:
    """Whether channels that stay would be worth something: weights are laid out along them."""
    index = graph.index
    numbers = graph.leaves_of(graph.component(atom))
    if not any(graph.leaf(number).role.channel for number in numbers):
        return False
    return any(index.is_constant(one.value) for number in numbers for one in index.slices[number])


# -- its channels ----------------------------------------------------------------------------------------------------


def _channels(graph: ChannelGraph, anchor: ir.Node | None, slices: Sequence[Slice], atom: int, is_tensor: bool) -> Channels:
    strand = graph.index.strand(atom)
    unit = int(graph.unit_at(np.array([atom]))[0])
    group = graph.groups[int(graph.group_of[unit])] if unit >= 0 else None
    own = [one for one in slices if any(strand.states(one.axis))]
    track = graph.index.trace(state for one in own for state in strand.states(one.axis))
    layers = [node for node in strand.nodes if node is not anchor and is_layer(strand, node)]
    ties = sorted((_tie(strand, track, anchor, node) for node in layers), key=lambda tie: len(tie.via))
    attendants = [
        (label(node), operator(node))
        for node in strand.nodes
        if node is not anchor and node not in layers and strand.constants(node)
    ]
    pieces = tuple(dict.fromkeys(_piece(strand, one, group) for one in own))
    if group is not None:
        count = _count(graph, group, own)
        saving, half = group.units[0].saving, graph.savings.half(group)
    else:
        count, saving = _stuck(graph, strand, own)
        half = Saving(*(part * (count // 2) for part in saving))
    what = "has" if is_tensor or anchor is None else role(strand, anchor)
    cause = None if group is not None else _cause(graph, strand, track, atom)
    return Channels(what, count, pieces, group, tuple(ties), tuple(attendants), saving, half, cause, strand)


def _count(graph: ChannelGraph, group: Group, slices: Sequence[Slice]) -> int:
    """How many units of a group some axes have."""
    found: set[int] = set()
    for one in slices:
        units = graph.unit_at(graph.atoms(one.axis))
        found.update(units[units >= 0][graph.group_of[units[units >= 0]] == group.index].tolist())
    return len(found)


def _stuck(graph: ChannelGraph, strand: Strand, slices: Sequence[Slice]) -> tuple[int, Saving]:
    """How many channels stay, and what one of them would have saved."""
    near = {graph.number(leaf) for one in slices for leaf in leaves(one.axis)} & strand.numbers
    best = max(near, key=lambda number: (graph.lane(number), -number))
    leaf = graph.leaf(best)
    atoms = graph.atoms(leaf)
    size = leaf.size if isinstance(leaf.size, int) else 1
    stays = size if leaf.frozen is not None else int((graph.blamed(atoms) >= 0).sum())
    lane = graph.lane(best)
    return stays, lane if any(lane) else max((graph.lane(number) for number in strand.numbers), default=lane)


def _piece(strand: Strand, one: Slice, group: Group | None) -> Piece:
    graph = strand.index.graph
    size = one.axis.size if isinstance(one.axis.size, int) else 0
    lanes = int(np.isin(graph.atoms(one.axis), strand.atoms).sum()) if size else 0
    return Piece(one.value.name or "", one.number, size, lanes, tuple(_shape(one.value)))


def _shape(value: ir.Value) -> list[int | None]:
    tensor = value.const_value
    shape = tensor.shape if tensor is not None else value.shape
    return [] if shape is None else [dim if isinstance(dim, int) else None for dim in shape]


# -- why -------------------------------------------------------------------------------------------------------------


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


def _tie(strand: Strand, track: Track, anchor: ir.Node | None, node: ir.Node) -> Tie:
    path = _nearest(strand, track, (one.axis for one in strand.constants(node)))
    between = [one for one in path if one is not node and one is not anchor]
    steps = tuple(_step(one) for one in between)
    what = role(strand, node)
    pieces = tuple(dict.fromkeys(_piece(strand, one, None) for one in strand.constants(node)))
    joins = tuple(step for step, one in zip(steps, between, strict=True) if len(strand.inputs(one)) > 1)
    because = _because(joins, steps, what, anchor is not None and role(strand, anchor) == "gives")
    return Tie(label(node), operator(node), what, pieces, steps, because)


def _step(node: ir.Node) -> Step:
    return Step(label(node), operator(node), does(operator(node)))


def _because(joins: Sequence[Step], steps: Sequence[Step], what: str, gives: bool) -> str:
    """``joins`` are the steps in which channels of several tensors meet, which is what couples layers."""
    if what in ("reads", "keeps"):
        return f"reads them after {_listed(joins)}" if joins else "reads them"
    joins = joins or [step for step in steps if step.operator not in MOVERS] or steps
    if not joins or not (gives or len(joins) > 1 or joins[0] not in steps):
        return "has the same weights" if gives or what == "holds" else "gives them"
    then = f", then {_listed(joins[1:])}" if len(joins) > 1 else ""
    return f"{joins[0]} {joins[0].does}{then}"


def _listed(steps: Sequence[Step]) -> str:
    names = [str(step) for step in steps]
    return " and ".join(names) if len(names) < 3 else f"{names[0]} ... {names[-1]} ({len(names)} operators)"


def _cause(graph: ChannelGraph, strand: Strand, track: Track, atom: int) -> Cause:
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
    steps = tuple(_step(one) for one in path if one is not node)
    name, kind = (None, None) if node is None else (label(node), operator(node))
    return Cause(name, kind, where, freeze.reason, plain(freeze.reason), steps)


# -- plain data ------------------------------------------------------------------------------------------------------


def _plain(one: Channels, graph: ChannelGraph) -> dict[str, Any]:
    group = one.group
    shares = graph.savings.share(one.half)
    return {
        "role": one.role,
        "count": one.count,
        "group": None if group is None else group.index,
        "group_name": None if group is None else group.name,
        "units": None if group is None else len(group.units),
        "heads": group is not None and group.heads,
        "exact": None if group is None else group.exact,
        "slices": [_piece_dict(piece) for piece in one.slices],
        "statistics": [] if group is None else [{"node": label(node), "operator": operator(node)} for node in group.statistics],
        "saving_per_unit": one.saving._asdict(),
        "saving_half": one.half._asdict(),
        "share_half": dict(zip(Saving._fields, shares, strict=True)),
        "layers": [
            {
                "name": tie.name,
                "operator": tie.operator,
                "role": tie.role,
                "because": tie.because,
                "slices": [_piece_dict(piece) for piece in tie.slices],
                "via": [dataclasses.asdict(step) for step in tie.via],
            }
            for tie in one.layers
        ],
        "attendants": [{"name": name, "operator": kind} for name, kind in one.attendants],
        "frozen": None if one.frozen is None else dataclasses.asdict(one.frozen),
    }


def _piece_dict(piece: Piece) -> dict[str, Any]:
    return {"tensor": piece.tensor, "axis": piece.axis, "size": piece.size, "lanes": piece.lanes}
