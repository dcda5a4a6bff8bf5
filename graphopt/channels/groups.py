"""The channel graph: which lanes of which tensors must go together, and what can go at all.

Every factor of every axis that is free has one *atom* a place. Operators that cut and join axes tie atoms to each
other; what is tied together is a *unit*. Units that run through the same factors form a *group*.
"""

from __future__ import annotations

import collections
import functools
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from graphopt.channels.atoms import Atoms, Indices, Mask
from graphopt.channels.axes import find, leaves
from graphopt.channels.linker import Linker
from graphopt.channels.records import Place
from graphopt.channels.tensors import SlicedTensor
from graphopt.channels.units import Frozen, Group, Member, Saving, Unit
from graphopt.errors import UsageError
from graphopt.names import label

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult

    from graphopt.channels.explaining.index import Index
    from graphopt.channels.explaining.savings import Savings

__all__ = ["ChannelGraph"]


class _Use(NamedTuple):
    """A factor within an axis of a constant."""

    place: Place
    axis: int


class ChannelGraph(Atoms):
    """The groups of one model; made by :func:`graphopt.channels.analyze`.

    Attributes:
        model: The model, functions inlined; units refer to it.
        linker: Its axes.
        groups: What can be removed.
        frozen: What cannot, and why.
        source: What was given to be analysed.
        give_back: Turns a model into that kind.
    """

    def __init__(self, model: ir.Model, linker: Linker, granularity: str) -> None:
        super().__init__(linker, granularity)
        self.model = model
        self.source: Any = model
        self.give_back: Callable[[ir.Model], Any] = _itself
        self._uses = self._index_uses()
        self._work = self._index_work()
        self.groups: list[Group] = self._groups()
        self.frozen: list[Frozen] = self._frozen()

    # -- units and groups --------------------------------------------------------------------------------------------

    def _groups(self) -> list[Group]:
        free = np.flatnonzero(self._blame < 0)
        roots, unit = np.unique(self._root[free], return_inverse=True)
        used = np.zeros(len(self._leaves), bool)
        used[[number for number, uses in enumerate(self._uses) if uses]] = True
        # A unit that no constant has is no unit: nothing would become smaller.
        weighty = np.zeros(len(roots), bool)
        weighty[unit[used[self._leaf_of[free]]]] = True
        renumbered = np.cumsum(weighty) - 1
        kept = weighty[unit]
        self._unit_of = np.full(self._count, -1, np.int64)
        self._unit_of[free[kept]] = renumbered[unit[kept]]
        self._atoms_of = _grouped(free[kept], self._unit_of[free[kept]], int(weighty.sum()))
        signature = self._signatures()
        _, first, group_of = np.unique(signature, return_index=True, return_inverse=True)
        order = np.argsort(first)
        rank = np.empty_like(order)
        rank[order] = np.arange(len(order))
        self.group_of = rank[group_of]
        self._units_of = _grouped(np.arange(len(signature)), self.group_of, len(order))
        segments = self._segments()
        self._named: collections.Counter[str] = collections.Counter()
        return [self._group(index, segments.get(index, ())) for index in range(len(order))]

    def _signatures(self) -> npt.NDArray[np.uint64]:
        """A number for the set of leaves that each unit runs through."""
        codes = np.random.default_rng(0).integers(1, 2**63, len(self._leaves), np.uint64)
        result = np.zeros(len(self._atoms_of), np.uint64)
        own = np.flatnonzero(self._unit_of >= 0)
        pairs = np.unique(np.stack([self._unit_of[own], self._leaf_of[own]]), axis=1)
        np.add.at(result, pairs[0], codes[pairs[1]])
        return result

    def _segments(self) -> dict[int, tuple[frozenset[int], ...]]:
        """For each leaf of which everything could go, the units of one group of which one must stay."""
        found: dict[int, dict[frozenset[int], None]] = collections.defaultdict(dict)
        for number, leaf in enumerate(self._leaves):
            if not self._is_free(leaf):
                continue
            units = self._unit_of[self._base[number] : self._base[number + 1]]
            if units.min() < 0:
                continue
            units = np.unique(units)
            groups, counts = np.unique(self.group_of[units], return_counts=True)
            chosen = int(groups[np.argmax(counts)])
            found[chosen][frozenset(units[self.group_of[units] == chosen].tolist())] = None
        return {group: tuple(sets) for group, sets in found.items()}

    def _group(self, index: int, segments: tuple[frozenset[int], ...]) -> Group:
        own = self._units_of[index]
        through = np.unique(self._leaf_of[self._atoms_of[int(own[0])]])
        statistics: dict[ir.Node, None] = {}
        nodes: dict[ir.Node, None] = {}
        names: list[str] = []
        for number in through.tolist():
            statistics.update(self.statistics.get(self._leaves[number], {}))
            for use in self._uses[number]:
                names.append(use.place.value.name or "")
                readers = use.place.value.consumers() if use.place.node is None else [use.place.node]
                nodes.update(dict.fromkeys(readers))
        heads = any(self._leaves[number].role.head for number in through.tolist())
        units = [Unit(index, int(unit), self) for unit in own]
        name = self._source(nodes, through.tolist()) or names[0]
        self._named[name] += 1
        if self._named[name] > 1:
            name = f"{name}#{self._named[name]}"
        return Group(index, name, units, segments, tuple(statistics), tuple(nodes), heads)

    def _source(self, nodes: Iterable[ir.Node], numbers: Iterable[int]) -> str:
        """The name of the first node that gives lanes of these leaves and gets none."""
        own = set(numbers)
        for node in nodes:
            inputs = [value for value in node.inputs if value is not None and self.linker.constant(value) is None]
            if self._carries(node.outputs, own) and not self._carries(inputs, own):
                return label(node)
        return ""

    def _carries(self, values: Iterable[ir.Value], numbers: set[int]) -> bool:
        axes = (axis for value in values for axis in self.linker.axes.get(value) or ())
        return any(self._number.get(find(leaf)) in numbers for axis in axes for leaf in leaves(axis))

    def _index_uses(self) -> list[list[_Use]]:
        """By leaf, the axes of constants that have it."""
        uses: list[list[_Use]] = [[] for _ in self._leaves]
        own = {place.value for place in self.linker.constants if place.node is not None}
        generated = {Place(None, 0, value): self.linker.of(value) or () for value in self.linker.generated}
        for place, axes in (self.linker.constants | generated).items():
            if place.node is None and place.value in own:
                continue
            for axis, one in enumerate(axes):
                for leaf in leaves(one):
                    if leaf.size != 1:
                        uses[self._number[find(leaf)]].append(_Use(place, axis))
        return uses

    def _index_work(self) -> dict[int, list[tuple[int, tuple[int, ...]]]]:
        """By leaf, the multiplications that products do along it, and the sizes of the leaf within them."""
        found: dict[int, list[tuple[int, tuple[int, ...]]]] = collections.defaultdict(list)
        for product in self.linker.products:
            numbers: list[int] = []
            total = 1
            for axis in product.axes:
                for leaf in map(find, leaves(axis)):
                    total *= leaf.size if isinstance(leaf.size, int) else 1
                    if leaf in self._number:  # an axis of size 1 may be none of any tensor's
                        numbers.append(self._number[leaf])
            for number in set(numbers):
                found[number].append((total, (numbers.count(number),)))
        return found

    # -- asking ------------------------------------------------------------------------------------------------------

    @property
    def units(self) -> list[Unit]:
        """Every unit of every group."""
        return [unit for group in self.groups for unit in group.units]

    def unit_atoms(self, unit: int) -> Indices:
        """The atoms of a unit."""
        return self._atoms_of[unit]

    def gone(self, units: Iterable[Unit | int]) -> Mask:
        """Which atoms go with these units (or units of these numbers).

        Raises:
            UsageError: Something that is no unit of this graph, or a tensor would become empty.
        """
        chosen = np.zeros(len(self._atoms_of), bool)
        for unit in units:
            index = unit
            if isinstance(unit, Unit):
                index = unit.index if unit.graph is self else -1
            if not isinstance(index, int) or not 0 <= index < len(chosen):
                raise UsageError(f"{unit} is no unit of this graph", hint="Units belong to the graph they came from.")
            chosen[index] = True
        mask = np.zeros(self._count, bool)
        owned = self._unit_of >= 0
        mask[owned] = chosen[self._unit_of[owned]]
        for number, leaf in enumerate(self._leaves):
            if self._is_free(leaf) and mask[self._base[number] : self._base[number + 1]].all():
                uses = self._uses[number]
                where = uses[0].place.value.name if uses else "a tensor"
                raise UsageError(
                    f"nothing would be left of '{where}'", hint="Leave one unit of each of a group's segments."
                )
        return mask

    def gone_units(self, units: Indices) -> Mask:
        """Which atoms go with units of these numbers, of which it is known that they leave something everywhere."""
        chosen = np.zeros(len(self._atoms_of) + 1, bool)  # the last one stands for atoms of no unit
        chosen[units] = True
        return chosen[self._unit_of]

    def members(self, unit: Unit) -> list[Member]:
        """The slices of constants that go with a unit."""
        atoms = self._atoms_of[unit.index]
        leaf_of = self._leaf_of[atoms]
        found: dict[tuple[str, int], list[Indices]] = {}
        for number in np.unique(leaf_of).tolist():
            own = atoms[leaf_of == number]
            for use in self._uses[number]:
                axis = (self.linker.constants.get(use.place) or self.linker.of(use.place.value) or ())[use.axis]
                found.setdefault((use.place.value.name or "", use.axis), []).append(self.places(axis, number, own))
        return [
            Member(tensor, axis, tuple(np.unique(np.concatenate(places)).tolist()))
            for (tensor, axis), places in found.items()
        ]

    def weights(self, unit: Unit) -> list[npt.NDArray[Any]]:
        """The slices of constants that go with a unit, read from the model now: what a measure of importance needs.

        One for each of :meth:`members`, in that order, but for weights that a node makes from their shape alone. A
        tensor that has the unit along two axes gives two slices, which cross.
        """
        slices = []
        for member in self.members(unit):
            tensor = self._tensors.get(member.tensor)
            if tensor is not None:
                kept: list[Indices | None] = [None] * len(tensor.shape)
                kept[member.axis] = np.array(member.indices, np.int64)
                slices.append(SlicedTensor(tensor, kept).numpy())
        return slices

    @functools.cached_property
    def _tensors(self) -> dict[str, ir.TensorProtocol]:
        tensors = {place.value.name or "": self.linker.constant(place.value) for place in self.linker.constants}
        return {name: tensor for name, tensor in tensors.items() if tensor is not None}

    def saving(self, unit: Unit) -> Saving:
        """What removing a unit alone saves, to first order."""
        leaf_of, counts = np.unique(self._leaf_of[self._atoms_of[unit.index]], return_counts=True)
        total = Saving(0, 0, 0)
        for number, count in zip(leaf_of.tolist(), counts.tolist(), strict=True):
            total += self._lane(number, count)
        return total

    def _lane(self, number: int, count: int) -> Saving:
        size = self._leaves[number].size
        assert isinstance(size, int)
        parameters = stored = 0
        for use in self._uses[number]:
            tensor = self.linker.constant(use.place.value)
            if tensor is not None:
                parameters += tensor.size * count // size
                stored += tensor.nbytes * count // size
        macs = sum(total * count // size for total, _ in self._work.get(number, ()))
        return Saving(parameters, stored, macs)

    def _frozen(self) -> list[Frozen]:
        """Axes with weights along them, all or part of which cannot go."""
        found: list[Frozen] = []
        for number, leaf in enumerate(self._leaves):
            if not (leaf.role.channel and self._uses[number]) or not isinstance(leaf.size, int) or leaf.size < 2:
                continue
            own = np.arange(self._base[number], self._base[number + 1])
            stuck = own[self._blame[own] >= 0]
            if not len(stuck):
                continue
            freeze = self.reason(int(stuck[0]))
            tensors = tuple((use.place.value.name or "", use.axis) for use in self._uses[number])
            size = leaf.size if leaf.frozen is not None else len(stuck)
            name = self._source(self._readers(number), [number]) or tensors[0][0]
            found.append(Frozen(name, size, freeze.node, freeze.reason, self._lane(number, 1), tensors))
        return found

    def _readers(self, number: int) -> dict[ir.Node, None]:
        """The nodes that read a constant along a leaf."""
        nodes: dict[ir.Node, None] = {}
        for use in self._uses[number]:
            nodes.update(dict.fromkeys(use.place.value.consumers() if use.place.node is None else [use.place.node]))
        return nodes

    # -- explaining --------------------------------------------------------------------------------------------------

    @functools.cached_property
    def index(self) -> Index:
        """Where everything is; made when first asked for."""
        from graphopt.channels.explaining.index import Index

        return Index(self)

    @functools.cached_property
    def savings(self) -> Savings:
        """What units save together; made when first asked for."""
        from graphopt.channels.explaining.savings import Savings

        return Savings(self)

    def unit_at(self, atoms: Indices) -> Indices:
        """The unit of each atom; -1 for those that have none."""
        return self._unit_of[atoms]

    def lane(self, number: int) -> Saving:
        """What one place of a factor alone would save, to first order."""
        return self._lane(number, 1)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from graphopt.channels.explaining import render

        yield from render.overview(self, options)

    def _repr_html_(self) -> str:
        from graphopt.channels.explaining import render

        return render.overview_html(self)

    def to_dict(self) -> Mapping[str, object]:
        """Groups and what is frozen, as plain data for JSON; :mod:`graphopt.channels.explaining.data` documents it."""
        from graphopt.channels.explaining import data

        return data.of_graph(self)


def _grouped(items: Indices, keys: Indices, count: int) -> list[Indices]:
    """The items of each key from 0 to ``count``, in order."""
    order = np.argsort(keys, kind="stable")
    bounds = np.searchsorted(keys[order], np.arange(count + 1))
    return [items[order[bounds[key] : bounds[key + 1]]] for key in range(count)]


def _itself(model: ir.Model) -> ir.Model:
    return model
