"""The models under test: where they are, what to call them, and what to feed them."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from graphopt import io, walk
from graphopt.errors import UsageError
from graphopt.verify import feeds as feeding

__all__ = ["Feeds", "Source", "Subject", "file_bytes", "labels", "prepare"]

Source = str | os.PathLike[str] | ir.Model
Feeds = dict[str, npt.NDArray[Any]]
Shapes = dict[str, list[int]]


@dataclasses.dataclass(frozen=True, slots=True)
class Subject:
    """A model file, loaded, with its feeds.

    Attributes:
        name: What tables call it.
        path: The file that is measured.
        origin: The file the caller named; ``None`` for a model that came in memory.
    """

    name: str
    path: Path
    origin: Path | None
    model: ir.Model
    feeds: Feeds


def prepare(
    sources: Sequence[Source],
    scratch: Path,
    *,
    batch: int | None = None,
    shapes: Mapping[str, Sequence[int]] | None = None,
    seed: int = 0,
) -> list[Subject]:
    """Load the models (in-memory ones are written under ``scratch``) and generate their feeds.

    A model whose inputs fit the first one's feeds gets the very same arrays.

    Raises:
        UsageError: ``shapes`` names an input that no model has, or ``batch`` is given and nothing depends on it.
        ModelError: A model cannot be read.
    """
    loaded = [_load(source, scratch, position) for position, source in enumerate(sources)]
    wanted = {name: list(shape) for name, shape in (shapes or {}).items()}
    known = {value.name for _, model in loaded for value in model.graph.inputs}
    if stranger := next((name for name in wanted if name not in known), None):
        raise UsageError(f"no model has an input named {stranger!r}", hint=f"Inputs are: {', '.join(map(str, known))}")
    subjects: list[Subject] = []
    names = labels([path for path, _ in loaded])
    for name, source, (path, model) in zip(names, sources, loaded, strict=True):
        if subjects and _fits(model, subjects[0].feeds, subjects[0].model):
            feeds = subjects[0].feeds
        else:
            feeds = _feeds(model, name, wanted, batch, seed)
        subjects.append(Subject(name, path, None if isinstance(source, ir.Model) else path, model, feeds))
    return subjects


def labels(paths: Sequence[Path]) -> list[str]:
    """A short name for each file: its stem, or as much of the path as tells it from the others."""
    names = [path.stem for path in paths]
    for depth in range(1, max(len(path.parts) for path in paths) + 1):
        if len(set(names)) == len(names):
            return names
        names = ["/".join(path.parts[-depth:]) for path in paths]
    seen: dict[str, int] = {}
    for index, name in enumerate(names):
        seen[name] = seen.get(name, 0) + 1
        names[index] = Path(name).stem + (f" #{seen[name]}" if seen[name] > 1 else "")
    return names


def file_bytes(path: Path, model: ir.Model) -> int:
    """The size of the model file and of the external data files it refers to."""
    files = {path}
    for scope in walk.scopes(model):
        for value in scope.graph.initializers.values():
            if isinstance(value.const_value, ir.ExternalTensor):
                files.add(Path(value.const_value.path))
    return sum(file.stat().st_size for file in files)


def _load(source: Source, scratch: Path, position: int) -> tuple[Path, ir.Model]:
    if not isinstance(source, ir.Model):
        path = Path(source).absolute()
        return path, io.load(path)
    name = source.graph.name if source.graph.name and source.graph.name.isidentifier() else "model"
    path = scratch / str(position) / f"{name}.onnx"
    path.parent.mkdir()
    io.save(source, path)
    return path, io.load(path)


def _inputs(model: ir.Model) -> list[ir.Value]:
    """The inputs that a caller must feed: one with an initializer has a default."""
    return [value for value in model.graph.inputs if value.name not in model.graph.initializers]


def _fits(model: ir.Model, feeds: Feeds, donor: ir.Model) -> bool:
    """Whether ``feeds``, made for ``donor``, suit ``model``: same names and dtypes, no fixed dim contradicted."""
    types = {value.name: value.dtype for value in _inputs(donor)}
    if {value.name: value.dtype for value in _inputs(model)} != types:
        return False
    return all(_accepts(value, feeds[value.name].shape) for value in _inputs(model) if value.name in feeds)


def _accepts(value: ir.Value, shape: Sequence[int]) -> bool:
    if value.shape is None:
        return True
    return len(value.shape) == len(shape) and all(
        not isinstance(dim, int) or dim in (size, -1) for dim, size in zip(value.shape, shape, strict=True)
    )


def _feeds(model: ir.Model, name: str, wanted: Shapes, batch: int | None, seed: int) -> Feeds:
    inputs = {value.name for value in model.graph.inputs}
    shapes = {key: shape for key, shape in wanted.items() if key in inputs}
    feeds = feeding.generate(model, shapes=shapes, seed=seed, samples=1)[0]
    if batch is None:
        return feeds
    resized = _with_batch(model, {key: list(np.shape(array)) for key, array in feeds.items()}, frozenset(shapes), batch)
    if not resized:
        raise UsageError(
            f"{name}: no input has a symbolic leading dimension, so the batch cannot be {batch}",
            hint="Leave --batch out, or export the model with a dynamic batch.",
        )
    return feeding.generate(model, shapes={**resized, **shapes}, seed=seed, samples=1)[0]


def _with_batch(model: ir.Model, shapes: Shapes, fixed: frozenset[str], batch: int) -> Shapes:
    """``shapes`` with the leading symbolic dims set to ``batch``, and their namesakes on other axes too.

    Exporters may leave the dim unnamed, or name it differently for each input; so every input's leading symbolic
    dim counts, by name where it has one. Inputs in ``fixed`` stay. Empty when nothing is symbolic.
    """
    dims = {value.name: list(value.shape) for value in _inputs(model) if value.shape is not None}
    leading = {name: sizes[0] for name, sizes in dims.items() if sizes and not _static(sizes[0])}
    if not leading.keys() - fixed:
        return {}
    symbols = {dim.value for dim in leading.values() if isinstance(dim, ir.SymbolicDim) and dim.value is not None}
    return {
        name: [
            batch if (axis == 0 and name in leading) or getattr(dims[name][axis], "value", None) in symbols else size
            for axis, size in enumerate(shape)
        ]
        for name, shape in shapes.items()
        if name in dims and name not in fixed and len(dims[name]) == len(shape)
    }


def _static(dim: int | ir.SymbolicDim) -> bool:
    return isinstance(dim, int) and dim >= 0
