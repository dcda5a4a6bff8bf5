"""What is known before the model runs: initializers and Constant nodes."""

from __future__ import annotations

import mmap
import tempfile
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from graphopt.proto.tensors import BufferTensor

__all__ = ["FLOAT_TYPES", "array", "constant", "scalar", "tensor", "tensor_of_constant_node"]

FLOAT_TYPES = frozenset({ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.FLOAT16, ir.DataType.BFLOAT16})
"""What Conv, Gemm and friends compute in, and weights are kept in that are not quantized."""


def constant(value: ir.Value | None) -> ir.TensorProtocol | None:
    """The tensor that ``value`` always holds, or ``None``.

    An initializer that is also a graph input can be overridden by the caller, so it is not a constant. (Before IR
    version 4 every initializer had to be listed as an input; the pipeline drops those listings before passes run.)
    """
    if value is None:
        return None
    if value.is_initializer():
        return None if value.is_graph_input() else value.const_value
    producer = value.producer()
    if producer is None or producer.op_type != "Constant" or producer.domain:
        return None
    return tensor_of_constant_node(producer)


def array(value: ir.Value | None, max_elements: int | None = None) -> npt.NDArray[Any] | None:
    """The constant's contents as an array (a read-only view where possible); ``None`` if unknown or too large."""
    tensor = constant(value)
    if tensor is None or (max_elements is not None and tensor.size > max_elements):
        return None
    return tensor.numpy()


def scalar(value: ir.Value | None) -> float | int | bool | None:
    """The single number that a one-element constant holds (any rank); ``None`` if unknown, more, or a string."""
    contents = array(value, max_elements=1)
    if contents is None or contents.size != 1 or contents.dtype.kind in "OSU":
        return None
    result: float | int | bool = contents.reshape(()).item()
    return result


def tensor(contents: npt.NDArray[Any], name: str | None = None) -> ir.TensorProtocol:
    """A tensor over an array, whose memory it shares where the layout allows.

    What a pass computes from the weights of a large model must not fill the memory that the weights themselves do
    not fill, so a large array moves to an unnamed temporary file, where there is room for one.
    """
    if contents.dtype.byteorder == ">":
        contents = contents.astype(contents.dtype.newbyteorder("="))
    dtype = ir.DataType.from_numpy(contents.dtype)
    if dtype.bitwidth < 8 or contents.dtype.kind in "OSU":
        return ir.tensor(contents, name=name)
    raw = np.ascontiguousarray(contents).reshape(-1).view(np.uint8).data if contents.size else memoryview(b"")
    if raw.nbytes >= _SPILL_FROM:
        raw = _spilled(raw)
    return BufferTensor(raw, dtype, ir.Shape(contents.shape, frozen=True), name)


_SPILL_FROM = 1 << 22  # bytes


def _spilled(raw: memoryview) -> memoryview:
    """The same bytes, mapped from a file that vanishes with the last reference; as they are if there is no room."""
    try:
        with tempfile.TemporaryFile() as file:
            file.write(raw)
            file.flush()
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except OSError:
        return raw


def tensor_of_constant_node(node: ir.Node) -> ir.TensorProtocol | None:
    """The tensor of a Constant node, whichever attribute holds it; ``None`` for sparse or function-bound values."""
    if len(node.attributes) != 1:
        return None
    attribute = next(iter(node.attributes.values()))
    if attribute.is_ref():
        return None
    if attribute.name == "value":
        # not as_tensor(): its check against a runtime protocol takes 40 us
        tensor: ir.TensorProtocol | None = attribute.value if attribute.type == ir.AttributeType.TENSOR else None
        return tensor
    build = _FROM_ATTRIBUTE.get(attribute.name)
    return None if build is None else build(attribute)


_FROM_ATTRIBUTE: dict[str, Callable[[ir.Attr], ir.TensorProtocol]] = {
    "value_int": lambda attribute: ir.tensor(np.array(attribute.as_int(), np.int64)),
    "value_ints": lambda attribute: ir.tensor(np.array(attribute.as_ints(), np.int64)),
    "value_float": lambda attribute: ir.tensor(np.array(attribute.as_float(), np.float32)),
    "value_floats": lambda attribute: ir.tensor(np.array(attribute.as_floats(), np.float32)),
    "value_string": lambda attribute: ir.StringTensor([attribute.as_string().encode()], shape=ir.Shape([])),
    "value_strings": lambda attribute: ir.StringTensor(
        [text.encode() for text in attribute.as_strings()], shape=ir.Shape([len(attribute.as_strings())])
    ),
}
