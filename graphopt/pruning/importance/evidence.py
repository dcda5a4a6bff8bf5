"""What a measure of importance may look at, and what it gives back."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from graphopt.channels.groups import ChannelGraph
from graphopt.channels.units import Group
from graphopt.pruning.layers import Layer, find_layers
from graphopt.pruning.stages import Feeds, observe

__all__ = ["Consumer", "Evidence", "Gradients", "Progress", "Ranking"]

Array = npt.NDArray[Any]
Indices = npt.NDArray[np.int64]
Progress = Callable[[str, float | None], None]


class Gradients(Protocol):
    """Who can differentiate a model; the torch bridge does."""

    def __call__(
        self, model: ir.Model, names: Sequence[str], batches: Sequence[Feeds], *, order: Literal[1, 2] = 1
    ) -> Iterator[Mapping[str, Array]]:
        """The gradient of the loss by each named constant, batch by batch; of order 2 the diagonal of its Hessian."""


@dataclasses.dataclass(frozen=True)
class Ranking:
    """In which order the units of a group should go, and what that does.

    Attributes:
        group: The group.
        order: Its units, by their number in the graph, the least important first.
        harm: ``(len(order) + 1,)``: the estimated harm of removing that many of them; of all groups on one scale.
    """

    group: Group
    order: Indices
    harm: Array


@dataclasses.dataclass(frozen=True, eq=False)
class Consumer:
    """A layer that sums over channels, and which unit each channel belongs to.

    Attributes:
        layer: The layer.
        units: ``(channels,)`` numbers of units; -1 for channels that stay anyway.
    """

    layer: Layer
    units: Indices


class Evidence:
    """A model, its channel graph, and inputs to watch it on.

    Args:
        graph: The channel graph.
        batches: Calibration inputs; none for measures of weights alone.
        seed: For what is sampled.
        provider: Execution provider.
        threads: Intra-op threads.
        gradients: Who differentiates, if anyone.
        progress: Called with the step and the share of it that is done.

    Attributes:
        running: How to run the model: provider and threads.
    """

    def __init__(
        self,
        graph: ChannelGraph,
        batches: Sequence[Feeds] = (),
        *,
        seed: int = 0,
        provider: str = "cpu",
        threads: int | None = None,
        gradients: Gradients | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.graph = graph
        self.batches = batches
        self.seed = seed
        self.gradients = gradients
        self.progress: Progress = progress or (lambda step, share: None)
        self.running: dict[str, Any] = {"provider": provider, "threads": threads}

    def observe(self, values: Sequence[ir.Value]) -> Iterator[list[Array]]:
        """What inner values of the model hold, batch by batch."""
        return observe(self.graph.model, values, self.batches, **self.running)

    @functools.cached_property
    def consumers(self) -> list[Consumer]:
        """The layers of the main graph that sum over channels that can go."""
        found = []
        for layer in find_layers(self.graph.model.graph):
            axes = self.graph.linker.of(layer.input) or ()
            if not axes or not layer.is_float or not isinstance(axes[layer.input_axis].size, int):
                continue
            if layer.groups > 1 and layer.columns == layer.window:
                continue  # of a depthwise convolution the channels do not add up
            axis = axes[layer.input_axis]
            units = self.graph.unit_at(self.graph.atoms(axis))
            if (units >= 0).any():
                found.append(Consumer(layer, units))
        return found

    def weights(self) -> Iterator[tuple[ir.Value, Array, list[tuple[int, Indices]]]]:
        """Every constant of floats that has units along some axis, as an array, and these axes with their units."""
        seen: set[tuple[ir.Value, bytes]] = set()
        linker = self.graph.linker
        own = {place.value for place in linker.constants if place.node is not None}
        for place, axes in linker.constants.items():
            if place.node is None and place.value in own:
                continue
            tensor = linker.constant(place.value)
            if tensor is None or not tensor.dtype.is_floating_point():
                continue
            found = []
            for number, axis in enumerate(axes):
                if isinstance(axis.size, int) and axis.size > 1:
                    units = self.graph.unit_at(self.graph.atoms(axis))
                    if (units >= 0).any():
                        found.append((number, units))
            key = place.value, b"".join(units.tobytes() for _, units in found)
            if found and key not in seen:
                seen.add(key)
                array = tensor.numpy()
                yield place.value, np.asarray(array, array.dtype.newbyteorder("=")), found

    def per_unit(self, sums: Sequence[tuple[Indices, Array]]) -> Array:
        """Adds numbers up by unit; each pair holds units (-1 is left out) and a number for each."""
        total = np.zeros(len(self.graph.group_of))
        for units, numbers in sums:
            own = units >= 0
            np.add.at(total, units[own], numbers[own])
        return total

    def rankings(self, scores: Array, *, comparable: bool) -> list[Ranking]:
        """Rankings by a number for each unit.

        Args:
            scores: ``(units,)``, larger is more important; NaN for what a measure cannot say.
            comparable: Whether they are on one scale over all groups; else each group's mean becomes 1.
        """
        found = []
        for group in self.graph.groups:
            units = np.array([unit.index for unit in group.units], np.int64)
            own = scores[units]
            order = np.argsort(own, kind="stable")
            own = own[order]
            if not comparable:
                mean = float(own.mean())
                own = own / mean if mean > 0 and math.isfinite(mean) else np.ones(len(own))
            found.append(Ranking(group, units[order], np.concatenate([[0.0], np.cumsum(own)])))
        return found
