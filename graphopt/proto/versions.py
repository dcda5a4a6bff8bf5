"""ONNX's own version converter, one node at a time: the protobuf boundary's part in raising an operator set.

Its C++ code converts whole models, but drops functions and metadata, and takes every weight along. A model of a single
node has none of these.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence

import onnx
import onnx.checker
import onnx.defs
import onnx.version_converter
import onnx_ir as ir

from graphopt.proto.schemas import InferredType

__all__ = [
    "Unconvertible",
    "convert_node",
    "has_changed",
    "has_new_signature",
    "least_ir_version",
    "newest",
]

_NUMPY_BROADCASTING = 7
_ERRORS = (onnx.version_converter.ConvertError, onnx.checker.ValidationError, RuntimeError, ValueError, IndexError)


class Unconvertible(Exception):
    """The converter does not convert a node; the text says why."""


def newest() -> int:
    """The newest version of ONNX's own operator set that the installed onnx knows."""
    return int(onnx.defs.onnx_opset_version())


def least_ir_version(opset: int) -> int:
    """The IR version that came with a version of ONNX's own operator set."""
    imports = [onnx.helper.make_opsetid("", opset)]
    return int(onnx.helper.find_min_ir_version_for(imports, ignore_unknown=True))


@functools.lru_cache(maxsize=4096)
def has_changed(op_type: str, old: int, new: int) -> bool:
    """Whether the definition of an operator changed, in types at least, between two versions of the operator set.

    Raises:
        Unconvertible: The older version does not have the operator.
    """
    return _schema(op_type, old).since_version != onnx.defs.get_schema(op_type, new, "").since_version


@functools.lru_cache(maxsize=4096)
def has_new_signature(op_type: str, old: int, new: int) -> bool:
    """Whether an operator went away, or its attributes, their defaults or its formal inputs changed."""
    before, after = _schema(op_type, old), onnx.defs.get_schema(op_type, new, "")
    return bool(after.deprecated) or _signature(before) != _signature(after)


def convert_node(node: ir.Node, old: int, new: int, inputs: Sequence[InferredType | None]) -> ir.Graph | None:
    """What does in a newer version of the operator set what a node does in an older one.

    Args:
        node: A node of ONNX's own domain, without subgraphs and without references to attributes of a function.
        old: The version that it is written for.
        new: The version wanted.
        inputs: Element type and shape of each input (a ``str`` dim is a symbol); None where it is left out.

    Returns:
        A graph with the inputs and outputs of the node; None if the node can stay.

    Raises:
        Unconvertible: The converter has no way.
    """
    proto = onnx.NodeProto(op_type=node.op_type)
    proto.input.extend("" if known is None else f"i{index}" for index, known in enumerate(inputs))
    proto.output.extend(f"o{index}" for index in range(len(node.outputs)))
    proto.attribute.extend(ir.serde.serialize_attribute(attribute) for attribute in node.attributes.values())
    graph = onnx.GraphProto(name="node", node=[proto])
    graph.input.extend(_info(f"i{index}", known, old) for index, known in enumerate(inputs) if known is not None)
    graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in proto.output)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", old)], ir_version=8)
    converted = onnx.GraphProto.FromString(_convert(model.SerializeToString(deterministic=True), new))
    if len(converted.node) == 1 and not converted.initializer and _text(converted.node[0]) == _text(proto):
        return None
    del converted.input[:]  # it loses those that are left out
    converted.input.extend(onnx.helper.make_empty_tensor_value_info(f"i{index}") for index in range(len(inputs)))
    result = ir.serde.deserialize_graph(converted)
    _settle_constants(result, new, [known and known[0] for known in inputs])
    return result


@functools.lru_cache(maxsize=1024)
def _convert(model: bytes, new: int) -> bytes:
    """A converted graph; 5 ms each, and most nodes of a model are like another one."""
    try:
        converted = onnx.version_converter.convert_version(onnx.ModelProto.FromString(model), new)
    except _ERRORS as error:
        reason = str(error).partition("failed: ")[2] or str(error)
        raise Unconvertible(f"onnx's converter says: {reason.strip()}") from None
    return bytes(converted.graph.SerializeToString())


def _settle_constants(graph: ir.Graph, version: int, types: Sequence[ir.DataType | None]) -> None:
    """Turns Constant nodes into initializers, of the type of the operands that they must match.

    The converter writes the numbers of a Clip or a Pad as float32, whatever these compute in.
    """
    known = dict(zip(graph.inputs, types, strict=True))
    for node in [node for node in graph if node.op_type == "Constant"]:
        output = node.outputs[0]
        tensor = node.attributes["value"].as_tensor()
        wanted = {_matching(user, index, version, known) for user, index in output.uses()} - {None}
        if tensor.dtype == ir.DataType.FLOAT and wanted and wanted != {ir.DataType.FLOAT}:
            (dtype,) = wanted  # one node reads it
            assert dtype is not None
            tensor = ir.Tensor(tensor.numpy().astype(dtype.numpy()), dtype=dtype)
        tensor.name = next((_formal(user, index, version).name for user, index in output.uses()), output.name)
        constant = ir.Value(name=tensor.name, shape=ir.Shape(tensor.shape.numpy()), type=ir.TensorType(tensor.dtype))
        constant.const_value = tensor
        for user, index in output.uses():
            user.replace_input_with(index, constant)
        graph.remove(node)
        graph.register_initializer(constant)


def _matching(
    node: ir.Node, index: int, version: int, known: Mapping[ir.Value, ir.DataType | None]
) -> ir.DataType | None:
    """The type of the operands that must have the same type as the one at ``index``."""
    names = [_formal(node, place, version).type_str for place in range(len(node.inputs))]
    for name, value in zip(names, node.inputs, strict=True):
        if name == names[index] and value is not None and known.get(value) is not None:
            return known[value]
    return None


def _formal(node: ir.Node, index: int, version: int) -> onnx.defs.OpSchema.FormalParameter:
    formals = _schema(node.op_type, version).inputs
    return formals[min(index, len(formals) - 1)]


def _schema(op_type: str, version: int) -> onnx.defs.OpSchema:
    try:
        return onnx.defs.get_schema(op_type, version, "")
    except (onnx.defs.SchemaError, TypeError):  # unknown, or no such version can be
        raise Unconvertible(f"operator set {version} has no such operator") from None


def _signature(schema: onnx.defs.OpSchema) -> object:
    attributes = {name: one.default_value.SerializeToString() for name, one in schema.attributes.items()}
    return attributes, [formal.name for formal in schema.inputs], schema.min_input


def _info(name: str, known: InferredType, version: int) -> onnx.ValueInfoProto:
    dtype, shape = known
    if shape is not None and version >= _NUMPY_BROADCASTING:
        shape = (None,) * len(shape)  # the rank is all that matters, and more nodes are the same
    return onnx.helper.make_tensor_value_info(name, int(dtype or 0), shape)


def _text(proto: onnx.NodeProto) -> object:
    """What counts of a node, whatever the order of its attributes."""
    attributes = sorted(attribute.SerializeToString(deterministic=True) for attribute in proto.attribute)
    return proto.op_type, list(proto.input), list(proto.output), attributes
