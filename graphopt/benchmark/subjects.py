"""The models under test: where they are, what to call them, and what to feed them."""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import onnx_ir as ir

from graphopt import io
from graphopt.analysis.parameters import external_files
from graphopt.errors import UsageError
from graphopt.interop import kinds
from graphopt.verify.dims import is_expression
from graphopt.verify.feeds import Feeds, Plan

if TYPE_CHECKING:
    import onnx

__all__ = ["Source", "Subject", "check_shapes", "file_bytes", "fits", "labels", "load", "possible_feeds"]

Source: TypeAlias = "str | os.PathLike[str] | ir.Model | onnx.ModelProto"
Shapes = Mapping[str, Sequence[int]]

_MOST_GUESSES = 16


@dataclasses.dataclass(frozen=True, slots=True)
class Subject:
    """A model to measure.

    Attributes:
        name: What tables call it.
        path: The file that is measured.
        origin: The file the caller named; ``None`` for a model that came in memory.
        model: The model, loaded.
    """

    name: str
    path: Path
    origin: Path | None
    model: ir.Model


def load(sources: Sequence[Source], scratch: Path) -> list[Subject]:
    """Load the models; those that come in memory are written under ``scratch``, for ONNX Runtime to open as a file.

    Raises:
        UsageError: Something is no model.
        ModelError: A model cannot be read.
    """
    loaded = [_load(source, scratch, position) for position, source in enumerate(sources)]
    names = labels([path for path, _ in loaded])
    return [
        Subject(name, path, path if isinstance(source, str | os.PathLike) else None, model)
        for name, source, (path, model) in zip(names, sources, loaded, strict=True)
    ]


def check_shapes(subjects: Sequence[Subject], shapes: Shapes) -> None:
    """Raises UsageError where a shape is given for an input that no model has."""
    known = list(dict.fromkeys(value.name for subject in subjects for value in _inputs(subject.model)))
    for name in shapes:
        if name not in known:
            raise UsageError(f"no model has an input '{name}'", hint=f"Inputs: {', '.join(map(str, known))}.")


def possible_feeds(subject: Subject, shapes: Shapes, batch: int | None, seed: int) -> Iterator[Feeds]:
    """Feeds for a model, the likeliest to run first.

    ``batch`` is given to the leading symbolic dimension of every input, and to its namesakes on other axes (a state
    of shape ``(2, batch, 128)``).

    Raises:
        UsageError: A shape contradicts the model, or ``batch`` is given and no leading dimension is symbolic.
    """
    names = {value.name for value in _inputs(subject.model)}
    plan = Plan.of(subject.model, {name: shape for name, shape in shapes.items() if name in names})
    if batch is not None:
        leading = {entry.shape[0] for entry in plan.inputs if entry.shape}
        symbols = [dim for dim in leading if isinstance(dim, str) and not is_expression(dim)]
        if not symbols and not any(name in shapes for name in names):
            raise UsageError(
                f"{subject.name}: no input has a symbolic leading dimension, so the batch cannot be {batch}",
                hint="Leave the batch out, or export the model with a dynamic one.",
            )
        plan.open_dims.fixed.update(dict.fromkeys(symbols, batch))
    for guess in itertools.islice(plan.guesses(), _MOST_GUESSES):
        feeds = plan.fill(guess, seed)
        if feeds is not None:
            yield feeds


def fits(subject: Subject, feeds: Feeds, donor: Subject) -> bool:
    """Whether ``feeds``, made for ``donor``, suit ``subject``: same names and types, no fixed extent contradicted."""
    types = {value.name: value.type for value in _inputs(donor.model)}
    if {value.name: value.type for value in _inputs(subject.model)} != types:
        return False
    return all(_accepts(value, feeds[str(value.name)]) for value in _inputs(subject.model))


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
    return path.stat().st_size + sum(external_files(model).values())


def _load(source: Source, scratch: Path, position: int) -> tuple[Path, ir.Model]:
    given = kinds.Source.of(source).original
    if isinstance(given, Path):
        return given, io.load(given)
    name = given.graph.name if given.graph.name and given.graph.name.isidentifier() else "model"
    path = scratch / str(position) / f"{name}.onnx"
    path.parent.mkdir()
    io.save(given, path)
    return path, io.load(path)


def _inputs(model: ir.Model) -> list[ir.Value]:
    """The inputs that a caller must feed: one with an initializer has a default."""
    return [value for value in model.graph.inputs if value.name not in model.graph.initializers]


def _accepts(value: ir.Value, feed: object) -> bool:
    """Whether the input's declared extents allow the array; exporters write -1 for an open one."""
    shape = getattr(feed, "shape", None)
    if value.shape is None or shape is None:
        return True
    return len(value.shape) == len(shape) and all(
        not isinstance(dim, int) or dim < 0 or dim == size for dim, size in zip(value.shape, shape, strict=True)
    )
