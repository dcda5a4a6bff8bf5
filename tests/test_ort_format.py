"""Saving in ONNX Runtime's own format."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import graphopt
from graphopt import runtime
from graphopt.cli.main import main
from graphopt.errors import ExitCode, ModelError
from graphopt.interop.ort_format import IDENTIFIER, required_operators

MODEL = Path(__file__).parents[1] / "models" / "digits.onnx"


def test_an_ort_file_gives_what_the_model_gives(tmp_path: Path) -> None:
    path = tmp_path / "a folder" / "model.ort"
    path.parent.mkdir()
    graphopt.save(graphopt.load(MODEL), path)
    assert path.read_bytes()[4:8] == IDENTIFIER
    x = np.random.default_rng(0).random((3, 1, 8, 8), np.float32)
    ours, theirs = (runtime.open_session(one) for one in (path, MODEL))
    name = ours.get_inputs()[0].name
    np.testing.assert_allclose(ours.run(None, {name: x})[0], theirs.run(None, {name: x})[0], atol=1e-4)
    assert [one.name for one in path.parent.iterdir()] == ["model.ort"]


def test_the_command_line_writes_it(tmp_path: Path) -> None:
    assert main(["optimize", str(MODEL), str(tmp_path / "small.ort"), "-q"]) == ExitCode.OK
    assert (tmp_path / "small.ort").read_bytes()[4:8] == IDENTIFIER


def test_an_ort_file_is_no_input(tmp_path: Path) -> None:
    graphopt.save(graphopt.load(MODEL), tmp_path / "model.ort")
    with pytest.raises(ModelError, match="own format, which cannot be rewritten"):
        graphopt.load(tmp_path / "model.ort")


def test_capitals_name_the_format_too(tmp_path: Path) -> None:
    graphopt.save(graphopt.load(MODEL), tmp_path / "MODEL.ORT")
    assert (tmp_path / "MODEL.ORT").read_bytes()[4:8] == IDENTIFIER


@pytest.mark.parametrize("left", [8, 3000])
def test_what_is_cut_short_is_damaged_and_nothing_is_missing(left: int, tmp_path: Path) -> None:
    path = tmp_path / "model.ort"
    graphopt.save(graphopt.load(MODEL), path)
    with pytest.raises(ModelError, match="cannot load the model"):
        required_operators([path.read_bytes()[:left]])
