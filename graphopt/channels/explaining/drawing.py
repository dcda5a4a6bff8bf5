"""A group in its graph as a picture: its layers, the operators that couple them, and what each keeps of its weights.

``NN/MM`` on a weight reads: of the MM places of this axis NN are left. Boxes that only pass channels on are drawn as
one where they follow each other.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from graphopt.channels.explaining.index import Strand
from graphopt.channels.explaining.ties import is_layer, shape
from graphopt.channels.units import Group, Unit
from graphopt.human import printable, shorten
from graphopt.names import label, operator

if TYPE_CHECKING:
    from graphopt.channels.atoms import Mask
    from graphopt.channels.explaining.explanation import Channels, Explanation

__all__ = ["COLORS", "LEGEND", "Arrow", "Box", "Picture", "explained", "picture", "to_dot"]

MOST = 60
"""Boxes in a picture; of larger groups the nearest to the subject are drawn."""

_IGNORED = frozenset({"Shape", "Size"})


@dataclasses.dataclass(frozen=True, slots=True)
class Box:
    """A node, a chain of nodes, a shared weight, or an end of the model.

    Attributes:
        kind: ``layer``, ``join``, ``norm``, ``pass``, ``weight``, ``end`` or ``cause``.
        title: What it is.
        name: What it is called.
        lines: What it keeps of its weights.
        detail: Everything in full.
        is_subject: Whether the picture is about it.
    """

    kind: str
    title: str
    name: str
    lines: tuple[str, ...]
    detail: str
    is_subject: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Arrow:
    """Channels that go from one box to another; a weight that is read by several goes dashed."""

    source: int
    target: int
    is_weight: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Picture:
    """Boxes and arrows between them."""

    title: str
    subtitle: str
    boxes: tuple[Box, ...]
    arrows: tuple[Arrow, ...]


def picture(group: Group, removed: Iterable[Unit] | None = None) -> Picture:
    """A group, with what its weights keep once some units are gone.

    Args:
        group: The group.
        removed: Units of the same graph; the first of the group if not given.
    """
    graph = group.graph
    units = [group.units[0]] if removed is None else list(removed)
    strand = graph.index.strand(int(graph.unit_atoms(group.units[0].index)[0]))
    atoms = [graph.unit_atoms(unit.index) for unit in units]
    gone = graph.marked(np.concatenate(atoms) if atoms else np.zeros(0, np.int64))
    own = sum(unit.group == group.index for unit in units)
    return _draw(
        strand,
        _title(group),
        f"kept/all of each weight without {own} of them; {_kind(group)}",
        gone,
        group.statistics,
        None,
        None,
    )


def explained(explanation: Explanation, one: Channels) -> Picture:
    """Some channels of an explanation, with its subject marked."""
    graph = explanation.graph
    if one.group is not None:
        unit = int(graph.unit_at(np.array(one.strand.atoms[:1]))[0])
        gone = graph.marked(graph.unit_atoms(unit))
        text = f"kept/all of each weight without one of them; {_kind(one.group)}"
        return _draw(one.strand, _title(one.group), text, gone, one.group.statistics, explanation.node, None)
    gone = graph.marked(np.zeros(0, np.int64))
    title = f"{one.count} channels of '{shorten(printable(explanation.name), 60)}' that stay"
    return _draw(one.strand, title, _reason(one), gone, (), explanation.node, one)


def _title(group: Group) -> str:
    what = "heads" if group.heads else "channels"
    return f"group {group.index}: {len(group.units)} {what} of '{shorten(printable(group.name), 60)}'"


def _kind(group: Group) -> str:
    return "removal is exact" if group.exact else "removal is exact up to the statistics of normalizations"


def _reason(one: Channels) -> str:
    cause = one.frozen
    assert cause is not None
    who = f"{cause.operator} '{cause.node}': " if cause.node is not None else ""
    return shorten(printable(f"{who}{cause.reason}"), 100)


# -- boxes -----------------------------------------------------------------------------------------------------------


def _draw(
    strand: Strand,
    title: str,
    subtitle: str,
    gone: Mask,
    statistics: Sequence[ir.Node],
    subject: ir.Node | None,
    stays: Channels | None,
) -> Picture:
    culprit = None if stays is None or stays.frozen is None else strand.index.graph.reason(strand.atoms[0]).node
    nodes = [node for node in strand.nodes if node.op_type not in _IGNORED or node is culprit]
    links = _links(strand, nodes)
    kinds = {node: _box_kind(strand, node, statistics, culprit) for node in nodes}
    chains = _nearest(_chains(nodes, links, kinds, subject), links, subject)
    boxes = [_box(strand, chain, kinds[chain[0]], gone, subject) for chain in chains]
    place = {node: number for number, chain in enumerate(chains) for node in chain}
    arrows = [Arrow(place[a], place[b]) for a, b in links if a in place and b in place and place[a] != place[b]]
    _add_shared(strand, place, gone, boxes, arrows)
    _add_ends(strand, stays, place, boxes, arrows)
    missing = len(nodes) - len(place)
    if missing:
        subtitle += f"; {missing} more nodes are not drawn"
    return Picture(title, subtitle, tuple(boxes), tuple(dict.fromkeys(arrows)))


def _links(strand: Strand, nodes: Sequence[ir.Node]) -> list[tuple[ir.Node, ir.Node]]:
    own = set(nodes)
    found: dict[tuple[ir.Node, ir.Node], None] = {}
    for node in nodes:
        for value in strand.inputs(node):
            producer = value.producer()
            if producer is not None and producer in own and producer is not node:
                found[producer, node] = None
    return list(found)


def _box_kind(strand: Strand, node: ir.Node, statistics: Sequence[ir.Node], culprit: ir.Node | None) -> str:
    if node is culprit:
        return "cause"
    if node in statistics:
        return "norm"
    if is_layer(strand, node):
        return "layer"
    return "join" if len(strand.inputs(node)) > 1 else "pass"


def _nearest(
    chains: list[list[ir.Node]], links: Sequence[tuple[ir.Node, ir.Node]], subject: ir.Node | None
) -> list[list[ir.Node]]:
    """Those nearest to the subject, or else to the first; all if there are few."""
    if len(chains) <= MOST:
        return chains
    place = {node: number for number, chain in enumerate(chains) for node in chain}
    near: dict[int, list[int]] = collections.defaultdict(list)
    for a, b in links:
        near[place[a]].append(place[b])
        near[place[b]].append(place[a])
    start = 0 if subject is None else place.get(subject, 0)
    found = {start: None}
    pending = collections.deque(found)
    while pending and len(found) < MOST:
        for other in near[pending.popleft()]:
            if other not in found and len(found) < MOST:
                found[other] = None
                pending.append(other)
    return [chains[number] for number in sorted(found)]


def _chains(
    nodes: Sequence[ir.Node],
    links: Sequence[tuple[ir.Node, ir.Node]],
    kinds: Mapping[ir.Node, str],
    subject: ir.Node | None,
) -> list[list[ir.Node]]:
    """Nodes, those that pass channels on in a row taken together."""
    after: dict[ir.Node, list[ir.Node]] = collections.defaultdict(list)
    before: dict[ir.Node, list[ir.Node]] = collections.defaultdict(list)
    for a, b in links:
        after[a].append(b)
        before[b].append(a)
    plain = {node for node in nodes if kinds[node] == "pass" and node is not subject}
    chains: dict[ir.Node, list[ir.Node]] = {}
    for node in nodes:
        earlier = before[node]
        if node in plain and len(earlier) == 1 and earlier[0] in plain and len(after[earlier[0]]) == 1:
            chains[node] = chains[earlier[0]]
            chains[node].append(node)
        else:
            chains[node] = [node]
    return list({id(chain): chain for chain in chains.values()}.values())


def _box(strand: Strand, chain: Sequence[ir.Node], kind: str, gone: Mask, subject: ir.Node | None) -> Box:
    kinds = [operator(node).rpartition("::")[2] for node in chain]
    title = ", ".join(kinds) if len(kinds) < 4 else f"{kinds[0]}, ..., {kinds[-1]} ({len(kinds)} operators)"
    lines = [line for node in chain for line in _weights(strand, node, gone)]
    detail = [f"{operator(node)} {label(node)}" for node in chain]
    name = label(chain[0]) if len(chain) == 1 else ""
    return Box(kind, title, name, tuple(lines), "\n".join(detail), subject in chain)


def _weights(strand: Strand, node: ir.Node, gone: Mask) -> list[str]:
    """What a node keeps of each constant, equal ones counted."""
    kept: dict[ir.Value, dict[int, str]] = collections.defaultdict(dict)
    graph = strand.index.graph
    for one in strand.constants(node):
        size = one.axis.size
        if isinstance(size, int):
            left = graph.kept(one.axis, gone)
            kept[one.value][one.number] = f"{size if left is None else len(left)}/{size}"
    texts = [_sizes(strand, value, places) for value, places in kept.items()]
    return [text if many == 1 else f"{many} of {text}" for text, many in collections.Counter(texts).items()]


def _sizes(strand: Strand, value: ir.Value, places: Mapping[int, str]) -> str:
    dims = shape(strand.index, value)
    return " x ".join(places.get(number, "?" if dim is None else str(dim)) for number, dim in enumerate(dims))


def _add_shared(
    strand: Strand, place: Mapping[ir.Node, int], gone: Mask, boxes: list[Box], arrows: list[Arrow]
) -> None:
    """Weights that several boxes read couple them like anything that flows."""
    readers: dict[ir.Value, dict[int, ir.Node]] = collections.defaultdict(dict)
    for node, number in place.items():
        for one in strand.constants(node):
            readers[one.value].setdefault(number, node)
    for value, by_box in readers.items():
        if len(by_box) < 2:
            continue
        node = next(iter(by_box.values()))
        slices = {one.number: one for one in strand.constants(node) if one.value is value}
        left = {number: strand.index.graph.kept(one.axis, gone) for number, one in slices.items()}
        places = {
            number: f"{slices[number].axis.size if kept is None else len(kept)}/{slices[number].axis.size}"
            for number, kept in left.items()
        }
        name = value.name or ""
        boxes.append(Box("weight", "shared weight", name, (_sizes(strand, value, places),), name))
        arrows += [Arrow(len(boxes) - 1, number, True) for number in by_box]


def _add_ends(
    strand: Strand, stays: Channels | None, place: Mapping[ir.Node, int], boxes: list[Box], arrows: list[Arrow]
) -> None:
    """Inputs and outputs of the model, where they are what makes channels stay."""
    where = set() if stays is None or stays.frozen is None else set(stays.frozen.where)
    for value in dict.fromkeys(one.value for one in strand.slices):
        if value.name not in where:
            continue
        kind = "input" if value.producer() is None else "output"
        boxes.append(Box("end", f"model {kind}", value.name or "", (), value.name or ""))
        producer = value.producer()
        if producer is not None and producer in place:
            arrows.append(Arrow(place[producer], len(boxes) - 1))
        if producer is None:
            arrows += [Arrow(len(boxes) - 1, place[node]) for node in value.consumers() if node in place]


# -- Graphviz --------------------------------------------------------------------------------------------------------

# Colours after Okabe and Ito, which people with any colour vision tell apart; fills are tints of the borders.
COLORS = {
    "layer": ("#dcebf7", "#0072b2"),
    "join": ("#fdebcf", "#b06a00"),
    "norm": ("#f6e3ee", "#a3457a"),
    "pass": ("#f4f4f4", "#767676"),
    "weight": ("#ffffff", "#0072b2"),
    "end": ("#ffffff", "#222222"),
    "cause": ("#fbdcc8", "#c04000"),
}
LEGEND = {
    "layer": "has weights",
    "join": "couples what it reads",
    "norm": "takes statistics",
    "pass": "passes channels on",
    "weight": "shared weight",
    "end": "end of the model",
    "cause": "makes channels stay",
}


def to_dot(drawn: Picture) -> str:
    """Graphviz text."""
    lines = [
        "digraph group {",
        f"  label={_quoted([drawn.title, drawn.subtitle])}; labelloc=t; fontname=Helvetica;",
        '  node [shape=box, style="filled,rounded", fontname=Helvetica, fontsize=11];',
        '  edge [color="#555555", arrowsize=0.7];',
    ]
    for number, box in enumerate(drawn.boxes):
        fill, border = COLORS[box.kind]
        text = [box.title, printable(box.name), *box.lines]
        width = 3 if box.is_subject else 1
        lines.append(
            f'  n{number} [label={_quoted([one for one in text if one])}, fillcolor="{fill}", color="{border}", '
            f"penwidth={width}, tooltip={_quoted(box.detail.splitlines())}];"
        )
    for arrow in drawn.arrows:
        style = " [style=dashed]" if arrow.is_weight else ""
        lines.append(f"  n{arrow.source} -> n{arrow.target}{style};")
    return "\n".join([*lines, "}"]) + "\n"


def _quoted(lines: Sequence[str]) -> str:
    """A quoted string; a backslash is no escape but itself."""
    parts = [printable(line).replace("\\", "\\\\").replace('"', '\\"') for line in lines]
    return '"' + "\\n".join(parts) + '"'
