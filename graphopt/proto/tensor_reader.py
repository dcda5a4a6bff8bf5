"""From tensor messages to tensors over the bytes behind them, none of which is copied if it is big."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

import onnx
import onnx_ir as ir

from graphopt.errors import ModelError
from graphopt.proto import objects
from graphopt.proto.carried import keep_unknown, metadata
from graphopt.proto.tensors import (
    BIT_WIDTHS,
    LIKE_RAW,
    RAW_DATA,
    BufferTensor,
    SparseTensor,
    TypedTensor,
    check_typed_data,
)

if TYPE_CHECKING:
    from graphopt.proto.typeinfo import TypeReader
    from graphopt.proto.wire import Buffer

__all__ = ["ExternalData", "TensorReader"]

_DATA_TYPES = objects.DATA_TYPES
_EXTERNAL = onnx.TensorProto.EXTERNAL


class ExternalData(Protocol):
    """Finds the bytes of a tensor that are not in the model."""

    def __call__(self, proto: onnx.TensorProto) -> Buffer: ...


class TensorReader:
    """Reads the tensors of one model.

    Args:
        payloads: The field and the bytes behind the markers that :func:`graphopt.proto.wire.cut` left.
        external: Finds external data.
        types: Shares shapes among the tensors.
        has_unknown: Whether messages may have fields that the installed onnx does not know.
    """

    def __init__(
        self,
        payloads: Mapping[str, tuple[int, Buffer]],
        external: ExternalData,
        types: TypeReader,
        *,
        has_unknown: bool,
    ) -> None:
        self._payloads = payloads
        self._external = external
        self._types = types
        self._has_unknown = has_unknown

    def read(self, proto: onnx.TensorProto) -> ir.TensorProtocol:
        """A tensor over the bytes that the message, its file or its data file holds.

        Raises:
            ModelError: The data are missing or do not fit type and shape.
        """
        dims = tuple(proto.dims)
        kind = proto.data_type
        if dims and min(dims) < 0:
            raise ModelError(f"tensor {proto.name!r} has a negative dimension: {list(dims)}")
        field = RAW_DATA
        if proto.data_location == _EXTERNAL:
            field, raw = self._outside(proto)
            if field in LIKE_RAW and kind not in LIKE_RAW[field]:
                raise ModelError(f"tensor {proto.name!r} has its data in a field for another element type")
        else:
            raw = proto.raw_data
        bits = BIT_WIDTHS.get(kind)
        if bits is None or not (raw or proto.HasField("raw_data")):
            return self._typed(proto, dims)
        if len(raw) != (math.prod(dims) * bits + 7) // 8:
            raise ModelError(
                f"tensor {proto.name!r} of shape {list(dims)} needs {(math.prod(dims) * bits + 7) // 8} bytes"
                f" and has {len(raw)}"
            )
        tensor = BufferTensor(raw, _DATA_TYPES[kind], self._types.static(dims), proto.name, field=field)
        if proto.doc_string:
            tensor.doc_string = proto.doc_string
        if proto.metadata_props:
            tensor._metadata_props = metadata(proto.metadata_props)
        if self._has_unknown:
            keep_unknown(tensor, proto)
        return tensor

    def read_sparse(self, proto: onnx.SparseTensorProto) -> SparseTensor:
        """A sparse tensor, its data embedded.

        Raises:
            ModelError: The data are missing or do not fit.
        """
        own = onnx.SparseTensorProto.FromString(proto.SerializeToString())
        for part in (own.values, own.indices):
            tensor = self.read(part)
            if isinstance(tensor, BufferTensor):
                del part.external_data[:]
                part.ClearField("data_location")
                part.raw_data = tensor.tobytes()
        if any(dim < 0 for dim in own.dims) or own.values.data_type not in BIT_WIDTHS:
            raise ModelError(f"sparse tensor {own.values.name!r} has an impossible shape or type")
        return SparseTensor(own, self._types.static(tuple(own.dims)))

    def _outside(self, proto: onnx.TensorProto) -> tuple[int, Buffer]:
        location = proto.external_data[-1].value if proto.external_data else ""
        found = self._payloads.get(location)
        return (RAW_DATA, self._external(proto)) if found is None else found

    def _typed(self, proto: onnx.TensorProto, dims: tuple[int, ...]) -> ir.TensorProtocol:
        check_typed_data(proto, dims)
        if proto.data_type != ir.DataType.STRING:
            return TypedTensor(proto, self._types.static(dims))
        tensor = ir.serde.deserialize_tensor(proto)
        if self._has_unknown:
            keep_unknown(tensor, proto)
        return tensor
