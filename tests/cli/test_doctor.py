"""``graphopt doctor``."""

from __future__ import annotations

import json
from typing import Any

import pytest

from graphopt.cli import doctor
from graphopt.cli.main import main


def findings(capsys: pytest.CaptureFixture[str], code: int) -> dict[str, Any]:
    assert main(["doctor", "--json"]) == code
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def with_versions(monkeypatch: pytest.MonkeyPatch, **changes: str | None) -> None:
    real = doctor._version
    names = {name.replace("_", "-"): version for name, version in changes.items()}
    monkeypatch.setattr(doctor, "_version", lambda package: names[package] if package in names else real(package))


def test_sound_installation(capsys: pytest.CaptureFixture[str]) -> None:
    found = findings(capsys, 0)
    assert found["problems"] == []
    assert found["providers"]["CPUExecutionProvider"] == "works"
    assert found["packages"]["onnx"]
    assert found["passes"]


def test_two_runtimes_side_by_side(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with_versions(monkeypatch, onnxruntime="1.0", onnxruntime_gpu="1.0")
    (problem,) = findings(capsys, 8)["problems"]
    assert problem.startswith("onnxruntime and onnxruntime-gpu are installed side by side")


def test_missing_package(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with_versions(monkeypatch, rich=None)
    found = findings(capsys, 8)
    assert found["problems"] == ["rich is not installed; run 'pip install graphopt' again"]
    assert found["packages"]["rich"] == "missing"


def test_no_runtime(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with_versions(monkeypatch, **dict.fromkeys([name.replace("-", "_") for name in doctor._RUNTIMES]))
    found = findings(capsys, 8)
    assert found["problems"] == ["onnxruntime is not installed; run 'pip install graphopt' again"]
    assert found["providers"] == {}


def test_import_that_fails(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(doctor._REQUIRED, "rich", "rich_that_is_broken")
    (problem,) = findings(capsys, 8)["problems"]
    assert problem == "'import rich_that_is_broken' fails: ModuleNotFoundError: No module named 'rich_that_is_broken'"


def test_import_that_takes_the_process_with_it() -> None:
    assert doctor._run("import os; os.abort()")[1] == "the process ends with code -6"


def test_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert "Everything works." in out
    assert "onnx-ir" in out


def test_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "-q"]) == 0
    assert capsys.readouterr().out == ""
