"""From axes to atoms: one for each place of each factor that is free.

Operators that cut and join axes tie atoms to each other. What is tied to an atom that must stay stays as well.
"""

from __future__ import annotations

import collections
import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from graphopt.analysis.dims import Dim
from graphopt.channels.axes import Axis, Freeze, find, leaves
from graphopt.channels.linker import Linker
from graphopt.channels.records import Axes
from graphopt.channels.unions import components
from graphopt.errors import UsageError

__all__ = ["GRANULARITIES", "Atoms", "Indices", "Mask"]

GRANULARITIES = ("heads", "head-dim")
"""What of an attention's width is free: whole heads, or the lanes of all heads alike."""

Indices = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


class Atoms:
    """The atoms of one model.

    Attributes:
        linker: The axes of the model's values.
        granularity: One of :data:`GRANULARITIES`.
        statistics: The nodes that take statistics over a factor.
    """

    def __init__(self, linker: Linker, granularity: str) -> None:
        if granularity not in GRANULARITIES:
            raise UsageError(f"there is no granularity '{granularity}'", hint=f"One of {', '.join(GRANULARITIES)}.")
        self.linker = linker
        self.granularity = granularity
        self._stays: dict[int, Freeze] = {}
        self._place: dict[Axis, int] = {}
        self._leaves: list[Axis] = []
        self._number: dict[Axis, int] = {}
        self._collect()
        self.statistics: dict[Axis, dict[ir.Node, None]] = collections.defaultdict(dict)
        for node, axes in linker.normalized.items():
            for leaf in [find(leaf) for axis in axes for leaf in leaves(axis)]:
                self.statistics[leaf][node] = None
        self._freeze_unrelated()
        self._choose()
        self._number_atoms()
        self._tie()

    # -- making them -------------------------------------------------------------------------------------------------

    def _every_axes(self) -> Iterator[Axes]:
        yield from (axes for axes in self.linker.axes.values() if axes)
        yield from self.linker.constants.values()
        for link in self.linker.links:
            yield (link.a,) if link.b is None else (link.a, link.b)

    def _collect(self) -> None:
        """Numbers the leaves, and lists the axes that have several."""
        self._trees: list[list[Axis]] = []
        seen: set[Axis] = set()
        for axes in self._every_axes():
            for axis in axes:
                root = find(axis)
                if root in seen:
                    continue
                seen.add(root)
                stack = [root]
                while stack:
                    current = stack.pop()
                    if current.parts is None:
                        if current not in self._number:
                            self._number[current] = len(self._leaves)
                            self._leaves.append(current)
                        continue
                    stack.extend(map(find, current.parts))
                if root.parts is not None:
                    self._trees.append([find(leaf) for leaf in leaves(root)])

    def _freeze_unrelated(self) -> None:
        """An axis that only constants have is none that a rule has looked at."""
        related: set[Axis] = set()
        for value, axes in self.linker.axes.items():
            if self.linker.constant(value) is None:
                for axis in axes or ():
                    related.update(map(find, leaves(axis)))
        for leaf in self._leaves:
            if leaf not in related and leaf.frozen is None:
                leaf.frozen = Freeze(None, "only constants have it")

    def _is_free(self, leaf: Axis) -> bool:
        return leaf.frozen is None and isinstance(leaf.size, int) and leaf.size > 1

    def _choose(self) -> None:
        """Leaves one factor of each axis free, and freezes the others."""
        rivals: dict[Axis, dict[Axis, int]] = {}
        for tree in self._trees:
            free = list(dict.fromkeys(leaf for leaf in tree if self._is_free(leaf)))
            repeated = [leaf for leaf in free if tree.count(leaf) > 1]
            for leaf in repeated:
                leaf.frozen = Freeze(None, "it is several factors of one axis")
            free = [leaf for leaf in free if leaf not in repeated]
            if len(free) < 2:
                continue
            for place, leaf in enumerate(free):
                mine = rivals.setdefault(leaf, {})
                mine.update((other, 0) for other in free if other is not leaf)
                self._place.setdefault(leaf, place)
        for leaf in sorted(rivals, key=self._preference):
            if self._is_free(leaf):
                for other in rivals[leaf]:
                    if self._is_free(other):
                        other.frozen = Freeze(None, "another factor of the same axis is free at this granularity")

    def _preference(self, leaf: Axis) -> tuple[int, int, int, int]:
        """Heads (or anything but heads) first, groups last; else the larger one, else the inner one."""
        assert isinstance(leaf.size, int)
        head = leaf.role.head and not leaf.role.group
        rank = 2 if leaf.role.group else int(head == (self.granularity == "head-dim"))
        place = self._place[leaf]
        return rank, place if head else -leaf.size, -place, self._number[leaf]

    def _number_atoms(self) -> None:
        """One atom a place of a free leaf; a frozen leaf has a single one, which stands for all its places."""
        counts = [leaf.size if self._is_free(leaf) else 1 for leaf in self._leaves]
        sizes = np.array([count if isinstance(count, int) else 1 for count in counts], np.int64)
        self._base = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        self._count = int(self._base[-1])
        self._leaf_of = np.repeat(np.arange(len(sizes)), sizes)
        self._frozen_atoms = np.zeros(self._count, bool)
        for number, leaf in enumerate(self._leaves):
            if not self._is_free(leaf):
                self._frozen_atoms[self._base[number]] = True

    def atoms(self, axis: Axis, indices: Indices | None = None) -> Indices:
        """The atom behind each place (or behind some places) of a static axis."""
        tree = [find(leaf) for leaf in leaves(axis)]
        size = 1
        free: tuple[Axis, int] | None = None
        for leaf in reversed(tree):
            if self._is_free(leaf):
                free = leaf, size
            size = size * leaf.size if isinstance(leaf.size, int) else size
        if indices is None:
            indices = np.arange(size, dtype=np.int64)
        if free is None:
            blamed = next((leaf for leaf in tree if leaf.frozen is not None), tree[0])
            return np.full(len(indices), self._base[self._number[blamed]])
        leaf, stride = free
        assert isinstance(leaf.size, int)
        atoms: Indices = self._base[self._number[leaf]] + indices // stride % leaf.size
        return atoms

    def _tie(self) -> None:
        pairs = []
        for link in self.linker.links:
            first = self.atoms(link.a, link.a_indices)
            if link.b is None:
                self._stay(first, Freeze(link.node, "a lane of it is picked by number"))
                continue
            pairs.append((first, self.atoms(link.b, link.b_indices)))
        self._root = components(self._count, pairs)
        # A component with a frozen atom is frozen, and its reason is that atom's.
        self._blame = np.full(self._count, -1, np.int64)
        stuck = np.flatnonzero(self._frozen_atoms)
        self._blame[self._root[stuck[::-1]]] = stuck[::-1]
        self._blame = self._blame[self._root]

    def _stay(self, atoms: Indices, freeze: Freeze) -> None:
        self._frozen_atoms[atoms] = True
        self._stays.update(dict.fromkeys(atoms.tolist(), freeze))

    # -- asking ------------------------------------------------------------------------------------------------------

    def places(self, axis: Axis, number: int, atoms: Indices) -> Indices:
        """The places of an axis that stand behind atoms of its free factor, ascending."""
        tree = [find(leaf) for leaf in leaves(axis)]
        at = tree.index(self._leaves[number])
        sizes = [leaf.size if isinstance(leaf.size, int) else 1 for leaf in tree]
        outer, size, stride = math.prod(sizes[:at]), sizes[at], math.prod(sizes[at + 1 :])
        blocks = np.arange(outer)[:, None, None] * size + (atoms - self._base[number])[None, :, None]
        places: Indices = (blocks * stride + np.arange(stride)).reshape(-1)
        return places

    def kept(self, axis: Axis, gone: Mask) -> Indices | None:
        """The places of an axis that stay; ``None`` when all do, or when its size is symbolic."""
        if not isinstance(axis.size, int) or axis.size < 2:
            return None
        if not any(self._is_free(find(leaf)) for leaf in leaves(axis)):
            return None
        stays = ~gone[self.atoms(axis)]
        return None if stays.all() else np.flatnonzero(stays)

    def size(self, axis: Axis, gone: Mask) -> tuple[Dim, int, int]:
        """The size of an axis, what of it was static in the factors that shrink, and what is left of that."""
        before = after = 1
        for leaf in map(find, leaves(axis)):
            if self._is_free(leaf):
                number = self._number[leaf]
                own = gone[self._base[number] : self._base[number + 1]]
                if own.any():
                    before *= len(own)
                    after *= int(len(own) - own.sum())
        return axis.size, before, after

    def shares(self, gone: Mask) -> npt.NDArray[np.float64]:
        """What share of each factor stays, by its number."""
        if not self._count:
            return np.ones(0)
        sizes = np.diff(self._base)
        return np.add.reduceat((~gone).astype(np.int64), self._base[:-1]) / sizes

    def reason(self, atom: int) -> Freeze:
        """Why an atom stays."""
        blamed = int(self._blame[atom])
        if blamed in self._stays:
            return self._stays[blamed]
        leaf = self._leaves[int(self._leaf_of[blamed])]
        if leaf.frozen is not None:
            return leaf.frozen
        return Freeze(None, "there is only one" if leaf.size == 1 else "its size is not known")

    def number(self, leaf: Axis) -> int:
        """The number of a factor that nothing splits further."""
        return self._number[find(leaf)]

    def leaf(self, number: int) -> Axis:
        """The factor of a number."""
        return self._leaves[number]

    def leaves_of(self, atoms: Indices) -> list[int]:
        """The numbers of the factors that atoms are places of."""
        found: list[int] = np.unique(self._leaf_of[atoms]).tolist()
        return found

    def leaf_at(self, atom: int) -> int:
        """The number of the factor that an atom is a place of."""
        return int(self._leaf_of[atom])

    def marked(self, atoms: Indices) -> Mask:
        """These atoms among all; unlike :meth:`gone` it does not ask whether anything would be left."""
        mask = np.zeros(self._count, bool)
        mask[atoms] = True
        return mask

    def component(self, atom: int) -> Indices:
        """All atoms that an atom is tied to, itself included."""
        return np.flatnonzero(self._root == self._root[atom])

    def blamed(self, atoms: Indices) -> Indices:
        """For each atom that stays the one that makes it stay; -1 for the others."""
        return self._blame[atoms]
