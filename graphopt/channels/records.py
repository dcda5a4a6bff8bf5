"""What rules write down about nodes, for the linker."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from graphopt.channels.axes import Axis

__all__ = ["Axes", "Indices", "Link", "Place", "Product", "Sum", "ZeroPoint"]

Axes = tuple[Axis, ...]
Indices = npt.NDArray[np.int64]


class Place(NamedTuple):
    """Where a constant is read: what two readers of one vector do with it need not agree.

    Attributes:
        node: The reader; ``None`` for constants that have the same axes for all their readers.
        slot: The number of its input.
        value: The constant.
    """

    node: ir.Node | None
    slot: int
    value: ir.Value


class Link(NamedTuple):
    """Elements of two axes that go together: flat indices of both, pair by pair.

    ``b`` is ``None`` where the elements of ``a`` must stay.
    """

    a: Axis
    a_indices: Indices
    b: Axis | None
    b_indices: Indices
    node: ir.Node


class ZeroPoint(NamedTuple):
    """What stands for zero in an integer constant.

    Attributes:
        value: Holds it, one for all or one for each place along ``axis``; ``None`` for zero itself.
        axis: An axis of the constant.
    """

    value: ir.Value | None
    axis: int


class Sum(NamedTuple):
    """An input that a node adds up along an axis.

    Attributes:
        node: The node.
        input: The number of its input.
        axis: The axis of it.
        factor: The number of the input that it is multiplied with first; ``None`` if with none.
        factor_axis: The axis of that one which runs along.
    """

    node: ir.Node
    input: int
    axis: int
    factor: int | None
    factor_axis: int


class Product(NamedTuple):
    """A node that multiplies and adds: ``macs`` is the product of the sizes of ``axes``."""

    node: ir.Node
    axes: Axes
