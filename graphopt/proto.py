"""The one boundary between ONNX protobuf and onnx_ir."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import onnx
import onnx_ir as ir

if TYPE_CHECKING:
    import numpy as np

__all__ = ["from_bytes", "from_proto", "load_file", "to_proto", "to_session_bytes"]


def load_file(path: Path) -> ir.Model:
    return ir.load(path)


def from_bytes(data: bytes) -> ir.Model:
    return from_proto(onnx.ModelProto.FromString(data))


def from_proto(proto: onnx.ModelProto) -> ir.Model:
    """Build the in-memory model from a protobuf message."""
    return ir.serde.deserialize_model(proto)


def to_proto(model: ir.Model) -> onnx.ModelProto:
    """Build the protobuf message of a model, everything embedded."""
    return ir.serde.serialize_model(model)


def to_session_bytes(model: ir.Model, *, inline_below: int = 1 << 20) -> tuple[bytes, dict[str, np.ndarray]]:
    """Serialize for ONNX Runtime: the bytes, and the big initializers to hand over beside them."""
    return to_proto(model).SerializeToString(), {}
