"""Tensors over bytes that somebody else owns: a memory-mapped file, or the protobuf message they came in."""

from __future__ import annotations

import abc
import math
from collections.abc import Iterable, Sequence
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from onnx_ir import _core

from graphopt.errors import ModelError

if TYPE_CHECKING:
    import onnx

    from graphopt.proto.wire import Buffer

__all__ = [
    "BIT_WIDTHS",
    "LIKE_RAW",
    "RAW_DATA",
    "BufferTensor",
    "ComputedTensor",
    "SparseTensor",
    "TypedTensor",
    "byte_size",
    "check_typed_data",
    "payload",
]

CHUNK = 1 << 24
_KEPT = 1 << 16  # bytes that a tensor may keep beside its message
RAW_DATA = 9

# Bits an element; strings and undefined have none.
BIT_WIDTHS: dict[int, int] = {
    int(dtype): dtype.bitwidth for dtype in ir.DataType if dtype not in {ir.DataType.UNDEFINED, ir.DataType.STRING}
}
_LITTLE_ENDIAN = {kind: ir.DataType(kind).numpy().newbyteorder("<") for kind, bits in BIT_WIDTHS.items() if bits >= 8}
_D = ir.DataType
# The field of a TensorProto that holds elements of a type when raw_data does not: ONNX, onnx.proto, TensorProto.
_TYPED_FIELDS = {
    "float_data": {_D.FLOAT, _D.COMPLEX64},
    "double_data": {_D.DOUBLE, _D.COMPLEX128},
    "int64_data": {_D.INT64},
    "uint64_data": {_D.UINT32, _D.UINT64},
}
# Fields whose packed form is the same bytes as raw_data.
LIKE_RAW = {4: _TYPED_FIELDS["float_data"], 10: _TYPED_FIELDS["double_data"]}


def _stored(kind: int, bits: int) -> tuple[str, int, int]:
    """Where elements of a type are, and how many entries of that field they take (as a fraction)."""
    field = next((field for field, kinds in _TYPED_FIELDS.items() if kind in kinds), "int32_data")
    if kind in {_D.COMPLEX64, _D.COMPLEX128}:
        return field, 2, 1
    return field, 1, 8 // bits if bits in {2, 4} else 1


_STORED = {kind: _stored(kind, bits) for kind, bits in BIT_WIDTHS.items()}
_STORED[int(_D.STRING)] = ("string_data", 1, 1)


class _Described(_core.TensorBase):
    """Type and shape of a tensor, known before its contents are; subclasses keep them."""

    __slots__ = ()
    _dtype: ir.DataType
    _shape: ir.Shape

    @property
    def dtype(self) -> ir.DataType:  # type: ignore[override]
        """The element type."""
        return self._dtype

    @property
    def shape(self) -> ir.Shape:  # type: ignore[override]
        """The frozen shape."""
        return self._shape

    @property
    def size(self) -> int:
        """The number of elements."""
        return math.prod(self._shape._dims)  # type: ignore[arg-type]

    @property
    def nbytes(self) -> int:
        """The number of bytes."""
        return byte_size(self._dtype, self._shape._dims)  # type: ignore[arg-type]


class _Tensor(_Described):
    """The same, and what asks for the whole array."""

    __slots__ = ("_dtype", "_shape")

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        array = self.numpy()
        if dtype is not None and array.dtype != dtype:
            return array.astype(dtype)
        return array.copy() if copy else array

    def __dlpack__(self, *, stream: Any = None) -> Any:
        return self.numpy().__dlpack__(stream=stream)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.numpy().__dlpack_device__()


class BufferTensor(_Tensor):
    """A read-only tensor over a buffer of little-endian elements, laid out as ``raw_data`` is.

    Args:
        raw: Exactly the bytes of the tensor. A view of a memory map keeps the map (and its file) open, so that
            replacing or deleting the file does not change what is read here.
        dtype: The element type, strings excepted.
        shape: Frozen and static.
        field: The field of a TensorProto that the bytes came from and go back to.
    """

    __slots__ = ("_raw", "field")

    def __init__(
        self,
        raw: Buffer,
        dtype: ir.DataType,
        shape: ir.Shape,
        name: str | None = None,
        doc_string: str | None = None,
        metadata_props: dict[str, str] | None = None,
        field: int = RAW_DATA,
    ) -> None:
        self._raw = raw
        self.field = field
        self._dtype = dtype
        self._shape = shape
        self._name = name
        self._doc_string = doc_string
        self._metadata_props = metadata_props
        self._metadata = None

    @property
    def raw(self) -> Buffer:
        """The bytes themselves, not copied."""
        return self._raw

    def numpy(self) -> npt.NDArray[Any]:
        """A read-only array over the bytes; only types of less than a byte are unpacked into new memory."""
        shape: tuple[int, ...] = tuple(self._shape._dims)  # type: ignore[arg-type]
        kind = _LITTLE_ENDIAN.get(self._dtype)
        if kind is None:
            packed = np.frombuffer(self._raw, np.uint8)
            return ir.PackedTensor(packed, self._dtype, shape=shape).numpy()
        return np.frombuffer(self._raw, kind).reshape(shape)

    def tobytes(self) -> bytes:
        """A copy of the bytes."""
        return bytes(self._raw)

    def tofile(self, file: IO[bytes]) -> None:
        """Write the bytes in chunks."""
        view = memoryview(self._raw)
        for start in range(0, len(view), CHUNK):
            file.write(view[start : start + CHUNK])

    def __repr__(self) -> str:
        return f"{self._repr_base()}(name={self._name!r})"


class ComputedTensor(_Tensor):
    """A tensor whose array is made anew whenever it is asked for; subclasses say how."""

    __slots__ = ()

    def __init__(self, dtype: ir.DataType, shape: ir.Shape, name: str | None, doc_string: str | None = None) -> None:
        super().__init__(name=name, doc_string=doc_string)
        self._dtype = dtype
        self._shape = shape

    @property
    def raw(self) -> Any:
        """What the array is made from."""
        return self.numpy()

    @abc.abstractmethod
    def numpy(self) -> npt.NDArray[Any]:
        """A new array, in native byte order."""

    def tobytes(self) -> bytes:
        """The bytes of the array, as ``raw_data`` holds them."""
        return ir.Tensor(self.numpy(), dtype=self._dtype).tobytes()


class SparseTensor(ComputedTensor):
    """A sparse initializer or attribute: reads like the dense tensor, is saved as it came."""

    __slots__ = ("proto",)

    def __init__(self, proto: onnx.SparseTensorProto, shape: ir.Shape) -> None:
        super().__init__(ir.DataType(proto.values.data_type), shape, proto.values.name)
        self.proto = proto

    @property
    def raw(self) -> onnx.SparseTensorProto:
        """The protobuf message."""
        return self.proto

    def numpy(self) -> npt.NDArray[Any]:
        """The dense array."""
        dense = np.zeros(self._shape.numpy(), self.dtype.numpy())
        indices = ir.serde.TensorProtoTensor(self.proto.indices).numpy()
        flat = indices if indices.ndim == 1 else np.ravel_multi_index(tuple(indices.T), dense.shape)
        dense.reshape(-1)[flat] = ir.serde.TensorProtoTensor(self.proto.values).numpy()
        return dense


class TypedTensor(_Described, ir.serde.TensorProtoTensor):
    """A tensor whose elements lie in a typed field of its message; is saved as it came.

    Reading such a field takes long, and passes ask again and again: what is small is kept.

    Args:
        proto: The message, its data embedded.
        shape: Its shape, frozen and static.
    """

    __slots__ = ("_contents", "_dtype", "_shape")

    def __init__(self, proto: onnx.TensorProto, shape: ir.Shape) -> None:
        super().__init__(proto)
        self._dtype = ir.DataType(proto.data_type)
        self._shape = shape
        self._contents: npt.NDArray[Any] | None = None

    def numpy(self) -> npt.NDArray[Any]:
        """A read-only array."""
        if self._contents is not None:
            return self._contents
        contents: npt.NDArray[Any] = super().numpy()
        contents.flags.writeable = False
        if contents.nbytes <= _KEPT:
            self._contents = contents
        return contents


def byte_size(kind: int, dims: Iterable[int]) -> int:
    """The bytes that a tensor of this element type and shape takes; 0 for types without a fixed size."""
    return (math.prod(dims) * BIT_WIDTHS.get(kind, 0) + 7) // 8


def check_typed_data(proto: onnx.TensorProto, dims: Sequence[int]) -> None:
    """Raise ModelError unless the typed field holds as many elements as ``dims`` say."""
    kind = proto.data_type
    field, numerator, denominator = _STORED.get(kind, ("", 0, 1))
    if not field:
        raise ModelError(f"tensor {proto.name!r} has no known element type ({kind})")
    have = len(getattr(proto, field))
    need = -(-math.prod(dims) * numerator // denominator)
    if have != need:
        raise ModelError(f"tensor {proto.name!r} of shape {list(dims)} needs {need} stored elements and has {have}")
    if any(len(getattr(proto, other)) for other in ("int32_data", "string_data", *_TYPED_FIELDS) if other != field):
        raise ModelError(f"tensor {proto.name!r} has data in a field for another element type")


def payload(tensor: ir.TensorProtocol) -> Buffer:
    """The bytes of a tensor, as ``raw_data`` holds them; not copied where that can be helped."""
    if type(tensor) is BufferTensor:
        return tensor._raw
    if tensor.dtype != ir.DataType.STRING and tensor.dtype.bitwidth >= 8:
        array = tensor.numpy()
        if array.nbytes > 4096 and array.flags.c_contiguous and array.dtype.byteorder in "=<|":
            return array.reshape(-1).view(np.uint8).data
    return tensor.tobytes()
