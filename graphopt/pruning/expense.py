"""What is left of a model's multiplications, parameters and bytes, quickly enough to ask thousands of times."""

from __future__ import annotations

import collections
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from graphopt.analysis import dims
from graphopt.analysis.cost import bind
from graphopt.analysis.parameters import is_parameter_dtype
from graphopt.channels.atoms import Mask
from graphopt.channels.axes import find, leaves
from graphopt.channels.groups import ChannelGraph
from graphopt.channels.records import Axes

__all__ = ["MEASURES", "Expense"]

MEASURES = ("macs", "params", "bytes")
"""What :class:`Expense` counts."""


class Expense:
    """Counts for one channel graph; first those of the whole model, then of what some removal leaves.

    Args:
        graph: The channel graph.
        input_shapes: Sizes of the inputs, for symbolic dims; those of no input count as 1.
    """

    def __init__(self, graph: ChannelGraph, input_shapes: Mapping[str, Sequence[int]]) -> None:
        self._graph = graph
        self._bindings = bind(graph.model, graph.linker.shapes, input_shapes)
        rows: dict[str, list[tuple[float, list[int]]]] = {measure: [] for measure in MEASURES}
        for product in graph.linker.products:
            rows["macs"].append(self._row(product.axes))
        by_value: dict[ir.Value, list[Axes]] = collections.defaultdict(list)
        own = {place.value for place in graph.linker.constants if place.node is not None}
        for place, axes in graph.linker.constants.items():
            if place.node is not None or place.value not in own:
                by_value[place.value].append(axes)
        for value, places in by_value.items():
            tensor = graph.linker.constant(value)
            if tensor is None or tensor.dtype == ir.DataType.STRING:
                continue
            axes = max(places, key=lambda axes: -len(self._row(axes)[1]))
            if is_parameter_dtype(tensor.dtype):
                rows["params"].append((float(tensor.size), self._row(axes)[1]))
            rows["bytes"].append((float(tensor.nbytes), self._row(axes)[1]))
        self._tables = {measure: _table(found) for measure, found in rows.items()}
        whole = np.ones(len(graph.shares(graph.marked(np.zeros(0, np.int64)))) + 1)
        self.total = {measure: self._sum(measure, whole) for measure in MEASURES}

    def left(self, gone: Mask, measure: str) -> float:
        """What share of a measure is left without the atoms ``gone``: 0 to 1."""
        shares = np.append(self._graph.shares(gone), 1.0)
        return self._sum(measure, shares) / max(1.0, self.total[measure])

    def _sum(self, measure: str, shares: npt.NDArray[np.float64]) -> float:
        sizes, places = self._tables[measure]
        return float(sizes @ shares[places].prod(axis=1)) if len(sizes) else 0.0

    def _row(self, axes: Axes) -> tuple[float, list[int]]:
        """The size of a box of axes, and the numbers of the factors that may shrink."""
        total, numbers = 1.0, []
        for leaf in [find(leaf) for axis in axes for leaf in leaves(axis)]:
            size = leaf.size if isinstance(leaf.size, int) else dims.evaluate(leaf.size, self._bindings)
            total *= max(0, 1 if size is None else size)
            if isinstance(leaf.size, int) and leaf.size > 1:
                numbers.append(self._graph.number(leaf))
        return total, numbers


def _table(rows: list[tuple[float, list[int]]]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Sizes, and factors by row; the last factor of all stands for none."""
    width = max((len(numbers) for _, numbers in rows), default=0)
    places = np.full((len(rows), max(1, width)), -1, np.int64)
    for row, (_, numbers) in enumerate(rows):
        places[row, : len(numbers)] = numbers
    return np.array([size for size, _ in rows], np.float64), places
