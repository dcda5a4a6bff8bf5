"""Saving in ONNX Runtime's own format."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

import numpy as np
import pytest
from harness import parse

import graphopt
from graphopt import runtime
from graphopt.cli.main import main
from graphopt.errors import ExitCode, ModelError, SaveError
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


def test_errors_name_the_file_that_was_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "out.ort"
    unknown = parse('<ir_version: 9, opset_import: ["" : 17, "o" : 1]> g (float[1] x) => (float[1] y) { y = o.Zap(x) }')
    with pytest.raises(ModelError, match=rf"^cannot write '{re.escape(str(target))}': .*o:Zap") as told:
        graphopt.save(unknown, target)
    assert "graphopt-ort-" not in str(told.value)
    assert "model.onnx" not in str(told.value)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("graphopt.atomic.Replacement.write", full)
        with pytest.raises(SaveError, match=rf"^cannot write '{re.escape(str(target))}': .*No space left") as refused:
            graphopt.save(graphopt.load(MODEL), target)
    assert "graphopt-ort-" not in str(refused.value)
    assert "Free some room" in refused.value.hint

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    with pytest.raises(SaveError, match=r"out\.ort': temporary files cannot be written: No such file"):
        graphopt.save(graphopt.load(MODEL), target)
    assert list(tmp_path.iterdir()) == []
