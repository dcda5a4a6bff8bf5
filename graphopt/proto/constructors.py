"""What :mod:`graphopt.proto.objects` does, through the public constructors: slower, and right for any layout."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnx_ir as ir

__all__ = ["attr", "fill", "node", "shape", "tensor_type", "value"]


def tensor_type(dtype: ir.DataType) -> ir.TensorType:
    return ir.TensorType(dtype)


def shape(dims: Sequence[int | ir.SymbolicDim]) -> ir.Shape:
    return ir.Shape(dims, frozen=True)


def value(name: str) -> ir.Value:
    return ir.Value(name=name)


def attr(name: str, kind: ir.AttributeType, content: Any, doc_string: str | None = None) -> ir.Attr:
    return ir.Attr(name, kind, content, doc_string=doc_string)


def node(
    domain: str,
    op_type: str,
    inputs: list[ir.Value | None],
    outputs: list[ir.Value],
    attributes: dict[str, ir.Attr],
    name: str,
) -> ir.Node:
    return ir.Node(domain, op_type, inputs, attributes, outputs=outputs, name=name)


def fill(graph: ir.Graph, nodes: list[ir.Node]) -> None:
    graph.extend(nodes)
