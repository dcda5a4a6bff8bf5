"""ONNX's own shape inference, one node at a time: the protobuf boundary's part in shape analysis."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import TypeAlias

import onnx
import onnx.checker
import onnx.defs
import onnx.shape_inference
import onnx_ir as ir

__all__ = ["InferredType", "default_attributes", "infer_node", "since_version"]

_INVALID = onnx.checker.ValidationError

InferredType: TypeAlias = "tuple[ir.DataType | None, tuple[int | str | None, ...] | None]"


def infer_node(
    node: ir.Node, version: int, inputs: Sequence[InferredType | None], contents: Mapping[int, Sequence[int]]
) -> list[InferredType] | None:
    """Types and shapes of a node's outputs by the operator's C++ inference function; None when it cannot tell.

    Args:
        node: A node of a standard domain, without subgraphs.
        version: The version of the node's domain.
        inputs: Element type and shape of each input (a ``str`` dim is a symbol); None where it is left out.
        contents: Integer contents of inputs, by index; they must be vectors of int64.
    """
    try:
        schema = onnx.defs.get_schema(node.op_type, version, node.domain)
    except (onnx.defs.SchemaError, TypeError):  # unknown, or no such version can be
        return None
    proto = onnx.NodeProto(op_type=node.op_type, domain=node.domain)
    proto.input.extend("" if known is None else f"i{index}" for index, known in enumerate(inputs))
    proto.output.extend(f"o{index}" for index in range(len(node.outputs)))
    proto.attribute.extend(ir.serde.serialize_attribute(attribute) for attribute in node.attributes.values())
    types = {f"i{index}": _type(known) for index, known in enumerate(inputs) if known is not None}
    data = {f"i{index}": onnx.helper.make_tensor("", 7, [len(items)], items) for index, items in contents.items()}
    imports = [onnx.helper.make_opsetid(node.domain, version)]
    try:
        inferred = onnx.shape_inference.infer_node_outputs(schema, proto, types, data, opset_imports=imports)
    except (onnx.shape_inference.InferenceError, _INVALID, RuntimeError, ValueError, KeyError, IndexError):
        return None  # the node is malformed, or the facts are not enough
    return [_known(inferred.get(name)) for name in proto.output]


@functools.lru_cache(maxsize=1024)
def default_attributes(op_type: str, version: int, domain: str = "") -> Mapping[str, ir.Attr]:
    """What an operator takes for the attributes that a node of it leaves out; empty if it is not known."""
    try:
        schema = onnx.defs.get_schema(op_type, version, domain)
    except (onnx.defs.SchemaError, TypeError):  # unknown, or no such version can be
        return {}
    given = {name: formal.default_value for name, formal in schema.attributes.items()}
    return {name: ir.serde.deserialize_attribute(value) for name, value in given.items() if value.name}


@functools.lru_cache(maxsize=1024)
def since_version(op_type: str, version: int, domain: str = "") -> int | None:
    """The version of a domain that brought an operator as it is in ``version``; ``None`` if nobody knows it."""
    try:
        return int(onnx.defs.get_schema(op_type, version, domain).since_version)
    except (onnx.defs.SchemaError, TypeError):
        return None


def _type(known: InferredType) -> onnx.TypeProto:
    dtype, shape = known
    return onnx.helper.make_tensor_type_proto(int(dtype or 0), shape)


def _known(proto: onnx.TypeProto | None) -> InferredType:
    if proto is None or not proto.HasField("tensor_type"):
        return None, None
    tensor = proto.tensor_type
    dtype = ir.DataType(tensor.elem_type) if tensor.elem_type else None
    if not tensor.HasField("shape"):
        return dtype, None
    return dtype, tuple(
        dim.dim_value if dim.HasField("dim_value") else dim.dim_param or None for dim in tensor.shape.dim
    )
