"""Units, the groups they form, and what cannot go: what a channel graph consists of."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy.typing as npt
import onnx_ir as ir

if TYPE_CHECKING:
    from graphopt.channels.groups import ChannelGraph

__all__ = ["Frozen", "Group", "Member", "Saving", "Unit"]


class Member(NamedTuple):
    """A slice of a constant.

    Attributes:
        tensor: Name of the constant.
        axis: The axis of it.
        indices: Places along the axis, ascending.
    """

    tensor: str
    axis: int
    indices: tuple[int, ...]


class Saving(NamedTuple):
    """What removing something alone saves, to first order: savings of units that share a tensor overlap."""

    parameters: int
    bytes: int
    macs: int

    def __add__(self, other: object) -> Saving:
        assert isinstance(other, Saving)
        return Saving(*(a + b for a, b in zip(self, other, strict=True)))


@dataclasses.dataclass(frozen=True, slots=True)
class Unit:
    """Lanes that must go together.

    Attributes:
        group: The number of its group.
        index: Its number within the graph.
    """

    group: int
    index: int
    _graph: ChannelGraph = dataclasses.field(repr=False)

    @property
    def graph(self) -> ChannelGraph:
        """The graph it belongs to."""
        return self._graph

    @property
    def members(self) -> list[Member]:
        """The slices of constants that go with it."""
        return self._graph.members(self)

    @property
    def weights(self) -> list[npt.NDArray[Any]]:
        """Those slices themselves, read from the model now: what a measure of importance needs."""
        return self._graph.weights(self)

    @property
    def saving(self) -> Saving:
        """What its removal saves."""
        return self._graph.saving(self)

    @property
    def exact(self) -> bool:
        """Whether removal equals the masked model bit by bit of the formula; see :attr:`Group.exact`."""
        return self._graph.groups[self.group].exact


@dataclasses.dataclass(frozen=True, slots=True)
class Group:
    """Units that run through the same factors, in order.

    Attributes:
        index: Its number.
        name: After the node that its lanes come from, with ``#2`` for the second group of a node; else after the first
            constant that it slices.
        units: Its units.
        segments: Sets of units of which one each must stay, so that no tensor becomes empty.
        statistics: Nodes that normalize over it. Removal then equals a masked model whose statistics are over what is
            left; without any it equals the masked model as it is.
        nodes: Operators with weights along it.
        heads: Whether a unit is an attention head.
    """

    index: int
    name: str
    units: Sequence[Unit]
    segments: tuple[frozenset[int], ...]
    statistics: tuple[ir.Node, ...]
    nodes: tuple[ir.Node, ...]
    heads: bool

    @property
    def exact(self) -> bool:
        """Whether removing a unit equals zeroing its members."""
        return not self.statistics

    @property
    def graph(self) -> ChannelGraph:
        """The graph it belongs to."""
        return self.units[0].graph

    def to_dot(self, removed: Iterable[Unit] | None = None) -> str:
        """Graphviz text of the group in its graph; see :func:`graphopt.channels.explaining.drawing.picture`."""
        from graphopt.channels.explaining import drawing

        return drawing.to_dot(drawing.picture(self, removed))

    def to_svg(self, removed: Iterable[Unit] | None = None) -> str:
        """The group in its graph as a picture; see :func:`graphopt.channels.explaining.drawing.picture`."""
        from graphopt.channels.explaining import drawing, svg

        return svg.to_svg(drawing.picture(self, removed))

    def _repr_svg_(self) -> str:
        return self.to_svg()


@dataclasses.dataclass(frozen=True, slots=True)
class Frozen:
    """An axis with weights along it that keeps its size.

    Attributes:
        name: After the node that its lanes come from; else after a constant that has it.
        size: Its size.
        node: The operator to blame; ``None`` for the model's interface.
        reason: Why.
        saving: What a single lane of it would have saved.
        tensors: The constants that have it, and along which axis.
    """

    name: str
    size: int
    node: ir.Node | None
    reason: str
    saving: Saving
    tensors: tuple[tuple[str, int], ...]

    @property
    def half(self) -> Saving:
        """What half of its lanes would have saved, to first order."""
        return Saving(*(part * (self.size // 2) for part in self.saving))
