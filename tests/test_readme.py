"""What the README shows works as shown."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest

from graphopt.cli.main import COMMANDS, main
from graphopt.errors import ExitCode

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")
SHOWN = re.findall(r"^\$ graphopt ([^#\n]+)", README, re.MULTILINE)


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the model that the README speaks of."""
    shutil.copy(ROOT / "models" / "magika.onnx", tmp_path / "model.onnx")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("line", SHOWN)
def test_command_line(line: str, workplace: Path) -> None:
    assert main([*shlex.split(line), "-q"]) == ExitCode.OK
    assert (workplace / "smaller.onnx").is_file()


def test_python(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    block = re.findall(r"```python\n(import graphopt.*?)```", README, re.DOTALL)[0]
    exec(compile(block, "README.md", "exec"), {})
    assert "Proven equal" in capsys.readouterr().out
    assert (workplace / "smaller.onnx").is_file()


def test_every_command_and_exit_code_is_documented() -> None:
    assert set(re.findall(r"^\| `graphopt (\w+)", README, re.MULTILINE)) == set(COMMANDS)
    assert {int(code) for code in re.findall(r"^\| (\d+) \|", README, re.MULTILINE)} == set(ExitCode)


def test_links_lead_somewhere() -> None:
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "models" / "README.md"):
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text("utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
