"""ONNX Runtime's own file format (``.ort``), and what its small builds for phones must have to read it."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from graphopt import io, runtime
from graphopt.errors import EnvironmentProblem, GraphoptError, ModelError, SaveError

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["IDENTIFIER", "LEVELS", "Level", "RequiredOperators", "required_operators", "to_ort_format"]

IDENTIFIER: Final = b"ORTM"
"""Bytes 4 to 8 of such a file."""

Level = Literal["basic", "extended"]
LEVELS: Final[tuple[Level, ...]] = ("basic", "extended")
"""Which of ONNX Runtime's optimizations are done."""

# ONNX Runtime's reader of its format lies in a package that imports torch where there is one, and sets up logging for
# the whole process: it gets a process of its own.
_READER: Final = """
import sys
sys.modules["torch"] = None
import pathlib
from onnxruntime.tools.ort_format_model import create_config_from_models
folder = pathlib.Path(sys.argv[1])
models = sorted(folder.glob("*.ort"))
for name, types in (("plain", False), ("typed", True)):
    create_config_from_models(models, folder / name, types)
"""
_PATIENCE: Final = 300  # seconds


class RequiredOperators(dict[str, Mapping[int, tuple[str, ...]]]):
    """Operators by domain and by the operator set that brought them.

    Attributes:
        config: The same with the types each one is needed for, as ``build.py --include_ops_by_config`` of ONNX Runtime
            reads it. Source: https://onnxruntime.ai/docs/reference/operators/reduced-operator-config-file.html
    """

    def __init__(self, plain: str, typed: str) -> None:
        super().__init__(_read(plain))
        lines = [line for line in typed.splitlines() if not line.startswith("#")]  # they name temporary files
        self.config = "\n".join(("# Operators and types for a reduced build of ONNX Runtime.", *lines, ""))


def to_ort_format(model: ir.Model, *, level: Level = "extended") -> bytes:
    """The contents of an ``.ort`` file.

    Small builds have no graph optimizer, so ONNX Runtime's optimizations that suit any processor are done now.
    Source: https://onnxruntime.ai/docs/performance/model-optimizations/ort-format-models.html

    Args:
        model: A model that ONNX Runtime can run.
        level: ``extended`` makes operators that only processors have; with ``basic`` those of ONNX stay, which XNNPACK,
            NNAPI and CoreML take.

    Raises:
        ModelError: ONNX Runtime cannot load it.
        SaveError: Temporary files cannot be written.
    """
    try:
        with tempfile.TemporaryDirectory(prefix="graphopt-ort-") as folder:
            contents = _made(model, Path(folder), level)
    except OSError as error:
        raise SaveError(f"temporary files cannot be written: {error.strerror or error}") from error
    runtime.open_session(contents)  # what cannot be opened again is not worth a file
    return contents


def _made(model: ir.Model, folder: Path, level: Level) -> bytes:
    plain, made = folder / "model.onnx", folder / "model.ort"
    with _unnamed(plain):
        io.save(model, plain)
        runtime.open_session(plain, optimization=level, saved=made, config={"session.save_model_format": "ORT"})
    return made.read_bytes()


@contextlib.contextmanager
def _unnamed(file: Path) -> Iterator[None]:
    """Errors that do not name a temporary file, which tells nobody anything."""
    try:
        yield
    except GraphoptError as error:
        told = error.message.removeprefix(f"{file}: ").replace(f"Load model from {file} failed:", "")
        told = told.replace(repr(str(file)), "a temporary file").replace(str(file), "a temporary file")
        raise type(error)(told, hint=error.hint) from error.__cause__


def required_operators(files: Sequence[bytes]) -> RequiredOperators:
    """What a build of ONNX Runtime must have to run models in its own format.

    Args:
        files: The contents of ``.ort`` files.

    Raises:
        ModelError: One of them is not in that format, or damaged.
        EnvironmentProblem: The installed ONNX Runtime cannot read its format from Python.
    """
    if not all(contents[4:8] == IDENTIFIER for contents in files):
        raise ModelError("the model is not in ONNX Runtime's format")
    with tempfile.TemporaryDirectory(prefix="graphopt-ort-") as name:
        folder = Path(name)
        for index, contents in enumerate(files):
            (folder / f"{index}.ort").write_bytes(contents)
        command = [sys.executable, "-P", "-c", _READER, name]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE, check=False)
        except subprocess.TimeoutExpired:
            raise ModelError(f"ONNX Runtime's reader of its format took more than {_PATIENCE} s") from None
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["it gave no reason"])[-1]
            for contents in files if "ModuleNotFoundError" not in last else ():
                runtime.open_session(contents)  # one that is cut short says so
            raise EnvironmentProblem(
                f"onnxruntime {runtime.version()} cannot list a model's operators: {runtime.trim(last)}",
                hint="Its tools need the package flatbuffers: pip install flatbuffers.",
            )
        return RequiredOperators((folder / "plain").read_text("utf-8"), (folder / "typed").read_text("utf-8"))


def _read(plain: str) -> dict[str, dict[int, tuple[str, ...]]]:
    """Lines such as ``ai.onnx;11;Conv,MaxPool``."""
    found: dict[str, dict[int, tuple[str, ...]]] = {}
    for line in plain.splitlines():
        if not line.startswith("#"):
            domain, version, names = line.split(";")
            found.setdefault(domain, {})[int(version)] = tuple(names.split(","))
    return found
