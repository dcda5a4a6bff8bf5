"""What rides along in ``meta``, because ``onnx_ir`` has no place for it, from the decoder to the encoder."""

from __future__ import annotations

from typing import Any

__all__ = ["QUANTIZATION", "TRAINING", "TYPE", "UNKNOWN", "keep_unknown", "metadata", "unknown"]

UNKNOWN = "graphopt.unknown"
"""On anything: its fields that the installed onnx does not know, as bytes."""
TRAINING = "graphopt.training"
"""On a model: its training info, one serialized message each."""
TYPE = "graphopt.type"
"""On a value: its serialized type, where onnx_ir has no class for it."""
QUANTIZATION = "quant_parameter_tensor_names"
"""On a value: its quantization annotation, under the key that onnx_ir uses."""


def metadata(entries: Any) -> dict[str, str] | None:
    """The entries of a repeated StringStringEntryProto; None when there are none."""
    return {entry.key: entry.value for entry in entries} if len(entries) else None


def keep_unknown(holder: Any, proto: Any) -> None:
    """Let the fields of a message that the installed onnx does not know ride along with what was made of it."""
    rest = type(proto)()
    rest.CopyFrom(proto)
    for field in proto.DESCRIPTOR.fields:
        rest.ClearField(field.name)
    if kept := rest.SerializeToString():
        holder.meta[UNKNOWN] = kept


def unknown(holder: Any) -> list[bytes]:
    """The fields kept by :func:`keep_unknown`."""
    return [holder.meta[UNKNOWN]] if UNKNOWN in holder.meta else []
