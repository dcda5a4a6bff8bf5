"""The process that gets hurt: loads, optimizes and saves one damaged model after the other, and tells what happened."""

from __future__ import annotations

import json
import os
import resource
import sys
import time
import traceback
from pathlib import Path

import onnx
from fuzz.mutate import mutate

from graphopt import io
from graphopt.errors import GraphoptError
from graphopt.optimizer import optimize

__all__ = ["attempt", "bases"]

ROOT = Path(__file__).parents[2]
_SMALL = 300_000  # bytes
_CASES = 60


def bases() -> list[bytes]:
    """The models to damage: the real ones (big weights emptied) and some of onnx's own cases."""
    from equivalence.cases import sample

    real = [_light(path.read_bytes()) for path in sorted((ROOT / "models").glob("*.onnx"))]
    cases = [case.model.SerializeToString() for case in sample(_CASES, seed=3)]
    return real * 4 + cases


def _light(data: bytes) -> bytes:
    if len(data) < _SMALL:
        return data
    model = onnx.load_model_from_string(data)
    weights = list(model.graph.initializer)
    for node in [*model.graph.node]:
        weights += [attribute.t for attribute in node.attribute if attribute.HasField("t")]
    for tensor in weights:
        if len(tensor.raw_data) > 2048:
            tensor.raw_data = bytes(len(tensor.raw_data)) if len(tensor.raw_data) < 30_000 else b""
    light: bytes = model.SerializeToString()
    return light


def attempt(data: bytes, folder: Path) -> tuple[str, str]:
    """One model through load, optimize and save.

    Args:
        data: The damaged file.
        folder: An empty folder, emptied again.

    Returns:
        ``done``, ``refused`` or ``bug``, and the words for it.
    """
    source, output = folder / "in.onnx", folder / "out" / "out.onnx"
    source.write_bytes(data)
    output.parent.mkdir()
    try:
        io.save(optimize(source, validate=False), output)
        io.load(output)
        verdict, words = "done", ""
    except GraphoptError as error:
        verdict, words = "refused", str(error)
    except Exception as error:  # noqa: BLE001 -- finding these is the point
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "graphopt" in frame.filename]
        place = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "?"
        verdict, words = "bug", f"{type(error).__name__} at {place}: {str(error)[:200]}"
    left = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    expected = ["in.onnx", *([] if verdict != "done" else ["out/out.onnx"])]
    if left != expected:
        verdict, words = "bug", f"files after '{verdict}': {left}"
    if source.exists() and source.read_bytes() != data:
        verdict, words = "bug", "the input file changed"
    for name in left:
        (folder / name).unlink(missing_ok=True)
    output.parent.rmdir()
    return verdict, words


def _main() -> None:
    folder, memory, *seeds = sys.argv[1], int(sys.argv[2]), *map(int, sys.argv[3:])
    resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    replies = os.fdopen(os.dup(1), "w")
    silence = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(silence, stream)
    models = bases()
    for seed in range(seeds[0], seeds[1]):
        replies.write(json.dumps({"seed": seed}) + "\n")
        replies.flush()
        data = mutate(models[seed % len(models)], seed, models)
        start = time.perf_counter()
        verdict, words = attempt(data, Path(folder))
        took = time.perf_counter() - start
        replies.write(json.dumps({"seed": seed, "verdict": verdict, "words": words, "seconds": took}) + "\n")
        replies.flush()


if __name__ == "__main__":
    _main()
