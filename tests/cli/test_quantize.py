"""``graphopt quantize``, as a user meets it."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from quantization.examples import perceptron, rows

import graphopt
from graphopt.cli.main import main
from graphopt.cli.quantize import command
from graphopt.quantization import METHODS, SCHEMES


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model, with inputs for it in ``inputs.npz`` beside it."""
    path = tmp_path / "model.onnx"
    graphopt.save(perceptron(), path)
    x = rows()
    np.savez(tmp_path / "inputs.npz", x=x, y=np.arange(len(x)) % 8)
    return path


@pytest.fixture
def data(model: Path) -> tuple[str, ...]:
    return "--calibration", str(model.parent / "inputs.npz"), "--no-time", "--threads", "1"


def names(model: Path) -> set[str]:
    return {path.name for path in model.parent.iterdir()}


def run(capsys: pytest.CaptureFixture[str], *arguments: str | Path, code: int = 0) -> tuple[str, str]:
    assert main(["quantize", *map(str, arguments)]) == code, capsys.readouterr().err
    captured = capsys.readouterr()
    return captured.out, captured.err


def run_json(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> Any:
    return json.loads(run(capsys, *arguments, "--json")[0])


def operators(path: Path) -> set[str]:
    loaded = onnx.load(path)
    onnx.checker.check_model(loaded)
    return {node.op_type for node in loaded.graph.node}


def test_does_not_replace_its_data(model: Path, data: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    target = model.parent / "inputs.npz"
    before = target.read_bytes()
    _, complaint = run(capsys, model, target, *data, code=4)
    assert "holds data that are read" in complaint
    assert target.read_bytes() == before


def test_writes_and_reports(
    model: Path, data: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "small.onnx"
    out, err = run(capsys, model, target, *data)
    assert {"QuantizeLinear", "DequantizeLinear"} <= operators(target)
    assert "static: 3 of 3 layers quantized" in out
    assert "accuracy" in out
    assert f"wrote {target}" in out
    assert err == ""
    assert target.stat().st_size < model.stat().st_size


def test_json_is_one_document(model: Path, data: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    timed = [one for one in data if one != "--no-time"]
    options = ("--scheme", "dynamic", "--exclude", "head")
    found = run_json(capsys, model, "-o", model.parent / "small.onnx", *timed, *options)
    assert found["scheme"] == "dynamic"
    assert [layer["quantized"] for layer in found["layers"]] == [True, True, False]
    assert found["speedup"]["value"] > 0
    assert found["after"]["bytes"] < found["before"]["bytes"]
    assert found["output"] == str(model.parent / "small.onnx")


@pytest.mark.parametrize("scheme", SCHEMES)
def test_schemes_in_place(scheme: str, model: Path, data: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    before = names(model)
    run(capsys, model, model, *data, "--scheme", scheme, "--max-error", "0.1", "-q")
    assert names(model) == before
    assert operators(model) & {"QuantizeLinear", "MatMulInteger", "MatMulNBits"}


def test_same_command_same_bytes(model: Path, data: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a.onnx", "b.onnx"):
        run(capsys, model, model.parent / name, *data, "--method", "auto", "-q")
    assert (model.parent / "a.onnx").read_bytes() == (model.parent / "b.onnx").read_bytes()


def test_quiet_and_verbose(model: Path, data: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, model, model.parent / "a.onnx", *data, "-q") == ("", "")
    _, err = run(capsys, model, model.parent / "a.onnx", *data, "-v", "--no-optimize")
    assert err.splitlines()[0] == "load"
    assert {"data", "calibrate", "harm", "choose", "compare"} <= set(err.splitlines())
    assert not {"optimize", "time"} & set(err.splitlines())


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--scheme", "int8"], 2, "there is no scheme 'int8'"),
        (["--method", "max"], 2, "there is no method 'max'"),
        (["--max-error", "0"], 2, "max_error=0.0 is no limit"),
        (["--exclude", "nothing*"], 2, "no layer is called 'nothing*'"),
        (["--exclude", "*"], 3, "nothing to quantize"),
        (["--calibration", "missing.npz"], 3, "missing.npz"),
        (["--provider", "nonsense"], 8, "nonsense"),
        (["--max-error", "1e-9"], 9, "more than the 1e-07% allowed"),
    ],
)
def test_refuses(
    arguments: list[str],
    code: int,
    words: str,
    model: Path,
    data: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(model.parent)
    before, contents = names(model), model.read_bytes()
    _, err = run(capsys, model, "small.onnx", *data, *arguments, code=code)
    assert err.startswith("error: ")
    assert words in err
    assert names(model) == before
    assert model.read_bytes() == contents


def test_without_data_it_warns(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = run(capsys, model, model.parent / "small.onnx", "--samples", "16", "--no-time")
    assert "do not trust the result" in " ".join(out.split())


def test_help_says_what_the_library_does() -> None:
    text = CliRunner().invoke(command, ["--help"]).output
    words = " ".join(text.split())
    for heading in (*command.sections, "Examples", "Exit codes"):
        assert heading in text
    assert all(name in words for name in (*SCHEMES, *METHODS))
    assert all(f"[default: {value}]" in words for value in ("static", "auto", "0.01"))
    assert max(map(len, text.splitlines())) <= 110


def test_every_choice_of_the_library_can_be_made() -> None:
    known = {param.name for param in command.params}
    python_only = {"source", "batch", "allow_loss", "progress", "with_report"}
    renamed = {"per_channel": "whole", "optimize": "no_optimize", "time": "no_time"}
    wanted = set(inspect.signature(graphopt.quantize).parameters) - python_only
    assert {renamed.get(name, name) for name in wanted} <= known
