"""Newer operator sets, through onnx's own version converter."""

from __future__ import annotations

import onnx_ir as ir

from graphopt import proto
from graphopt.errors import ModelError

__all__ = ["upgraded"]


def upgraded(model: ir.Model, version: int) -> ir.Model:
    """The same model in a newer operator set.

    Args:
        model: The model; not changed.
        version: Of ONNX's own operators.

    Raises:
        ModelError: onnx's converter cannot do it.
    """
    from onnx import version_converter

    was = model.opset_imports.get("", 0)
    try:
        message = version_converter.convert_version(proto.to_proto(model), version)
    except (RuntimeError, ValueError) as error:
        raise ModelError(
            f"the model cannot be converted from opset {was} to {version}: {' '.join(str(error).split())[:300]}",
            hint=f"Export it with opset {version} or newer.",
        ) from error
    result = proto.from_proto(message)
    result.meta.update({key: value for key, value in model.meta.items() if key not in result.meta})
    return result
