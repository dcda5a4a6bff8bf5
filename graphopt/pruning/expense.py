"""What is left of a model's multiplications, parameters, bytes and memory, quickly enough to ask thousands of times."""

from __future__ import annotations

import collections
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from graphopt.analysis import dims
from graphopt.analysis.cost import Meter, bind
from graphopt.analysis.memory import schedule
from graphopt.analysis.parameters import is_parameter_dtype
from graphopt.channels.atoms import Mask
from graphopt.channels.axes import find, leaves
from graphopt.channels.groups import ChannelGraph
from graphopt.channels.records import Axes

__all__ = ["COUNTED", "Expense"]

COUNTED = ("macs", "params", "bytes", "memory")
"""What :class:`Expense` counts; memory is the weights and what :mod:`graphopt.analysis.memory` adds to them."""


class Expense:
    """Counts for one channel graph; first those of the whole model, then of what some removal leaves.

    Args:
        graph: The channel graph.
        input_shapes: Sizes of the inputs, for symbolic dims; those of no input count as 1.
        run: The same for the run whose memory counts; ``input_shapes`` if ``None``.

    Attributes:
        total: Of the whole model, by measure.
    """

    def __init__(
        self,
        graph: ChannelGraph,
        input_shapes: Mapping[str, Sequence[int]],
        run: Mapping[str, Sequence[int]] | None = None,
    ) -> None:
        self._graph = graph
        meter = Meter(graph.model, graph.linker.shapes, input_shapes if run is None else run)
        self._bindings = bind(graph.model, graph.linker.shapes, input_shapes)
        rows: dict[str, list[tuple[float, list[int]]]] = {measure: [] for measure in COUNTED}
        for product in graph.linker.products:
            rows["macs"].append(self._row(product.axes))
        self._count_weights(rows)
        self._schedule = schedule(graph.model, meter)
        for buffer in self._schedule.buffers:
            axes = graph.linker.axes.get(buffer.value) or ()
            rows["memory"].append((float(meter.bytes_of(buffer.value)), self._row(axes)[1]))
        self._tables = {measure: _table(found) for measure, found in rows.items()}
        self._whole = np.ones(len(graph.shares(graph.marked(np.zeros(0, np.int64)))) + 1)
        self.total = {measure: self._sum(measure, self._whole) for measure in COUNTED}

    def _count_weights(self, rows: Mapping[str, list[tuple[float, list[int]]]]) -> None:
        graph = self._graph
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

    def left(self, gone: Mask, measure: str) -> float:
        """What share of a measure is left without the atoms ``gone``: 0 to 1."""
        return self._sum(measure, self._shares(gone)) / max(1.0, self.total[measure])

    def exceeded(self, gone: Mask, measure: str, limit: float) -> float:
        """How far what is left is from a limit, which is a share: 1 at it, less below, more above.

        Above, memory is told by all that is beyond the limit at any time, not by its peak: many steps may share that,
        and removing what only some of them hold is a gain none the less.
        """
        left = self.left(gone, measure)
        if measure != "memory" or left <= limit:
            return left / limit
        most = limit * self.total[measure]
        beyond, all_ = (
            np.maximum(self._over_time(shares) - most, 0.0).sum() for shares in (self._shares(gone), self._whole)
        )
        return 1 + (1 / limit - 1) * float(beyond / all_)

    def _shares(self, gone: Mask) -> npt.NDArray[np.float64]:
        """What is left of each factor; the last one, of none, is all there."""
        return np.append(self._graph.shares(gone), 1.0)

    def _over_time(self, shares: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Weights and tensors, in bytes, at each step."""
        sizes, places = self._tables["memory"]
        live = self._schedule.over_time(sizes * shares[places].prod(axis=1))
        return live + self._sum("bytes", shares)

    def _sum(self, measure: str, shares: npt.NDArray[np.float64]) -> float:
        if measure == "memory":
            return float(self._over_time(shares).max())
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
