"""ONNX Runtime's own file format, which its small builds for phones read (``.ort``)."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from graphopt import io, runtime

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["IDENTIFIER", "to_ort_format"]

IDENTIFIER: Final = b"ORTM"
"""Bytes 4 to 8 of such a file."""


def to_ort_format(model: ir.Model) -> bytes:
    """The contents of an ``.ort`` file.

    Small builds have no graph optimizer, so ONNX Runtime's optimizations that suit any processor are done now.
    Source: https://onnxruntime.ai/docs/performance/model-optimizations/ort-format-models.html

    Args:
        model: A model that ONNX Runtime can run.

    Raises:
        ModelError: ONNX Runtime cannot load it.
    """
    with tempfile.TemporaryDirectory(prefix="graphopt-ort-") as folder:
        plain, made = Path(folder) / "model.onnx", Path(folder) / "model.ort"
        io.save(model, plain)
        runtime.open_session(plain, optimization="extended", saved=made, config={"session.save_model_format": "ORT"})
        contents = made.read_bytes()
    runtime.open_session(contents)  # what cannot be opened again is not worth a file
    return contents
