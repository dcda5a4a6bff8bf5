"""Recipes: the options of a distillation in a TOML file, under the names that the command line gives them.

.. code-block:: toml

    teacher = "teacher.onnx"
    student = "shrink:macs=0.25"
    data = "train.npz"
    eval = "test.npz"
    loss = ["kd:temperature=4:weight=0.9", "ce:weight=0.1"]
    epochs = 20
    output = "student.onnx"

Paths are relative to the recipe, so that it goes on working wherever it is called from.
"""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from graphopt.errors import ModelError, UsageError
from graphopt.importing import names_function
from graphopt.pipeline.spec import close_match

__all__ = ["KEYS", "read"]

_Read = Callable[[Any, Path], Any]
"""Takes what TOML gives and the folder of the recipe; raises ValueError where it is something else."""


@dataclasses.dataclass(frozen=True, slots=True)
class _Kind:
    """A kind of value, and how it is told to whoever wrote another one."""

    takes: str
    read: _Read


def _one_of(*kinds: type) -> _Read:
    def read(value: Any, _: Path) -> Any:
        if type(value) not in kinds:  # TOML's true is no number, though Python's is
            raise ValueError(value)
        return value

    return read


_number = _one_of(float, int)


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError(value)
    return value


def _model(value: Any, folder: Path) -> str:
    """A student: a path is relative to the folder, a spec is none."""
    text = _text(value)
    is_path = not text.startswith("shrink:") and not names_function(text)
    return str(folder / text) if is_path else text


def _data(value: Any, folder: Path) -> str:
    """A data spec: what is there, seen from the folder, is meant; a name or a function has no place."""
    from graphopt.datasets.options import parse_spec

    text = _text(value)
    for spec in (text, parse_spec(text)[0]):
        if (folder / spec).exists():
            return str(folder / spec) + text.removeprefix(spec)
    return text


def _models(value: Any, folder: Path) -> tuple[str, ...]:
    found = value if isinstance(value, list) else [value]
    if not found:
        raise ValueError(value)
    return tuple(str(folder / _text(one)) for one in found)


def _terms(value: Any, _: Path) -> str:
    """A sum, as one text or as its terms."""
    return "+".join(map(_text, value)) if isinstance(value, list) and value else _text(value)


def _shares(value: Any, folder: Path) -> Any:
    if value == "sample":
        return value
    if not isinstance(value, list) or not value:
        raise ValueError(value)
    return tuple(_number(one, folder) for one in value)


def _trackers(value: Any, folder: Path) -> tuple[str, ...]:
    """Specs of trackers; the folder of TensorBoard is a path."""
    found = []
    for one in value if isinstance(value, list) else [value]:
        name, sign, rest = _text(one).partition(":")
        found.append(f"{name}:{folder / rest}" if sign and name == "tensorboard" else one)
    return tuple(found)


_TEXT = _Kind("a text", lambda value, _: _text(value))
_PATH = _Kind("a path", lambda value, folder: folder / _text(value))
_NUMBER = _Kind("a number", _number)
_INTEGER = _Kind("a whole number", _one_of(int))
_SWITCH = _Kind("true or false", _one_of(bool))
_DATA = _Kind("a path, or another spec of data", _data)
_TERMS = _Kind("a text, or a list of the terms of the sum", _terms)

KEYS: Final[Mapping[str, tuple[str, _Kind]]] = {
    "teacher": ("teacher", _Kind("a path, or a list of some", _models)),
    "student": ("student", _Kind("a path, shrink:macs=0.25, or module:factory", _model)),
    "data": ("data", _DATA),
    "eval": ("evaluation", _DATA),
    "loss": ("loss", _TERMS),
    "balance": ("balance", _TEXT),
    "teacher-weights": ("teacher_weights", _Kind("a list of numbers, or 'sample'", _shares)),
    "mask": ("mask", _TEXT),
    "augment": ("augment", _TERMS),
    "preprocess": ("preprocess", _TEXT),
    "optimizer": ("optimizer", _TEXT),
    "schedule": ("schedule", _TEXT),
    "precision": ("precision", _TEXT),
    "prune": ("prune", _TEXT),
    "quantize": ("quantize", _TEXT),
    "provider": ("provider", _TEXT),
    "output": ("output", _PATH),
    "run-directory": ("run_directory", _PATH),
    "plot": ("plot", _PATH),
    "log-to": ("log_to", _Kind("tensorboard:FOLDER, wandb:PROJECT, or a list of such", _trackers)),
    **{
        name: (name.replace("-", "_"), _INTEGER)
        for name in (
            *("views", "samples", "epochs", "batch", "accumulate", "patience"),
            *("prune-steps", "top-k", "seed", "threads"),
        )
    },
    **{
        name: (name.replace("-", "_"), _NUMBER)
        for name in ("learning-rate", "warmup", "weight-decay", "clip", "average")
    },
    **{
        name: (name.replace("-", "_"), _SWITCH)
        for name in ("cache", "half", "optimize", "external-data", "resume", "dry-run")
    },
}
"""The keys of a recipe: for each, the parameter that it is for, and what it takes."""


def read(path: str | Path) -> dict[str, Any]:
    """The options of a recipe, by parameter of :func:`graphopt.distill`.

    What only the command line knows (``output``, ``plot``, ``log_to``, ``external_data``) is among them if it is there.

    Args:
        path: A TOML file. Its keys are those of :data:`KEYS`; dashes and underscores are the same.

    Raises:
        ModelError: The file cannot be read, or is no TOML.
        UsageError: A key that there is not, twice or with a value of another kind.
    """
    file = Path(path).absolute()
    try:
        held = tomllib.loads(file.read_text("utf-8"))
    except OSError as error:
        raise ModelError(f"cannot read the recipe {file}: {error.strerror or error}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ModelError(f"the recipe {file} is no TOML: {error}", hint='Texts need quotes: loss = "kd".') from error
    found: dict[str, Any] = {}
    for given, value in held.items():
        key = given.replace("_", "-")
        if key not in KEYS:
            raise UsageError(f"{file}: a recipe has no key '{given}'", hint=close_match(key, KEYS))
        parameter, kind = KEYS[key]
        if parameter in found:
            raise UsageError(f"{file}: the key '{key}' is there twice", hint="Leave one out.")
        try:
            found[parameter] = kind.read(value, file.parent)
        except ValueError:
            raise UsageError(f"{file}: '{given}' cannot be {value!r}", hint=f"It takes {kind.takes}.") from None
    return found
