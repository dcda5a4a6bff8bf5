"""Takes whatever kind of model the caller has, and gives the same kind back."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx_ir as ir

from graphopt import io, proto
from graphopt.errors import UsageError

__all__ = ["Source", "as_model"]


@dataclasses.dataclass(frozen=True)
class Source:
    """A caller's model: read as often as needed, never changed.

    Attributes:
        read: Makes a fresh ``ir.Model`` that may be changed freely.
        give_back: Turns a result into the caller's kind.
        original: The path, or an unchanged ``ir.Model``, to compare results with.
        holds_metadata: Whether the caller's kind of model can hold metadata of our own.
    """

    read: Callable[[], ir.Model]
    give_back: Callable[[ir.Model], Any]
    original: Path | ir.Model
    holds_metadata: bool = True

    @classmethod
    def of(cls, source: Any, *, allow_loss: bool = False) -> Source:
        """Recognises a path, an ``ir.Model``, an ``onnx.ModelProto`` or a graphsurgeon ``Graph``.

        Args:
            source: The model.
            allow_loss: For a graphsurgeon graph: go on although it cannot hold everything.

        Raises:
            UsageError: Some other kind.
            ModelError: It cannot be read, or cannot be held without loss.
        """
        if isinstance(source, str | os.PathLike):
            path = Path(source).absolute()
            return cls(lambda: io.load(path), lambda model: model, path)
        if isinstance(source, ir.Model):
            return cls(lambda: _copy(source), lambda model: model, source)
        if _is_loaded("onnx", "ModelProto", source):
            model = proto.from_proto(source)
            return cls(lambda: _copy(model), proto.to_proto, model)
        if _is_loaded("onnx_graphsurgeon", "Graph", source):
            from graphopt.interop import graphsurgeon

            model = graphsurgeon.to_ir(source)
            return cls(
                lambda: _copy(model),
                lambda result: graphsurgeon.from_ir(result, allow_loss=allow_loss),
                model,
                holds_metadata=False,
            )
        raise UsageError(
            f"a {type(source).__module__}.{type(source).__qualname__} is no model",
            hint="Give a path, an onnx_ir.Model, an onnx.ModelProto or an onnx_graphsurgeon.Graph.",
        )


def as_model(source: Any) -> ir.Model:
    """Any kind of model in memory as the one that graphopt works on: itself, if it is one.

    Raises:
        UsageError: Some other kind.
        ModelError: It cannot be held without loss.
    """
    found = Source.of(source).original
    if isinstance(found, Path):
        raise UsageError(f"'{source}' is a path, and no model", hint="Read it first: graphopt.load(path).")
    return found


def _is_loaded(module: str, name: str, candidate: object) -> bool:
    """An instance of a class whose module was never imported cannot exist; so nothing is imported to find out."""
    kind = getattr(sys.modules.get(module), name, None)
    return kind is not None and isinstance(candidate, kind)


def _copy(model: ir.Model) -> ir.Model:
    copy = model.clone()
    copy.meta.update(model.meta)
    return copy
