"""``graphopt explain`` and ``graphopt inspect --groups``, as a user meets them."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
from channels.examples import residual

import graphopt
from graphopt.cli.main import main


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "residual.onnx"
    graphopt.save(residual(), path)
    return path


def run(capsys: pytest.CaptureFixture[str], *arguments: str | Path, code: int = 0) -> tuple[str, str]:
    assert main([str(argument) for argument in arguments]) == code
    captured = capsys.readouterr()
    return captured.out, captured.err


def run_json(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> Any:
    return json.loads(run(capsys, *arguments, "--json")[0])


def test_explain(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, err = run(capsys, "explain", model, "conv1")
    assert "Add 'add_3' adds them" in out
    assert "part of the model's input 'x'" in out
    assert err == ""
    out, _ = run(capsys, "explain", model, "w5")
    assert "Softmax 'softmax' looks along it" in out


def test_explain_json(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = run_json(capsys, "explain", model, "fc")
    assert found["channels"][0]["frozen"]["operator"] == "Softmax"


def test_explain_quiet(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "explain", model, "conv1", "-q", "--svg", tmp_path / "g.svg") == ("", "")
    assert (tmp_path / "g.svg").is_file()


def test_drawings_are_written(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    svg, dot = tmp_path / "group.svg", tmp_path / "group.dot"
    svg.write_text("old")
    out, _ = run(capsys, "explain", model, "conv1", "--svg", svg, "--dot", dot)
    assert f"wrote {svg}" in out
    assert ET.fromstring(svg.read_text("utf-8")).tag.endswith("svg")
    assert "add_3" in dot.read_text("utf-8")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["group.dot", "group.svg", "residual.onnx"]
    run(capsys, "explain", model, "conv1", "--svg", svg, "--part", "2")
    assert "model input" in svg.read_text("utf-8")


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["con1"], 2, "conv1"),
        (["conv1", "--part", "9", "--svg", "g.svg"], 2, "no part 9"),
        (["conv1", "--part", "0"], 2, "--part"),
        (["conv1", "--granularity", "halves"], 2, "--granularity"),
        (["conv1", "--svg", "missing/g.svg"], 4, "there is no folder"),
        (["conv1", "--dot", "."], 4, "it is a folder"),
        (["conv1", "--svg", "residual.onnx"], 4, "replace the model"),
        (["conv1", "--svg", "g", "--dot", "./g"], 4, "replace the model or the other drawing"),
        ([], 2, "NODE"),
    ],
)
def test_explain_refuses(
    arguments: list[str],
    code: int,
    words: str,
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    out, err = run(capsys, "explain", model, *arguments, code=code)
    assert err.startswith("error: ")
    assert words in err
    assert out == ""
    assert [path.name for path in tmp_path.iterdir()] == ["residual.onnx"]


def test_missing_and_broken_models(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_text("this is no model")
    for path in (tmp_path / "missing.onnx", broken, tmp_path):
        for arguments in (("explain", path, "conv1"), ("inspect", path, "--groups")):
            _, err = run(capsys, *arguments, code=3)
            assert err.startswith("error: ")


def test_groups(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = run(capsys, "inspect", model, "--groups")
    assert "3 groups of 18 channels or heads" in out
    assert "Softmax 'softmax' looks along it" in out
    found = run_json(capsys, "inspect", model, "--groups")
    assert found["schema"] == "graphopt.channels/1"
    assert [group["units"] for group in found["groups"]] == [8, 4, 6]


def test_groups_of_other_granularity(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shipped = root / "models" / "magika.onnx"
    assert run_json(capsys, "inspect", shipped, "--groups", "--granularity", "head-dim")["granularity"] == "head-dim"
    _, err = run(capsys, "inspect", shipped, "--granularity", "head-dim", code=2)
    assert "--groups" in err
    _, err = run(capsys, "inspect", shipped, "--groups", "--input-shape", "bytes:1,2048", code=2)
    assert "--input-shape" in err


@pytest.mark.parametrize("name", ["magika", "ppocrv2_cls", "silero_vad"])
def test_shipped_models(name: str, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shipped = root / "models" / f"{name}.onnx"
    found = run_json(capsys, "inspect", shipped, "--groups")
    assert found["groups"]
    for group in (found["groups"][0], found["groups"][-1]):
        told = run_json(capsys, "explain", shipped, group["nodes"][0]["node"], "--svg", tmp_path / "g.svg")
        assert group["index"] in [part["group"] for part in told["channels"]]
        ET.fromstring((tmp_path / "g.svg").read_text("utf-8"))


def test_explain_does_not_draw_over_the_weights(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    graphopt.save(graphopt.load(model), "outside.onnx", external_data=True, size_threshold=1)
    before = Path("outside.onnx.data").read_bytes()
    assert main(["explain", "outside.onnx", "conv1", "--svg", "outside.onnx.data"]) == 4
    assert "replace the weights" in capsys.readouterr().err
    assert Path("outside.onnx.data").read_bytes() == before
