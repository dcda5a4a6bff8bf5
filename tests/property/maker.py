"""Builds a random, valid, runnable model step by step, knowing the concrete shape of every value."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

__all__ = ["Choose", "Maker", "Value"]

Array = npt.NDArray[Any]
T = TypeVar("T")
Choose = Callable[[int], int]
"""Gives an integer from 0 up to, but not including, its argument."""


@dataclasses.dataclass(frozen=True)
class Value:
    """A tensor of the model: its name, and its shape when the model is fed as it will be."""

    name: str
    shape: tuple[int, ...]
    kind: int = TensorProto.FLOAT

    @property
    def rank(self) -> int:
        return len(self.shape)


class Maker:
    """One graph under construction; :meth:`inner` makes the body of a subgraph that may capture from it.

    Args:
        choose: The source of choices.
        opset: Of ONNX's own domain.
        outer: The graph around this one.
    """

    def __init__(self, choose: Choose, opset: int, outer: Maker | None = None) -> None:
        self.choose = choose
        self.opset = opset
        self.outer = outer
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.values: list[Value] = []
        self.known: dict[bytes, Value] = {}
        self.functions: list[onnx.FunctionProto] = outer.functions if outer else []
        self.numbers: list[int] = outer.numbers if outer else [0]
        self.random: np.random.Generator = outer.random if outer else np.random.default_rng(choose(1 << 16))

    def inner(self) -> Maker:
        """A maker for a subgraph."""
        return Maker(self.choose, self.opset, self)

    def one_of(self, things: Sequence[T]) -> T:
        return things[self.choose(len(things))]

    def coin(self, one_in: int = 2) -> bool:
        return self.choose(one_in) == 0

    def fresh(self, stem: str) -> str:
        self.numbers[0] += 1
        return f"{stem}{self.numbers[0]}"

    def visible(self, want: Callable[[Value], bool] = lambda _: True) -> list[Value]:
        """Float values that a node here may read, the newest last; those of the graphs around it included."""
        around = self.outer.visible(want) if self.outer else []
        return around + [one for one in self.values if one.kind == TensorProto.FLOAT and want(one)]

    def some(self, want: Callable[[Value], bool] = lambda _: True) -> Value | None:
        """A visible float value that fits, newer ones more often; ``None`` if there is none."""
        found = self.visible(want)
        if not found:
            return None
        return found[-1 - min(self.choose(len(found)), self.choose(len(found)))]

    def weight(self, contents: Array, stem: str = "w") -> Value:
        """A constant: an initializer or a Constant node, at times the same contents again, at times the same value."""
        data = numpy_helper.from_array(contents)
        key = bytes([data.data_type]) + str(contents.shape).encode() + data.raw_data
        if key in self.known and self.coin():
            return self.known[key]
        value = Value(self.fresh(stem), contents.shape, data.data_type)
        data.name = value.name
        if self.coin(3):
            self.nodes.append(helper.make_node("Constant", [], [value.name], value=data))
        else:
            self.weights.append(data)
        self.known[key] = value
        return value

    def normal(self, *shape: int, scale: float = 0.5) -> Value:
        """A float weight; from a small pool of contents, so that duplicates happen."""
        contents = np.random.default_rng(self.choose(3)).standard_normal(shape) * scale
        return self.weight(contents.astype(np.float32))

    def ints(self, *numbers: int) -> Value:
        """A one-dimensional integer constant."""
        return self.weight(np.asarray(numbers, np.int64), "i")

    def add(
        self,
        op_type: str,
        inputs: Sequence[Value | None],
        shape: Sequence[int],
        *,
        kind: int | None = None,
        domain: str = "",
        keep: bool = True,
        **attributes: Any,
    ) -> Value:
        """A node with one output.

        Args:
            op_type: The operator.
            inputs: ``None`` for one that is left out.
            shape: Concrete shape of the output.
            kind: Element type of the output; that of the first input if ``None``.
            domain: Of the operator.
            keep: Whether later steps may read the output.
            **attributes: As in ONNX.
        """
        first = next((one.kind for one in inputs if one is not None), TensorProto.FLOAT)
        value = Value(self.fresh(op_type.lower()), tuple(int(dim) for dim in shape), first if kind is None else kind)
        names = [one.name if one is not None else "" for one in inputs]
        name = self.fresh("n/") if self.coin() else ""  # unnamed nodes are common
        self.nodes.append(helper.make_node(op_type, names, [value.name], name, domain=domain, **attributes))
        if keep:
            self.values.append(value)
        return value

    def graph(
        self,
        name: str,
        inputs: Sequence[onnx.ValueInfoProto],
        results: Sequence[Value],
        dims: Mapping[str, Sequence[str | int | None]] | None = None,
    ) -> onnx.GraphProto:
        """The finished graph."""
        outputs = [
            helper.make_tensor_value_info(one.name, one.kind, (dims or {}).get(one.name, [None] * one.rank))
            for one in results
        ]
        return helper.make_graph(self.nodes, name, inputs, outputs, self.weights)
