"""What removing several units together saves: a tensor that has them along two axes shrinks along both."""

from __future__ import annotations

import collections
import math
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from graphopt.analysis.parameters import identity, parameters
from graphopt.channels.axes import leaves
from graphopt.channels.groups import ChannelGraph
from graphopt.channels.records import Axes, Product
from graphopt.channels.units import Group, Saving, Unit

__all__ = ["Savings"]

Gone = npt.NDArray[np.bool_]


class Savings:
    """Of one channel graph; made by :attr:`ChannelGraph.savings`.

    Attributes:
        total: What the whole model has. Work is of one run with sizes that are not known taken to be 1.
        is_symbolic: Whether there are such sizes.
    """

    def __init__(self, graph: ChannelGraph) -> None:
        self._graph = graph
        self._axes: dict[ir.Value, list[Axes]] = collections.defaultdict(list)
        own = {place.value for place in graph.linker.constants if place.node is not None}
        for place, axes in graph.linker.constants.items():
            if place.node is not None or place.value not in own:
                self._axes[place.value].append(axes)
        self._values: dict[int, dict[ir.Value, None]] = collections.defaultdict(dict)
        for value, places in self._axes.items():
            for leaf in [leaf for axes in places for axis in axes for leaf in leaves(axis)]:
                self._values[graph.number(leaf)][value] = None
        self._products: dict[int, dict[int, Product]] = collections.defaultdict(dict)
        macs = 0
        self.is_symbolic = False
        for product in graph.linker.products:
            macs += _work(product)
            for leaf in [leaf for axis in product.axes for leaf in leaves(axis)]:
                self.is_symbolic |= not isinstance(leaf.size, int)
                self._products[graph.number(leaf)][id(product)] = product
        tensors = [graph.linker.constant(value) for value in self._axes]
        sizes = {identity(one): one.nbytes for one in tensors if one is not None and one.dtype != ir.DataType.STRING}
        self.total = Saving(parameters(graph.model), sum(sizes.values()), macs)

    def of(self, units: Iterable[Unit]) -> Saving:
        """What the removal of some units saves."""
        atoms = np.concatenate([self._graph.unit_atoms(unit.index) for unit in units])
        gone = self._graph.marked(atoms)
        numbers = self._graph.leaves_of(atoms)
        count = stored = macs = 0
        for value in dict.fromkeys(value for number in numbers for value in self._values[number]):
            tensor = self._graph.linker.constant(value)
            if tensor is not None and tensor.dtype != ir.DataType.STRING:
                lost = 1 - max(self._left(axes, gone) for axes in self._axes[value])
                count += round(tensor.size * lost)
                stored += round(tensor.nbytes * lost)
        for product in {key: one for number in numbers for key, one in self._products[number].items()}.values():
            total = left = _work(product)
            for axis in product.axes:
                _, before, after = self._graph.size(axis, gone)
                left = left * after // before
            macs += total - left
        return Saving(count, stored, macs)

    def half(self, group: Group) -> Saving:
        """What the removal of half of a group saves."""
        return self.of(group.units[: max(1, len(group.units) // 2)])

    def share(self, saving: Saving) -> tuple[float, float, float]:
        """What part of the model a saving is: of parameters, bytes, work."""
        return tuple(one / max(1, all_of) for one, all_of in zip(saving, self.total, strict=True))  # type: ignore[return-value]

    def _left(self, axes: Axes, gone: Gone) -> float:
        share = 1.0
        for axis in axes:
            kept = self._graph.kept(axis, gone)
            if kept is not None and isinstance(axis.size, int):
                share *= len(kept) / axis.size
        return share


def _work(product: Product) -> int:
    sizes = [leaf.size for axis in product.axes for leaf in leaves(axis)]
    return math.prod(size for size in sizes if isinstance(size, int))
