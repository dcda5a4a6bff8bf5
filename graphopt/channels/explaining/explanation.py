"""Why channels go together, or stay: for one node or tensor, what it shares with which layers."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from graphopt import walk
from graphopt.channels.axes import leaves
from graphopt.channels.explaining.index import Slice, Strand
from graphopt.channels.explaining.ties import Cause, Piece, Tie, cause, is_layer, piece, role, tie
from graphopt.channels.groups import ChannelGraph
from graphopt.channels.units import Group, Saving
from graphopt.errors import UsageError
from graphopt.names import label, operator

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult

__all__ = ["Channels", "Explanation", "explain"]


@dataclasses.dataclass(frozen=True, slots=True)
class Channels:
    """Some channels of the subject: those of one group, or those that one cause keeps.

    Attributes:
        role: What the subject does with them, as in :class:`Tie`; ``has`` for a tensor, ``passes on`` without weights.
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
        """Plain data for JSON; :mod:`graphopt.channels.explaining.data` documents it."""
        from graphopt.channels.explaining import data

        return data.of_explanation(self)

    def to_svg(self, part: int = 1) -> str:
        """Some of its channels in the graph as a picture.

        Args:
            part: Which of :attr:`channels`, counted from 1.

        Raises:
            UsageError: There is no such part.
        """
        from graphopt.channels.explaining import drawing, svg

        return svg.to_svg(drawing.explained(self, self._part(part)))

    def to_dot(self, part: int = 1) -> str:
        """The same as Graphviz text."""
        from graphopt.channels.explaining import drawing

        return drawing.to_dot(drawing.explained(self, self._part(part)))

    def _part(self, part: int) -> Channels:
        if not self.channels:
            raise UsageError(f"'{self.name}' has no channels to draw", hint="Name a node with weights.")
        if not 1 <= part <= len(self.channels):
            raise UsageError(f"'{self.name}' has no part {part}", hint=f"There are {len(self.channels)}.")
        return self.channels[part - 1]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from graphopt.channels.explaining import render

        yield from render.explanation(self, options)

    def _repr_html_(self) -> str:
        from graphopt.channels.explaining import render

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
    order = {"gives": 0, "reads and gives": 1, "keeps": 2, "passes on": 2, "has": 3, "holds": 4, "reads": 5}
    found.sort(key=lambda one: (one.frozen is not None and one.frozen.is_choice, order[one.role]))
    source = node if node is not None else value.producer() if value is not None else None
    return Explanation(
        name,
        "tensor" if node is None else "node",
        "" if source is None else operator(source),
        tuple(found),
        graph,
        anchor,
    )


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
    names = [*filter(None, dict.fromkeys([*(node.name or "" for node in walk.nodes(graph.model)), *values]))]
    near = difflib.get_close_matches(name, names, n=3) or [one for one in names if name and name.lower() in one.lower()]
    hint = (
        f"Did you mean {' or '.join(repr(one) for one in near[:3])}?"
        if near
        else "Those with channels are in what 'graphopt inspect MODEL --groups --json' prints."
    )
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


def _channels(
    graph: ChannelGraph, anchor: ir.Node | None, slices: Sequence[Slice], atom: int, is_tensor: bool
) -> Channels:
    strand = graph.index.strand(atom)
    unit = int(graph.unit_at(np.array([atom]))[0])
    group = graph.groups[int(graph.group_of[unit])] if unit >= 0 else None
    own = [one for one in slices if any(strand.states(one.axis))]
    track = graph.index.trace(state for one in own for state in strand.states(one.axis))
    layers = [node for node in strand.nodes if node is not anchor and is_layer(strand, node)]
    ties = sorted((tie(strand, track, anchor, node) for node in layers), key=lambda one: len(one.via))
    attendants = [
        (label(node), operator(node))
        for node in strand.nodes
        if node is not anchor and node not in layers and strand.constants(node)
    ]
    pieces = tuple(dict.fromkeys(piece(strand, one) for one in own))
    if group is not None:
        count = _count(graph, group, own)
        saving, half = group.units[0].saving, graph.savings.half(group)
    else:
        count, saving = _stuck(graph, strand, own)
        half = Saving(*(part * (count // 2) for part in saving))
    what = "has" if is_tensor or anchor is None else role(strand, anchor)
    why = None if group is not None else cause(graph, strand, track, atom, anchor)
    return Channels(what, count, pieces, group, tuple(ties), tuple(attendants), saving, half, why, strand)


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
