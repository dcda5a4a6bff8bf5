"""Messages that may be larger than one can be written: for tools that take an ``onnx.ModelProto`` in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx

from graphopt import proto

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["whole"]


def whole(model: ir.Model) -> onnx.ModelProto:
    """The message of a model with all weights in it, even beyond 2 GB; it takes as much memory.

    Raises:
        ModelError: The model cannot be expressed in ONNX.
    """
    data, arrays = proto.to_session_bytes(model)
    message: onnx.ModelProto = onnx.ModelProto.FromString(data)
    for tensor in message.graph.initializer:
        if tensor.name in arrays:
            tensor.ClearField("external_data")
            tensor.ClearField("data_location")
            tensor.raw_data = arrays[tensor.name].tobytes()
    return message
