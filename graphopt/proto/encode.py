"""From ``onnx_ir`` objects to protobuf's wire format, written by hand.

Faster than filling messages, and the only way to keep memory flat: a model comes out as a list of buffers in which
every big weight is still a view of the file it was loaded from. What :mod:`graphopt.proto.decode` put into ``meta``
goes back to where it came from. Field numbers are those of onnx.proto.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import onnx
import onnx_ir as ir

from graphopt.errors import ModelError
from graphopt.proto.carried import QUANTIZATION, TRAINING, TYPE, unknown
from graphopt.proto.tails import Tail
from graphopt.proto.tensors import RAW_DATA, BufferTensor, SparseTensor, TypedTensor, byte_size, payload
from graphopt.proto.typeinfo import TypeWriter, encode_type
from graphopt.proto.wire import Buffer, head, number, record, text, varint

__all__ = ["Place", "encode_model"]

_VALUE_INFO_IN_FUNCTIONS_IR = 10
_MULTI_DEVICE_IR = 11
_WORTH_KEEPING_APART = 1 << 12  # bytes: smaller data are copied
_Kind = ir.AttributeType
_Parts = list[Buffer]


class Place(NamedTuple):
    """Where a tensor's bytes are kept instead of in the model."""

    location: str
    offset: int
    length: int


def encode_model(model: ir.Model, places: Mapping[int, Place] | None = None) -> list[Buffer]:
    """Serialize a model as buffers to be written one after the other.

    Args:
        model: The model; not changed.
        places: By ``id`` of the tensor object, the initializers whose bytes are kept elsewhere.

    Raises:
        ModelError: Something in the model has no name or no value, or cannot be expressed in ONNX.
    """
    return _Encoder(places or {}, model.ir_version).model(model)


class _Encoder:
    def __init__(self, places: Mapping[int, Place], ir_version: int) -> None:
        self._places = places
        self._ir_version = ir_version
        self._types = TypeWriter()
        self._input_fields: dict[str, bytes] = {}
        self._op_fields: dict[str, bytes] = {}
        self._attribute_heads: dict[tuple[str, _Kind], bytes] = {}

    def model(self, model: ir.Model) -> _Parts:
        parts: _Parts = [number(1, model.ir_version)]
        for field, content in (
            (2, model.producer_name),
            (3, model.producer_version),
            (4, model.domain),
            (6, model.doc_string),
        ):
            if content:
                parts.append(text(field, content))
        if model.model_version:
            parts.append(number(5, model.model_version))
        old_functions = bool(model.functions) and self._ir_version < _VALUE_INFO_IN_FUNCTIONS_IR
        graph = self.graph(model.graph, Tail.of(model))
        if old_functions:
            graph += [info for function in model.functions.values() for info in self._function_infos(function)]
        parts += (head(7, _size(graph)), *graph)
        parts += _opsets(8, model.opset_imports)
        parts += _metadata(14, model._metadata_props)
        for info in model.meta.get(TRAINING, ()):
            parts.append(record(20, info))
        for function in model.functions.values():
            body = self._function(function)
            parts += (head(25, _size(body)), *body)
        if self._ir_version >= _MULTI_DEVICE_IR:
            for configuration in model.device_configurations:
                parts.append(record(26, ir.serde.serialize_model_configuration(configuration).SerializeToString()))
        parts += unknown(model)
        return parts

    def graph(self, graph: ir.Graph, tail: Tail | None = None) -> _Parts:
        parts: _Parts = []
        infos: list[bytes] = []
        annotations: list[bytes] = []
        self._nodes(graph, 1, 13, parts, infos, annotations)
        if tail is not None:
            parts += [record(1, node) for node in tail.nodes]
        if graph.name:
            parts.append(text(2, graph.name))
        for name, value in graph.initializers.items():
            tensor = value._const_value
            if tensor is None:
                raise ModelError(f"initializer {name!r} has no value")
            if type(tensor) is SparseTensor:
                parts.append(record(15, _sparse(tensor, name)))
            else:
                body = self._tensor(tensor, name, self._places.get(id(tensor)))
                parts += (head(5, _size(body)), *body)
            if not value._is_graph_input and (value.doc_string or value._metadata_props):
                infos.append(record(13, self._value_info(value)))
            if value._metadata is not None:
                _annotate(value, annotations)
        if graph.doc_string:
            parts.append(text(10, graph.doc_string))
        for value in graph.inputs:
            parts.append(record(11, self._value_info(value)))
            if not value._is_initializer:
                _annotate(value, annotations)
        outputs = [record(12, self._value_info(value)) for value in graph.outputs]
        parts += outputs if tail is None else tail.restore(graph, outputs)
        parts += infos
        parts += annotations
        parts += _metadata(16, graph._metadata_props)
        parts += unknown(graph)
        return parts

    def _nodes(
        self,
        nodes: ir.Graph | ir.Function,
        node_field: int,
        info_field: int,
        parts: _Parts,
        infos: list[bytes],
        annotations: list[bytes],
    ) -> None:
        """Append the nodes to ``parts`` and what is known of their outputs to ``infos``."""
        encode, describe = self._node, self._value_info
        tag = varint(node_field << 3 | 2)
        for node in nodes:
            body, size = encode(node)
            parts.append(tag + varint(size))
            parts += body
            for value in node._outputs:
                if value._metadata is not None:
                    _annotate(value, annotations)
                if value._is_graph_output or not value._name:
                    continue
                if (
                    value._type is not None
                    or value._metadata_props
                    or value.doc_string
                    or (value._metadata is not None and TYPE in value._metadata)
                ):
                    infos.append(record(info_field, describe(value)))

    def _node(self, node: ir.Node) -> tuple[_Parts, int]:
        """The fields of a node, and their size."""
        fields: list[bytes] = []
        known = self._input_fields
        for value in node._inputs:
            name = value._name if value is not None else ""
            field = known.get(name)  # type: ignore[arg-type]
            if field is None:
                if name is None:
                    raise ModelError(f"an input of node {node.name!r} ({node.op_type}) has no name")
                field = known[name] = text(1, name)
            fields.append(field)
        unnamed = b""
        for value in node._outputs:
            if not (name := value._name):
                unnamed += b"\x12\0"  # written only when a named output follows
                continue
            content = name.encode()
            content = varint(len(content)) + content
            known[name] = b"\x0a" + content
            fields.append(unnamed + b"\x12" + content)
            unnamed = b""
        if node._name:
            fields.append(text(3, node._name))
        field = self._op_fields.get(node._op_type)
        if field is None:
            field = self._op_fields[node._op_type] = text(4, node._op_type)
        fields.append(field)
        if node._domain:
            fields.append(text(7, node._domain))
        if node._overload:
            fields.append(text(8, node._overload))
        if node.doc_string:
            fields.append(text(6, node.doc_string))
        if node._metadata_props:
            fields += _metadata(9, node._metadata_props)
        if node.device_configurations and self._ir_version >= _MULTI_DEVICE_IR:
            for configuration in node.device_configurations:
                try:
                    message = ir.serde.serialize_node_device_configuration(configuration)
                except ValueError as error:
                    raise ModelError(f"node {node.name!r} ({node.op_type}): {error}") from None
                fields.append(record(10, message.SerializeToString()))
        if node._metadata is not None:
            fields += unknown(node)
        parts: _Parts = []
        for attribute in node._attributes.data.values():
            body = self._attribute(attribute)
            if isinstance(body, bytes):
                fields.append(record(5, body))
            else:
                parts += (head(5, _size(body)), *body)
        simple = b"".join(fields)
        return ([simple, *parts], len(simple) + _size(parts)) if parts else ([simple], len(simple))

    def _attribute(self, attribute: ir.Attr) -> bytes | _Parts:
        """The fields of an attribute; in several buffers when it holds big tensors or graphs."""
        kind = attribute._type
        content = attribute._value
        key = (attribute._name, kind)
        simple = self._attribute_heads.get(key)
        if simple is None:
            simple = self._attribute_heads[key] = text(1, attribute._name) + number(20, kind)
        if attribute.doc_string:
            simple += text(13, attribute.doc_string)
        if attribute._metadata is not None:
            simple += b"".join(unknown(attribute))
        if attribute._ref_attr_name:
            return simple + text(21, attribute._ref_attr_name)
        if kind is _Kind.INTS:
            return simple + b"".join([b"\x40" + varint(n) for n in content])
        if kind is _Kind.INT:
            return simple + b"\x18" + varint(content)
        if kind is _Kind.FLOAT:
            return simple + b"\x15" + _float(content)
        if kind is _Kind.STRING:
            return simple + record(4, _bytes(content))
        write = _RARE.get(kind)
        if write is None:
            raise ModelError(f"attribute {attribute.name!r} has no type that ONNX can express ({kind.name})")
        parts = write(self, content)
        return simple + parts[0] if len(parts) == 1 else [simple, *parts]

    def _nested(self, field: int, body: _Parts) -> _Parts:
        if len(body) == 1:
            return [record(field, bytes(body[0]))]
        return [head(field, _size(body)), *body]

    def _tensor(self, tensor: ir.TensorProtocol, name: str | None, place: Place | None = None) -> _Parts:
        """The fields of a tensor under the given name; one buffer, unless the data are big."""
        if type(tensor) is BufferTensor:
            dims, field = tensor._shape._dims, tensor.field
        elif place is None and type(tensor) is TypedTensor:
            return [_message(tensor, name)]
        else:
            dims, field = list(tensor.shape.numpy()), RAW_DATA
        simple = b"".join([b"\x08" + varint(dim) for dim in dims]) + b"\x10" + varint(tensor.dtype)  # type: ignore[arg-type]
        if name:
            simple += text(8, name)
        if tensor.doc_string:
            simple += text(12, tensor.doc_string)
        if type(tensor) is not BufferTensor or tensor._metadata_props or tensor._metadata:
            simple += b"".join([*_metadata(16, tensor.metadata_props), *unknown(tensor)])
        if place is not None:
            keys = {"location": place.location, "offset": str(place.offset), "length": str(place.length)}
            return [simple + b"".join(_metadata(13, keys)) + number(14, onnx.TensorProto.EXTERNAL)]
        if tensor.dtype is ir.DataType.STRING:
            strings = tensor.string_data() if isinstance(tensor, ir.StringTensor) else tensor.numpy().reshape(-1)
            return [simple + b"".join([record(6, _bytes(item)) for item in strings])]
        raw = payload(tensor)
        if len(raw) != byte_size(tensor.dtype, dims):  # type: ignore[arg-type]
            raise ModelError(f"tensor {name!r} says it has shape {tensor.shape} and holds {len(raw)} bytes")
        if len(raw) < _WORTH_KEEPING_APART:
            return [b"".join((simple, head(field, len(raw)), raw))]
        return [simple + head(field, len(raw)), raw]

    def _value_info(self, value: ir.Value, name: str = "") -> bytes:
        name = name or value._name or ""
        if not name:
            raise ModelError("a graph input or output has no name")
        content = text(1, name)
        kind = self._types.encode(value)
        if kind is not None:
            content += record(2, kind)
        if value.doc_string:
            content += text(3, value.doc_string)
        if value._metadata_props:
            content += b"".join(_metadata(4, value._metadata_props))
        if value._metadata is not None:
            content += b"".join(unknown(value))
        return content

    def _function(self, function: ir.Function) -> _Parts:
        parts: _Parts = [text(1, function.name), text(10, function.domain)]
        infos: list[bytes] = []
        self._nodes(function, 7, 12, parts, infos, [])
        for value in function.inputs:
            parts.append(text(4, value.name or ""))
            if value._type is not None or value._metadata_props:
                infos.append(record(12, self._value_info(value)))
        for value in function.outputs:
            parts.append(text(5, value.name or ""))
            if value._type is not None or value._metadata_props:
                infos.append(record(12, self._value_info(value)))
        if self._ir_version >= _VALUE_INFO_IN_FUNCTIONS_IR:
            parts += infos
        for attribute in function.attributes.values():
            if attribute.type == _Kind.UNDEFINED:
                parts.append(text(6, attribute.name))
            else:
                body = self._attribute(attribute)
                parts += self._nested(11, [body] if isinstance(body, bytes) else body)
        if function.doc_string:
            parts.append(text(8, function.doc_string))
        if function.overload:
            parts.append(text(13, function.overload))
        parts += _opsets(9, function.opset_imports)
        parts += _metadata(14, function.metadata_props)
        parts += unknown(function)
        return parts

    def _function_infos(self, function: ir.Function) -> list[bytes]:
        """The value_info of a function for IR 9 and older: in the main graph, under qualified names."""
        values = [*function.inputs, *(output for node in function for output in node.outputs)]
        return [
            record(13, self._value_info(value, f"{function.domain}::{function.name}/{value.name}"))
            for value in values
            if value.name and value._type is not None
        ]

    def _type_proto(self, content: ir.TypeAndShape) -> bytes:
        return b"" if content.type is None else encode_type(content.type, content.shape)


_RARE: dict[_Kind, Callable[[_Encoder, Any], _Parts]] = {
    _Kind.FLOATS: lambda _, content: [b"".join([b"\x3d" + _float(x) for x in content])],
    _Kind.STRINGS: lambda _, content: [b"".join([record(9, _bytes(x)) for x in content])],
    _Kind.TENSOR: lambda self, content: self._nested(5, self._tensor(content, content.name)),
    _Kind.GRAPH: lambda self, content: self._nested(6, self.graph(content)),
    _Kind.TENSORS: lambda self, content: [p for x in content for p in self._nested(10, self._tensor(x, x.name))],
    _Kind.GRAPHS: lambda self, content: [part for x in content for part in self._nested(11, self.graph(x))],
    _Kind.SPARSE_TENSOR: lambda _, content: [record(22, _sparse(content, content.name))],
    _Kind.SPARSE_TENSORS: lambda _, content: [b"".join([record(23, _sparse(x, x.name)) for x in content])],
    _Kind.TYPE_PROTO: lambda self, content: [record(14, self._type_proto(content))],
    _Kind.TYPE_PROTOS: lambda self, content: [b"".join([record(15, self._type_proto(x)) for x in content])],
}


def _size(parts: Sequence[Buffer]) -> int:
    return sum(map(len, parts))


def _float(content: float) -> bytes:
    try:
        return struct.pack("<f", content)
    except OverflowError:
        return struct.pack("<f", math.copysign(math.inf, content))


def _bytes(content: str | bytes) -> bytes:
    return content.encode() if isinstance(content, str) else bytes(content)


def _metadata(field: int, entries: Mapping[str, str] | None) -> list[bytes]:
    if not entries:
        return []
    return [record(field, text(1, key) + text(2, content)) for key, content in entries.items()]


def _opsets(field: int, imports: Mapping[str, int]) -> list[bytes]:
    return [record(field, text(1, domain) + number(2, version)) for domain, version in imports.items()]


def _annotate(value: ir.Value, annotations: list[bytes]) -> None:
    if value._metadata is None or not (entries := value._metadata.get(QUANTIZATION)):
        return
    annotations.append(record(14, text(1, value.name or "") + b"".join(_metadata(2, entries))))


def _sparse(tensor: SparseTensor, name: str | None) -> bytes:
    # A message given twice is merged, and of a string field given twice the last one counts.
    renamed = record(1, text(8, name)) if name and name != tensor.proto.values.name else b""
    encoded: bytes = tensor.proto.SerializeToString()
    return encoded + renamed


def _message(tensor: TypedTensor, name: str | None) -> bytes:
    proto = tensor.raw
    props = tensor.metadata_props
    if props != {entry.key: entry.value for entry in proto.metadata_props}:
        proto = onnx.TensorProto.FromString(proto.SerializeToString())
        del proto.metadata_props[:]
        for key, content in props.items():
            proto.metadata_props.add(key=key, value=content)
    encoded: bytes = proto.SerializeToString()
    return encoded + text(8, name) if name and name != proto.name else encoded
