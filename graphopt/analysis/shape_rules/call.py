"""What a shape rule sees of a node: the facts about its inputs, and its attributes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from graphopt.analysis import constants
from graphopt.analysis.dims import Dim, Sym

if TYPE_CHECKING:
    import numpy.typing as npt
    import onnx_ir as ir

__all__ = ["UNKNOWN", "Call", "Fact", "RankVaries", "Shape", "ShapeRule", "TypeRule", "Undetermined", "normalized"]

Shape: TypeAlias = tuple[Dim, ...]
Fact: TypeAlias = tuple["ir.DataType | None", "Shape | None", "tuple[Dim, ...] | None"]  # dtype, shape, content
ShapeRule: TypeAlias = Callable[["Call"], "Shape | list[Shape | None]"]  # the first output's shape, or every output's
TypeRule: TypeAlias = Callable[["Call"], "ir.DataType | list[ir.DataType | None] | None"]  # all outputs alike, or each

UNKNOWN: Final[Fact] = (None, None, None)
_MAX_CONSTANT: Final = 4096  # elements; larger constants never say anything about a shape


class Undetermined(Exception):
    """The facts at hand do not determine the outputs."""


class RankVaries(Undetermined):
    """The rank differs from run to run, so that whatever the model declares holds for some runs only."""


class Call:
    """One node under inference. The engine reuses a single object and moves it from node to node."""

    __slots__ = ("_facts", "fresh", "node", "opset_of", "output")

    node: ir.Node
    output: int  # the output a content rule is asked about

    def __init__(
        self,
        facts: Mapping[ir.Value, Fact],
        fresh: Callable[[], Sym],
        opset_of: Callable[[ir.Node], int],
    ) -> None:
        self._facts = facts
        self.fresh = fresh  # a new symbol, at least 0
        self.opset_of = opset_of

    @property
    def opset(self) -> int:
        """The version of the default domain that the node's scope imports."""
        return self.opset_of(self.node)

    def input(self, index: int) -> ir.Value | None:
        """The input, or None where it is left out."""
        inputs = self.node.inputs
        return inputs[index] if index < len(inputs) else None

    def has(self, index: int) -> bool:
        """Whether the input is given."""
        return self.input(index) is not None

    def shape(self, index: int) -> Shape:
        """The input's shape; raises Undetermined when its rank is unknown or it is left out."""
        inputs = self.node.inputs
        value = inputs[index] if index < len(inputs) else None
        shape = None if value is None else self._facts[value][1]
        if shape is None:
            raise Undetermined
        return shape

    def maybe_shape(self, index: int) -> Shape | None:
        """The input's shape, or None."""
        value = self.input(index)
        return None if value is None else self._facts[value][1]

    def dtype(self, index: int) -> ir.DataType | None:
        """The input's element type, or None."""
        value = self.input(index)
        return None if value is None else self._facts[value][0]

    def data(self, index: int) -> tuple[Dim, ...] | None:
        """The content of a small integer scalar or vector, or None."""
        value = self.input(index)
        if value is None:
            return None
        _, shape, data = self._facts[value]
        return None if shape is None or len(shape) > 1 else data

    def flat(self, index: int) -> tuple[Dim, ...] | None:
        """The content of a small integer scalar, vector or matrix, row by row, or None."""
        value = self.input(index)
        return None if value is None else self._facts[value][2]

    def fact(self, value: ir.Value) -> Fact:
        """Everything known about a value the node depends on (an input, or an output of its subgraphs)."""
        return self._facts[value]

    def static(self, index: int) -> tuple[int, ...]:
        """The content of a small integer input, all of it known; raises Undetermined otherwise."""
        data = self.data(index)
        if data is None:
            raise Undetermined
        numbers = [item for item in data if isinstance(item, int)]
        if len(numbers) != len(data):
            raise Undetermined
        return tuple(numbers)

    def array(self, index: int) -> npt.NDArray[Any] | None:
        """The content of a small constant input of any element type, or None."""
        value = self.input(index)
        return constants.array(value, _MAX_CONSTANT)

    def attr(self, name: str) -> Any:
        """The attribute's value or None; raises Undetermined for a reference to a function's attribute."""
        attribute = self.node.attributes.data.get(name)
        if attribute is None:
            return None
        if attribute.ref_attr_name is not None:
            raise Undetermined
        return attribute.value

    def integer(self, name: str, default: int) -> int:
        """An integer attribute."""
        value = self.attr(name)
        return default if value is None else int(value)

    def integers(self, name: str) -> tuple[int, ...] | None:
        """An integer-list attribute."""
        value = self.attr(name)
        return None if value is None else tuple(value)

    def text(self, name: str, default: str) -> str:
        """A string attribute."""
        value = self.attr(name)
        return default if value is None else str(value)


def normalized(axis: int, rank: int) -> int:
    """``axis`` counted from the front; raises Undetermined when out of range."""
    if not -rank <= axis < rank:
        raise Undetermined
    return axis + rank if axis < 0 else axis
