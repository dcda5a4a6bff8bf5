"""One node as an execution provider sees it when it decides whether to take it."""

from __future__ import annotations

import dataclasses
from typing import Any

import onnx_ir as ir

from graphopt.analysis.shapes import Shapes
from graphopt.names import operator
from graphopt.proto.schemas import since_version

__all__ = ["FLOAT_TYPES", "QUANTIZED_TYPES", "Graph", "Sight", "dequantizer", "is_quantized"]

FLOAT_TYPES = frozenset({ir.DataType.FLOAT, ir.DataType.FLOAT16})
"""What phones compute in."""

QUANTIZED_TYPES = frozenset({ir.DataType.UINT8, ir.DataType.INT8})


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Graph:
    """What is known about the whole model.

    Attributes:
        shapes: Of all values.
        fixed_inputs: Whether initializers listed as inputs are constants all the same (IR 3 and older).
        opsets: Version by domain.
        outside: Whether its weights lie in files beside it.
    """

    shapes: Shapes
    fixed_inputs: bool
    opsets: dict[str, int]
    outside: bool = False


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Sight:
    """A node. Of one between DequantizeLinear and QuantizeLinear, operands are what lies behind the former.

    Attributes:
        node: The node.
        graph: The model around it.
        nested: Whether it lies in a branch or a loop body.
        quantized: Whether it is the middle of such a group: all data dequantized, all results quantized.
    """

    node: ir.Node
    graph: Graph
    nested: bool = False
    quantized: bool = False

    @property
    def operator(self) -> str:
        """The operator, with its domain where that is not ONNX's own."""
        return operator(self.node)

    @property
    def version(self) -> int:
        """The operator set that brought the node's operator as it is; 1 in other domains, if nobody knows."""
        domain = self.node.domain
        return since_version(self.node.op_type, self.graph.opsets.get(domain, 1), domain) or 1

    def operand(self, index: int) -> ir.Value | None:
        """An input; ``None`` where it is left out."""
        value = self.node.inputs[index] if index < len(self.node.inputs) else None
        source = dequantizer(value) if self.quantized else None
        return value if source is None else source.inputs[0]

    def dims(self, index: int = 0) -> tuple[int | None, ...] | None:
        """The shape of an input, ``None`` for a dim of no fixed extent; ``None`` if there is no such input or shape."""
        return self._extents(self.operand(index))

    def out_dims(self) -> tuple[int | None, ...] | None:
        """The shape of the first output, likewise."""
        return self._extents(self.node.outputs[0])

    def _extents(self, value: ir.Value | None) -> tuple[int | None, ...] | None:
        shape = None if value is None else self.graph.shapes.of(value)
        return None if shape is None else tuple(dim if isinstance(dim, int) else None for dim in shape)

    def dtype(self, index: int = 0) -> ir.DataType | None:
        """The element type of an input."""
        value = self.operand(index)
        return None if value is None else self.graph.shapes.dtype(value)

    def has(self, index: int) -> bool:
        """Whether the input is there."""
        return self.operand(index) is not None

    def constant(self, index: int) -> ir.TensorProtocol | None:
        """The contents of an input that is an initializer nobody can replace."""
        value = self.operand(index)
        if value is None or not value.is_initializer() or (value.is_graph_input() and not self.graph.fixed_inputs):
            return None
        return value.const_value

    def attribute(self, name: str, default: Any = None) -> Any:
        """The value of an attribute, or what it is by default."""
        found = self.node.attributes.get(name)
        return default if found is None or found.is_ref() else found.value

    def unit(self) -> list[ir.Node]:
        """The nodes that are taken or left together: this one, and those that dequantize and quantize for it."""
        if not self.quantized:
            return [self.node]
        before = [source for value in self.node.inputs if (source := dequantizer(value)) is not None]
        after = [user for value in self.node.outputs for user, _ in value.uses()]
        return [*before, self.node, *after]


def dequantizer(value: ir.Value | None) -> ir.Node | None:
    """The DequantizeLinear that gives a value, if one does."""
    source = None if value is None else value.producer()
    return source if source is not None and source.op_type == "DequantizeLinear" and not source.domain else None


def is_quantized(node: ir.Node) -> bool:
    """Whether all data of a node come from DequantizeLinear, and all its results go to QuantizeLinear."""
    uses = [user for value in node.outputs for user, _ in value.uses()]
    ends = any(value.is_graph_output() for value in node.outputs)
    return (
        bool(uses)
        and not ends
        and all(user.op_type == "QuantizeLinear" and not user.domain for user in uses)
        and dequantizer(node.inputs[0] if node.inputs else None) is not None
    )
