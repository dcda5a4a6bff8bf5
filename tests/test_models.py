"""The shipped models are what the manifest says they are, and small."""

from __future__ import annotations

import hashlib
import math
import runpy
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from graphopt import runtime
from graphopt.datasets import open_dataset

FOLDER = Path(__file__).parents[1] / "models"
MANIFEST: list[dict[str, Any]] = tomllib.loads((FOLDER / "manifest.toml").read_text("utf-8"))["model"]
PERMISSIVE = {"Apache-2.0", "BSD-3-Clause", "CC-BY-4.0", "MIT"}


def test_manifest_lists_every_model_once() -> None:
    assert sorted(entry["file"] for entry in MANIFEST) == sorted(path.name for path in FOLDER.glob("*.onnx"))


def test_models_come_from_several_producers() -> None:
    assert len({entry["producer"].split(" ")[0] for entry in MANIFEST}) >= 4


@pytest.mark.parametrize("entry", MANIFEST, ids=lambda entry: str(entry["name"]))
def test_entry_matches_its_file(entry: dict[str, Any]) -> None:
    data = (FOLDER / entry["file"]).read_bytes()
    assert hashlib.sha256(data).hexdigest() == entry["sha256"]
    assert len(data) < 5_000_000
    assert entry["license"] in PERMISSIVE
    assert entry["package"]
    assert entry["version"]

    model = onnx.load_model_from_string(data)
    assert {imported.domain or "ai.onnx": imported.version for imported in model.opset_import} == entry["opset"]
    weights = {tensor.name for tensor in model.graph.initializer}
    assert [value.name for value in model.graph.input if value.name not in weights] == [
        value["name"] for value in entry["inputs"]
    ]


@pytest.mark.parametrize("entry", MANIFEST, ids=lambda entry: str(entry["name"]))
def test_licence_is_credited(entry: dict[str, Any]) -> None:
    assert f"`{entry['file']}`" in (FOLDER / "LICENSES.md").read_text("utf-8")


def test_digits_are_known() -> None:
    """The network of the demo is right on what it has not seen, and is the one that its builder trains."""
    pytest.importorskip("sklearn.datasets")
    columns = open_dataset("digits:split=test").columns(())
    rows = np.arange(columns["y"].shape[0])
    session = runtime.open_session(FOLDER / "digits.onnx")
    found = session.run(None, {"image": columns["x"].read(rows)})[0].argmax(1)
    assert (found == columns["y"].read(rows)).mean() > 0.99

    weights = onnx.load(FOLDER / "digits.onnx").graph.initializer
    sizes = [math.prod(weight.dims) for weight in weights if len(weight.dims) > 1]
    builder = runpy.run_path(str(FOLDER / "builders" / "digits.py"))
    assert sorted(sizes) == sorted(one.numel() for one in builder["build"]().parameters() if one.dim() > 1)
