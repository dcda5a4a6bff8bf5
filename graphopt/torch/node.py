"""A node as the table of operators sees it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import onnx_ir as ir
import torch

from graphopt import names
from graphopt.errors import ModelError
from graphopt.torch.values import Ints, from_ir

__all__ = ["OpNode", "UnsupportedOperator"]


class UnsupportedOperator(ModelError):
    """The torch bridge has no row for an operator, or the row does not know an attribute."""


class OpNode:
    """One node, for those who build its function.

    Args:
        node: The node.
        opset: Version of the node's domain.
        constant: Gives the tensor that an input always holds, if it is fixed and not trained.
        program: Compiles a subgraph.
        holds: Whether a value is a constant of the module, trained or not.

    Attributes:
        label: The node's name, or else the name of its first output.
        operator: The operator with its domain.
    """

    def __init__(
        self,
        node: ir.Node,
        opset: int,
        constant: Callable[[ir.Value | None], torch.Tensor | None],
        program: Callable[[ir.Graph], Any],
        holds: Callable[[ir.Value | None], bool],
    ) -> None:
        self.node = node
        self.opset = opset
        self.label = names.label(node)
        self.operator = names.operator(node)
        self._constant = constant
        self._program = program
        self._holds = holds

    @property
    def outputs(self) -> int:
        """How many outputs anyone may read: trailing ones without a name do not count."""
        last = 0
        for place, value in enumerate(self.node.outputs, 1):
            if value.name:
                last = place
        return last

    @property
    def attributes(self) -> Mapping[str, ir.Attr]:
        """The attributes as they are in the graph."""
        return self.node.attributes

    def attribute(self, name: str, default: Any = None) -> Any:
        """An attribute as a Python value: number, text, tuple; a tensor of one element as Ints, others as they are."""
        found = self.node.attributes.get(name)
        return default if found is None else _plain(found)

    def given(self, index: int) -> bool:
        """Whether the node has that input."""
        return index < len(self.node.inputs) and self.node.inputs[index] is not None

    def constant(self, index: int) -> torch.Tensor | None:
        """The tensor that input ``index`` always holds; ``None`` if absent, computed, or trained."""
        return self._constant(self.node.inputs[index]) if self.given(index) else None

    def holds(self, index: int) -> bool:
        """Whether input ``index`` is a constant of the module, trained or not."""
        return self.given(index) and self._holds(self.node.inputs[index])

    def dtype(self, index: int) -> ir.DataType | None:
        """The declared type of an input."""
        value = self.node.inputs[index] if self.given(index) else None
        return value.dtype if value is not None else None

    def program(self, name: str) -> Any:
        """The compiled subgraph of an attribute, see :class:`graphopt.torch.program.Body`."""
        return self._program(self.node.attributes[name].as_graph())

    def refuse(self, why: str) -> UnsupportedOperator:
        """The error for what this row cannot do."""
        return UnsupportedOperator(f"node '{self.label}' ({self.operator}): {why}", hint=_HINT)


_HINT = (
    "Teach it to graphopt: @graphopt.torch.register('Name', domain='...') on a function that takes the inputs, and "
    "the attributes as keyword arguments, and gives back the output (or a tuple of outputs)."
)


def _plain(attribute: ir.Attr) -> Any:
    value = attribute.value
    if attribute.type in (ir.AttributeType.INTS, ir.AttributeType.FLOATS, ir.AttributeType.STRINGS):
        return tuple(value)
    if attribute.type == ir.AttributeType.TENSOR and value.size == 1:
        held = from_ir(value)
        return value if held is None else Ints((held.reshape(()).item(),), min(held.ndim, 1), held.dtype)
    return value
