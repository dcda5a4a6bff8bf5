"""Load and save models: absolute paths, external data, atomic replacement."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir

__all__ = ["load", "save"]


def load(source: str | os.PathLike[str] | bytes | onnx.ModelProto) -> ir.Model:
    """Read a model; relative paths resolve against the current directory now."""
    from graphopt import proto

    if isinstance(source, (str, os.PathLike)):
        path = Path(source).absolute()
        model = proto.load_file(path)
        model.meta["graphopt.path"] = str(path)
        return model
    if isinstance(source, bytes):
        return proto.from_bytes(source)
    return proto.from_proto(source)


def save(
    model: ir.Model, path: str | os.PathLike[str], *, external_data: bool | None = None, size_threshold: int = 1024
) -> None:
    """Write a model to a file, atomically."""
    from graphopt import proto

    target = Path(path).absolute()
    temporary = target.with_name(f".{target.name}.tmp{os.getpid()}")
    temporary.write_bytes(proto.to_proto(model).SerializeToString())
    os.replace(temporary, target)
