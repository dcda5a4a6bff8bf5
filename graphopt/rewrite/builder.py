"""Creates the nodes and constants of a replacement; the driver puts them in place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy.typing as npt
import onnx_ir as ir

if TYPE_CHECKING:
    from graphopt.pipeline.base import Context

__all__ = ["Builder"]


class Builder:
    """Collects what replaces one root node.

    Nodes are inserted before the root in the order of creation. Names, documentation and metadata come from the
    ``origin`` node, the root unless said otherwise.
    """

    def __init__(self, context: Context, root: ir.Node) -> None:
        self.context = context
        self.root = root
        self.nodes: list[ir.Node] = []

    def op(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        attributes: Mapping[str, Any] | None = None,
        *,
        domain: str = "",
        outputs: int = 1,
        origin: ir.Node | None = None,
    ) -> ir.Value:
        """Adds a node and returns its first output.

        Args:
            op_type: The operator.
            inputs: Its inputs; ``None`` for one left out.
            attributes: Plain Python values, or ``ir.Attr`` objects of another node.
            domain: The operator's domain.
            outputs: How many outputs it has.
            origin: The node it descends from: gives name, documentation and metadata.
        """
        origin = origin if origin is not None else self.root
        node = ir.Node(
            domain,
            op_type,
            inputs,
            _attributes(attributes or {}),
            num_outputs=outputs,
            name=self.context.names.fresh(origin.name or op_type),
            doc_string=origin.doc_string,
            metadata_props=dict(origin.metadata_props) if origin.metadata_props else None,
        )
        self.nodes.append(node)
        return node.outputs[0]

    def like(
        self, origin: ir.Node, inputs: Sequence[ir.Value | None], attributes: Mapping[str, Any] | None = None
    ) -> ir.Value:
        """Adds a copy of ``origin`` that reads ``inputs``; ``attributes`` replaces or adds (``None`` removes)."""
        merged: dict[str, Any] = {**origin.attributes, **(attributes or {})}
        kept = {name: value for name, value in merged.items() if value is not None}
        return self.op(origin.op_type, inputs, kept, domain=origin.domain, outputs=len(origin.outputs), origin=origin)

    def constant(self, contents: npt.NDArray[Any] | ir.TensorProtocol, name: str | None = None) -> ir.Value:
        """Adds a constant: an initializer of the root's graph, or a Constant node where none are allowed.

        Args:
            contents: The tensor; its dtype is the value's.
            name: What to call it, made unique.
        """
        return self.context.new_constant(self.root, contents, name)


def _attributes(attributes: Mapping[str, Any]) -> list[ir.Attr]:
    return [
        value if isinstance(value, ir.Attr) else ir.convenience.convert_attribute(name, value)
        for name, value in attributes.items()
    ]
