"""The commands that work on models, through the command line as a user meets them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from harness import parse

import graphopt
from graphopt.cli.main import main

PADDED = """agraph (float[N,4] x) => (float[N,4] y) {
    a = Identity (x)
    b = Relu (a)
    y = Identity (b)
}"""


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A model with something to remove."""
    path = tmp_path / "small.onnx"
    graphopt.save(parse(PADDED), path)
    return path


def run(capsys: pytest.CaptureFixture[str], *arguments: str | Path, code: int = 0) -> tuple[str, str]:
    assert main([str(argument) for argument in arguments]) == code
    captured = capsys.readouterr()
    return captured.out, captured.err


def run_json(capsys: pytest.CaptureFixture[str], *arguments: str | Path, code: int = 0) -> Any:
    out, _ = run(capsys, *arguments, "--json", code=code)
    return json.loads(out)


def operators(path: Path) -> list[str]:
    return [node.op_type for node in onnx.load(path).graph.node]


def test_optimize_writes_and_reports(small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "out.onnx"
    out, err = run(capsys, "optimize", small, target)
    assert operators(target) == ["Relu"]
    assert "eliminate-identity" in out
    assert "Proven equal" in out
    assert f"wrote {target}" in out
    assert err == ""


def test_optimize_json_is_one_document(small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = run_json(capsys, "optimize", small, "-o", tmp_path / "out.onnx", "--bench")
    assert report["status"] == "proven"
    assert report["before"]["nodes"] == 3
    assert report["after"]["nodes"] == 1
    assert report["equivalence"]["status"] == "equal"
    assert [model["name"] for model in report["bench"]["models"]] == ["small", "out"]


@pytest.mark.parametrize("bench", [[], ["--bench"]])
def test_optimize_in_place(small: Path, bench: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    run(capsys, "optimize", small, small, *bench)
    assert operators(small) == ["Relu"]
    assert [path.name for path in small.parent.iterdir()] == ["small.onnx"]


def test_optimize_quiet(small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "optimize", small, tmp_path / "out.onnx", "-q") == ("", "")


def test_optimize_verbose_names_the_steps(small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, err = run(capsys, "optimize", small, tmp_path / "out.onnx", "-v")
    assert err.splitlines()[0] == "load"
    assert "verify" in err


def test_optimize_selects_passes(small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "out.onnx"
    run(capsys, "optimize", small, target, "--passes", "eliminate-dead-nodes")
    assert operators(target) == ["Identity", "Relu", "Identity"]
    run(capsys, "optimize", small, target, "--skip", "eliminate-identity,eliminate-dead-nodes")
    assert operators(target) == ["Identity", "Relu", "Identity"]
    report = run_json(capsys, "optimize", small, target, "--exact", "--no-validate")
    assert {one["safety"] for one in report["passes"]} == {"exact"}
    assert report["status"] == "unverified"


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--passes", "eliminate-identty"], 2, "eliminate-identity"),
        (["--skip", "nonsense"], 2, "nonsense"),
        (["--target", "ort-tpu"], 2, "ort-tpu"),
        (["--input-shape", "nope:1,2"], 2, "nope"),
        (["--provider", "nonsense"], 8, "nonsense"),
        (["--inputs", "missing.npz"], 3, "missing.npz"),
    ],
)
def test_optimize_refuses(
    arguments: list[str], code: int, words: str, small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "out.onnx"
    _, err = run(capsys, "optimize", small, target, *arguments, code=code)
    assert err.startswith("error: ")
    assert words in err
    assert not target.exists()


def test_missing_and_broken_models(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_text("this is no model")
    for model in (tmp_path / "missing.onnx", broken, tmp_path):
        for command in ("optimize", "extract"):
            _, err = run(capsys, command, model, tmp_path / "out.onnx", code=3)
            assert err.startswith("error: ")
        run(capsys, "inspect", model, code=3)
        run(capsys, "bench", model, code=3)
        run(capsys, "validate", model, model, code=3)


def test_unproven_has_its_own_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = parse("""<ir_version: 10, opset_import: ["" : 21, "nobody.has.this" : 1]>
    agraph (float[4] x) => (float[4] y) {
        a = Identity (x)
        y = nobody.has.this.Mystery (a)
    }""")
    source, target = tmp_path / "in.onnx", tmp_path / "out.onnx"
    graphopt.save(model, source)
    report = run_json(capsys, "optimize", source, target, code=6)
    assert report["status"] == "unproven"
    assert operators(target) == ["Mystery"]
    run(capsys, "optimize", source, tmp_path / "strict.onnx", "--strict", code=5)
    assert not (tmp_path / "strict.onnx").exists()
    run(capsys, "validate", source, target, code=6)


def test_validate_tells_equal_from_different(small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = tmp_path / "other.onnx"
    graphopt.save(parse(PADDED.replace("Relu", "Neg")), other)
    assert run_json(capsys, "validate", small, small)["status"] == "equal"
    assert run_json(capsys, "validate", small, other, code=5)["status"] == "different"
    out, _ = run(capsys, "validate", small, other, code=5)
    assert "y" in out


def test_validate_on_the_users_inputs(small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = tmp_path / "other.onnx"
    graphopt.save(parse(PADDED.replace("Relu", "Abs")), other)
    feeds = tmp_path / "feeds.npz"
    np.savez(feeds, x=np.ones((2, 4), np.float32))
    run(capsys, "validate", small, other, code=5)
    run(capsys, "validate", small, other, "--inputs", feeds)


def test_bench(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("bench", small, small, "--runs", "5", "--min-time", "0", "--input-shape", "x:2,4", "--threads", "1")
    out, _ = run(capsys, *arguments)
    assert "small" in out
    table = run_json(capsys, *arguments)
    assert len(table["models"]) == 2
    assert table["settings"]["shapes"] == {"x": [2, 4]}


def test_inspect(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = run(capsys, "inspect", models / "magika.onnx")
    assert "MatMul" in out
    found = run_json(capsys, "inspect", models / "magika.onnx")
    assert found["inputs"][0]["name"] == "bytes"


def test_extract(small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "part.onnx"
    found = run_json(capsys, "extract", small, target, "--inputs", "a", "--outputs", "b")
    assert (found["inputs"], found["outputs"], found["nodes"]) == (["a"], ["b"], 1)
    assert operators(target) == ["Relu"]
    out, _ = run(capsys, "extract", small, target, "--outputs", "b")
    assert "2 of 3 nodes" in out


def test_names_with_colons_and_slashes(models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = tmp_path / "basic_pitch.onnx"
    shutil.copy(models / "basic_pitch.onnx", model)
    shape = "serving_default_input_2:0:1,43844,1"
    report = run_json(capsys, "optimize", model, tmp_path / "out.onnx", "--input-shape", shape)
    assert report["status"] == "proven"
    assert report["after"]["nodes"] < report["before"]["nodes"]
