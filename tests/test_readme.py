"""What the README shows works as shown."""

from __future__ import annotations

import functools
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from harness import parse

import graphopt
from graphopt.cli.main import COMMANDS, main
from graphopt.compression import clock
from graphopt.errors import ExitCode
from graphopt.pruning.latency.table import LatencyTable

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")
_CLASSIFIER = """agraph (float[N,1,8,8] x) => (float[N,10] y) {
    a = Flatten (x)
    b = MatMul (a, w)
    c = Relu (b)
    y = MatMul (c, v)
}"""
_MODULE = """
import torch
SmallNet = lambda: torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
"""
SHOWN = re.findall(r"^\$ graphopt ([^#\n]+)", README, re.MULTILINE)


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the models that the README speaks of, inputs for them, and a plan."""
    model = graphopt.load(ROOT / "models" / "magika.onnx")
    next(node for node in model.graph if node.op_type == "Conv").name = "LAYER"
    for name in ("model.onnx", "masked.onnx"):
        graphopt.save(model, tmp_path / name)
    inputs = np.random.default_rng(0).integers(0, 257, (2, 2048), dtype=np.int32)
    np.savez(tmp_path / "inputs.npz", bytes=inputs)
    _classroom(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(clock, "_SECONDS", 0.05)  # rough, and quickly measured
    monkeypatch.setattr(LatencyTable, "measure", functools.partial(LatencyTable.measure, max_seconds=1.0))
    return tmp_path


def _classroom(folder: Path) -> None:
    """A teacher, a student and data of digits, and a module of the user's."""
    random = np.random.default_rng(0)
    shapes = {"w": (64, 16), "v": (16, 10)}
    teacher = parse(_CLASSIFIER, {name: random.standard_normal(one).astype(np.float32) for name, one in shapes.items()})
    for name in ("teacher.onnx", "pruned.onnx"):
        graphopt.save(teacher, folder / name)
    for name, count in (("train", 96), ("test", 32)):
        images = random.standard_normal((count, 1, 8, 8)).astype(np.float32)
        np.savez(folder / f"{name}.npz", x=images, y=random.integers(0, 10, count))
    (folder / "my_models.py").write_text(_MODULE)


@pytest.mark.parametrize("line", SHOWN)
def test_command_line(line: str, workplace: Path) -> None:
    words = shlex.split(line)
    if "--from-plan" in words:
        how: dict[str, Any] = {"importance": "l2", "reconstruct": False, "with_report": True}
        graphopt.prune("model.onnx", "macs=0.5", "inputs.npz", **how)[1].plan.save("plan.json")
    if words[0] == "compress":  # noise cannot be learnt, and need not be
        words += ["--best-effort", "--skip", "distill,sensitivity", "--threads", "1"]
    expected = (ExitCode.OK, ExitCode.INFEASIBLE, ExitCode.HARMFUL) if words[0] == "compress" else (ExitCode.OK,)
    assert main([*words, "-q"]) in expected
    written = [
        word
        for word in words
        if word in ("smaller.onnx", "group.svg", "student.onnx", "small.onnx", "tuned.onnx", "int8.onnx")
    ]
    assert written or words[0] == "inspect"
    assert all((workplace / name).is_file() for name in written)


def test_python(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    blocks = re.findall(r"```python\n(import graphopt.*?)```", README, re.DOTALL)
    assert len(blocks) == 5
    x = np.load(workplace / "inputs.npz")["bytes"]
    batches = [(torch.from_numpy(x), torch.tensor([1, 2]))]
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {"batches": batches})
        (written,) = [workplace / name for name in ("smaller.onnx", "tuned.onnx") if (workplace / name).is_file()]
        written.unlink()
    assert "Proven equal" in capsys.readouterr().out


def test_every_command_and_exit_code_is_documented() -> None:
    assert set(re.findall(r"^\| `graphopt (\w+)", README, re.MULTILINE)) == set(COMMANDS)
    assert {int(code) for code in re.findall(r"^\| (\d+) \|", README, re.MULTILINE)} == set(ExitCode)


def test_links_lead_somewhere() -> None:
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "models" / "README.md"):
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text("utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
