"""Where everything in a channel graph is: the tensors and nodes that lanes run through, and what ties them."""

from __future__ import annotations

import collections
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from graphopt import walk
from graphopt.channels.axes import Axis, leaves
from graphopt.channels.groups import ChannelGraph
from graphopt.channels.records import Link

__all__ = ["Index", "Slice", "State", "Strand", "Track"]

Indices = npt.NDArray[np.int64]
State = tuple[Axis, int]
"""An axis as a rule named it, and an atom in it."""
Track = dict[State, tuple[State, ir.Node | None] | None]
"""For each state that was reached the one before it and the node that ties the two; ``None`` for where it started."""


class Slice(NamedTuple):
    """An axis of a tensor.

    Attributes:
        value: The tensor.
        number: Which axis.
        axis: The axis itself.
        reader: The only node that it is for, where a constant has axes for each of its readers.
    """

    value: ir.Value
    number: int
    axis: Axis
    reader: ir.Node | None = None


class Strand:
    """All that atoms which are tied to each other run through.

    Attributes:
        index: Where it was looked up.
        atoms: The atoms.
        slices: Axes of tensors, those of computed ones first.
        nodes: What gives or reads them, in the order of the graph.
    """

    def __init__(self, index: Index, atoms: Indices) -> None:
        self.index = index
        self.atoms: list[int] = atoms.tolist()
        self.numbers = set(index.graph.leaves_of(atoms))
        found = dict.fromkeys(one for number in sorted(self.numbers) for one in index.slices[number])
        self.slices = sorted(found, key=lambda one: index.is_constant(one.value))
        self._constants: dict[ir.Node, list[Slice]] = collections.defaultdict(list)
        self._computed = {one.value for one in self.slices if not index.is_constant(one.value)}
        nodes: set[ir.Node] = set()
        for one in self.slices:
            near = index.neighbours(one)
            nodes.update(near)
            if index.is_constant(one.value):
                for node in near:
                    self._constants[node].append(one)
        self.nodes = sorted(nodes, key=index.order.__getitem__)

    def inputs(self, node: ir.Node) -> list[ir.Value]:
        """The computed values that a node reads."""
        return [value for value in self.index.reads(node) if value in self._computed]

    def outputs(self, node: ir.Node) -> list[ir.Value]:
        """The values that a node gives."""
        return [value for value in node.outputs if value in self._computed]

    def constants(self, node: ir.Node) -> list[Slice]:
        """The axes of constants that a node reads."""
        return self._constants.get(node, [])

    def states(self, axis: Axis) -> Iterator[State]:
        """The atoms in an axis."""
        graph = self.index.graph
        own = {graph.number(leaf) for leaf in leaves(axis)}
        return ((axis, atom) for atom in self.atoms if graph.leaf_at(atom) in own)


class Index:
    """Of one channel graph; made by :attr:`ChannelGraph.index`.

    Attributes:
        graph: The graph.
        slices: By the number of a leaf, the axes of tensors that have it.
        order: The place of each node in the graph.
    """

    def __init__(self, graph: ChannelGraph) -> None:
        self.graph = graph
        linker = graph.linker
        self.order = {node: place for place, node in enumerate(walk.nodes(graph.model))}
        self.slices: dict[int, list[Slice]] = collections.defaultdict(list)
        for value, axes in linker.axes.items():
            if not self.is_constant(value):
                self._enter(Slice(value, number, axis) for number, axis in enumerate(axes or ()))
        own = {place.value for place in linker.constants if place.node is not None}
        for place, constant in linker.constants.items():
            if place.node is not None or place.value not in own:
                self._enter(Slice(place.value, number, axis, place.node) for number, axis in enumerate(constant))
        self._links: dict[Axis, list[Link]] = collections.defaultdict(list)
        for link in linker.links:
            for end in {link.a, link.b} - {None}:
                assert end is not None
                self._links[end].append(link)
        self._ends: dict[int, tuple[Indices, Indices]] = {}
        self._owner = {value: node for node in self.order for inner in walk.subgraphs(node) for value in inner.outputs}

    def _enter(self, slices: Iterable[Slice]) -> None:
        for one in slices:
            for leaf in leaves(one.axis):
                if leaf.size != 1:
                    self.slices[self.graph.number(leaf)].append(one)

    def is_constant(self, value: ir.Value) -> bool:
        """Whether a value is the same in every run."""
        return self.graph.linker.constant(value) is not None

    def reads(self, node: ir.Node) -> list[ir.Value]:
        """What a node reads: its inputs, and what its branches or its body give."""
        inner = [value for graph in walk.subgraphs(node) for value in graph.outputs]
        return [*dict.fromkeys([value for value in node.inputs if value is not None] + inner)]

    def neighbours(self, one: Slice) -> list[ir.Node]:
        """The nodes that give or read a tensor; of a constant those that read it."""
        if one.reader is not None:
            return [one.reader]
        producer = None if self.is_constant(one.value) else one.value.producer()
        found = dict.fromkeys([producer, *one.value.consumers(), self._owner.get(one.value)])
        return [node for node in found if node is not None]

    def strand(self, atom: int) -> Strand:
        """All that is tied to an atom."""
        return Strand(self, self.graph.component(atom))

    def trace(self, starts: Iterable[State]) -> Track:
        """Goes breadth first from axis to axis along what made them one, or tied places of one to places of the other.

        Returns:
            How each axis was reached first.
        """
        track: Track = dict.fromkeys(starts)
        pending = collections.deque(track)
        while pending:
            state = pending.popleft()
            for after, node in self._steps(state):
                if after not in track:
                    track[after] = (state, node)
                    pending.append(after)
        return track

    def _steps(self, state: State) -> Iterator[tuple[State, ir.Node | None]]:
        axis, atom = state
        number = self.graph.leaf_at(atom)
        for other, node in axis.met:
            if any(self.graph.number(leaf) == number for leaf in leaves(other)):
                yield (other, atom), node
        for link in self._links.get(axis, ()):
            if link.b is None:
                continue
            first, second = self._atoms(link, link.b)
            if link.a is axis:
                yield from (((link.b, place), link.node) for place in np.unique(second[first == atom]).tolist())
            if link.b is axis:
                yield from (((link.a, place), link.node) for place in np.unique(first[second == atom]).tolist())

    def _atoms(self, link: Link, b: Axis) -> tuple[Indices, Indices]:
        if id(link) not in self._ends:
            self._ends[id(link)] = self.graph.atoms(link.a, link.a_indices), self.graph.atoms(b, link.b_indices)
        return self._ends[id(link)]
