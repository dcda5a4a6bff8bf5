"""Types and shapes, to and from protobuf; what repeats is translated once."""

from __future__ import annotations

import onnx
import onnx_ir as ir

from graphopt.proto import objects, wire
from graphopt.proto.carried import TYPE

__all__ = ["TypeReader", "TypeWriter", "encode_type", "has_map"]


class TypeReader:
    """Reads types for one model; values whose types are spelled alike share one frozen shape."""

    def __init__(self) -> None:
        self._seen: dict[bytes, tuple[ir.DataType, ir.Shape | None]] = {}
        self._dims: dict[tuple[int, ...], ir.Shape] = {}

    def static(self, dims: tuple[int, ...]) -> ir.Shape:
        """The shared shape of a tensor."""
        known = self._dims.get(dims)
        if known is None:
            known = self._dims[dims] = objects.shape(dims)
        return known

    def assign(self, value: ir.Value, info: onnx.ValueInfoProto) -> None:
        """Set type and shape of a value; what onnx_ir has no class for rides along in ``value.meta``.

        Raises:
            onnx_ir.serde.SerdeError: The type is malformed.
        """
        proto = info.type
        key = proto.SerializeToString()
        known = self._seen.get(key)
        if known is not None:
            value._type = objects.tensor_type(known[0])
            value._shape = known[1]
            return
        if not _is_held(proto):
            if info.HasField("type"):
                value.meta[TYPE] = key
            return
        value.type = ir.serde.deserialize_type_proto_for_type(proto)
        value.shape = ir.serde.deserialize_type_proto_for_shape(proto)
        if isinstance(value.type, ir.TensorType) and not value.type.denotation:
            self._seen[key] = (value.type.dtype, value.shape)


class TypeWriter:
    """Encodes types for one save. Shapes are told apart by identity: nothing mutates them meanwhile."""

    def __init__(self) -> None:
        self._seen: dict[tuple[int, int], bytes] = {}

    def encode(self, value: ir.Value) -> bytes | None:
        """The TypeProto of a value; None when nothing is known."""
        kind = value._type
        if kind is None:
            return _carried(value)
        if type(kind) is not ir.TensorType or kind.denotation:
            return encode_type(kind, value._shape)
        key = (int(kind._dtype), id(value._shape))
        known = self._seen.get(key)
        if known is None:
            known = self._seen[key] = _encode_tensor_type(kind._dtype, value._shape)
        return known


def has_map(proto: onnx.TypeProto) -> bool:
    """Whether a map is anywhere in a type."""
    while True:
        field = proto.WhichOneof("value")
        if field == "map_type":
            return True
        if field not in {"sequence_type", "optional_type"}:
            return False
        proto = getattr(proto, field).elem_type


def _is_held(proto: onnx.TypeProto) -> bool:
    """Whether onnx_ir has a class for a type: no map or opaque type, no sequence of nothing in particular."""
    while True:
        field = proto.WhichOneof("value")
        if field in {"tensor_type", "sparse_tensor_type"}:
            return bool(getattr(proto, field).HasField("elem_type"))
        if field not in {"sequence_type", "optional_type"}:
            return False
        proto = getattr(proto, field).elem_type


def _carried(value: ir.Value) -> bytes | None:
    return None if value._metadata is None else value._metadata.get(TYPE)


def encode_type(kind: ir.TypeProtocol, shape: ir.Shape | None) -> bytes:
    """The TypeProto of any type that onnx_ir holds."""
    proto = onnx.TypeProto()
    ir.serde.serialize_type_into(proto, kind)
    if shape is not None:
        ir.serde.serialize_shape_into(proto, shape)
    encoded: bytes = proto.SerializeToString()
    return encoded


def _encode_tensor_type(dtype: ir.DataType, shape: ir.Shape | None) -> bytes:
    content = wire.number(1, int(dtype))
    if shape is not None:
        content += wire.record(2, b"".join(_encode_dim(shape, i) for i in range(len(shape))))
    return wire.record(1, content)


def _encode_dim(shape: ir.Shape, index: int) -> bytes:
    dim = shape._dims[index]
    content = b""
    if isinstance(dim, int):
        content = wire.number(1, dim)
    elif dim.value is not None:
        content = wire.text(2, dim.value)
    denotation = shape.get_denotation(index)
    return wire.record(1, content + wire.text(3, denotation) if denotation else content)
