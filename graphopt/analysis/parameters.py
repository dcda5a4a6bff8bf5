"""How many weights a model has, and how large tensors are."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir

from graphopt import walk
from graphopt.analysis import constants
from graphopt.proto.tensors import BufferTensor

__all__ = ["attribute_parameters", "external_files", "identity", "is_parameter_dtype", "parameters", "tensor_bytes"]

_INDEX_DTYPES = frozenset(
    {
        ir.DataType.INT16,
        ir.DataType.UINT16,
        ir.DataType.INT32,
        ir.DataType.UINT32,
        ir.DataType.INT64,
        ir.DataType.UINT64,
    }
)
_MOST_AXES = 16
_GENERATED_FOR = frozenset({"BatchNormalization", "Conv", "ConvTranspose", "Gemm", "InstanceNormalization", "MatMul"})


def parameters(model: ir.Model) -> int:
    """The number of weights: elements of the stored tensors of float and of at most 8-bit integer types.

    A tensor used in several places, or several names for one stretch of a data file, counts once. Weights that a
    ConstantOfShape makes for a layer count as if stored.
    """
    return sum(_sizes(model))


def is_parameter_dtype(dtype: ir.DataType | None) -> bool:
    """Whether weights come in this type: floats, and integers of 8 bits or less. Indices and sizes do not."""
    if dtype in (None, ir.DataType.UNDEFINED, ir.DataType.STRING, ir.DataType.BOOL):
        return False
    return dtype not in _INDEX_DTYPES


def external_files(model: ir.Model) -> dict[str, int]:
    """The data files beside the model file, and their sizes in bytes."""
    files: dict[str, int] = dict(model.meta.get("graphopt.external") or {})
    for scope in walk.scopes(model):
        for value in scope.graph.initializers.values():
            if isinstance(value.const_value, ir.ExternalTensor):
                path = Path(value.const_value.path)
                files[str(path)] = path.stat().st_size if path.exists() else 0
    return files


def tensor_bytes(shape: Sequence[int], dtype: ir.DataType | None) -> int:
    """The bytes of a packed tensor; strings and unknown types count as nothing."""
    if dtype in (None, ir.DataType.UNDEFINED, ir.DataType.STRING):
        return 0
    return math.ceil(math.prod(shape) * dtype.bitwidth / 8)


def _sizes(model: ir.Model) -> Iterator[int]:
    seen: set[object] = set()
    for scope in walk.scopes(model):
        stored = [value.const_value for value in scope.graph.initializers.values()]
        for node in scope.graph:
            if node.domain:
                yield from attribute_parameters(node)
            elif node.op_type == "Constant":
                stored.append(constants.tensor_of_constant_node(node))
            elif node.op_type == "ConstantOfShape":
                yield _generated(node)
        for tensor in stored:
            if tensor is None or not is_parameter_dtype(tensor.dtype):
                continue
            key = identity(tensor)
            if key not in seen:
                seen.add(key)
                yield tensor.size


def identity(tensor: ir.TensorProtocol) -> object:
    """What two tensors share when they are the same bytes of the same file."""
    if isinstance(tensor, ir.ExternalTensor):
        return tensor.path, tensor.offset, tensor.length
    raw = tensor.raw if isinstance(tensor, BufferTensor) else None
    if isinstance(raw, memoryview) and raw.nbytes:
        return np.frombuffer(raw, np.uint8).ctypes.data, raw.nbytes
    return id(tensor)


def attribute_parameters(node: ir.Node) -> Iterator[int]:
    """The sizes of the weights that classical-ML operators keep in attributes."""
    if node.domain == "ai.onnx.ml":
        for attribute in node.attributes.values():
            if attribute.type == ir.AttributeType.FLOATS and not attribute.is_ref():
                yield len(attribute.as_floats())


def _generated(node: ir.Node) -> int:
    """The elements of the weight that a ConstantOfShape node makes for a layer; 0 when it makes none."""
    if not any(use.idx > 0 and use.node.op_type in _GENERATED_FOR for use in node.outputs[0].uses()):
        return 0
    source = node.inputs[0]
    tensor = None if source is None else source.const_value or constants.constant(source)
    return 0 if tensor is None or tensor.size > _MOST_AXES else math.prod(tensor.numpy().tolist())
