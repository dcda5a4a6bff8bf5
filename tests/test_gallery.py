"""The recipes that ship: each one runs, and does what it says."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import graphopt
from graphopt.cli.main import main
from graphopt.cli.recipes import Step

ROOT = Path(__file__).parents[1]
RECIPES = ROOT / "models" / "recipes"
FILES = sorted(path.name for path in RECIPES.iterdir() if path.suffix in (".toml", ".py", ".yml"))


@pytest.fixture
def gallery(tmp_path: Path) -> Path:
    """A copy of the recipes, beside the models that they speak of."""
    folder = tmp_path / "models" / "recipes"
    folder.mkdir(parents=True)
    for name in FILES:
        shutil.copy(RECIPES / name, folder)
    for name in sorted(set(re.findall(r"\.\./(\w+\.onnx)", "".join(path.read_text() for path in folder.iterdir())))):
        shutil.copy(ROOT / "models" / name, folder.parent)
    return folder


def loaded(path: Path) -> ModuleType:
    """A script, as a module."""
    found = importlib.util.spec_from_file_location(path.stem, path)
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def _is_optimized(steps: Any) -> None:
    assert steps[0]["status"] == "proven"
    assert steps[0]["after"]["nodes"] < 0.6 * steps[0]["before"]["nodes"]
    assert [one["name"] for one in steps[1]["models"]] == ["ppocrv2_cls", "optimized"]


def _is_pruned(steps: Any) -> None:
    assert steps[0]["after"]["macs"] <= 0.5 * steps[0]["before"]["macs"]
    assert steps[0]["proof"] == "proven"


def _is_quantized(step: Any) -> None:
    assert step["after"]["bytes"] < 0.3 * step["before"]["bytes"]


def _is_compressed(steps: Any) -> None:
    assert steps[0]["verdict"]["met"]
    assert steps[0]["after"]["latency_ms"] <= 0.505 * steps[0]["before"]["latency_ms"]
    assert steps[0]["before"]["score"] - steps[0]["after"]["score"] <= 0.01
    assert all(check["passed"] for check in steps[0]["checks"])


def _is_distilled(steps: Any) -> None:
    teacher, *_, student = steps[0]["models"]
    assert student["macs"] <= 0.25 * teacher["macs"]
    assert student["scores"]["accuracy"] > 0.98


RUNS: dict[str, tuple[list[str], Callable[[Any], None], list[str]]] = {
    "optimize.toml": (["bench.runs=2"], _is_optimized, ["optimized.onnx"]),
    "prune.toml": (["prune.samples=128", "bench.runs=2"], _is_pruned, ["pruned.onnx", "plan.json"]),
    "quantize.toml": (["samples=128"], _is_quantized, ["int8.onnx"]),
    "compress.toml": (
        ["samples=400", "bench.runs=2"],
        _is_compressed,
        ["compressed.onnx", "compressed.html", "compressed.json"],
    ),
    "distill.toml": (["distill.epochs=1", "bench.runs=2"], _is_distilled, ["student.onnx"]),
}
"""For each recipe: what is set to make it short, what its JSON must say, and what it writes."""
SLOW = ("compress.toml", "distill.toml")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in sorted(RUNS)]
)
def test_recipe_runs(name: str, gallery: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings, check, written = RUNS[name]
    words = [word for one in settings for word in ("--set", one)]
    assert main(["run", str(gallery / name), "--json", *words]) == 0
    check(json.loads(capsys.readouterr().out))
    assert all((gallery / one).stat().st_size for one in written)
    assert sorted(path.name for path in gallery.iterdir()) == sorted([*FILES, *written])


@pytest.mark.parametrize("name", [name for name in FILES if name.endswith(".toml")])
def test_recipe_makes_sense(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Also where it is too slow to run: its keys and values are those that the commands take."""
    assert name in RUNS
    assert main(["run", str(RECIPES / name), "--dry-run"]) == 0
    shown = re.findall(rf"graphopt run (models/recipes/{name}.*)", (RECIPES / name).read_text("utf-8"))
    assert shown
    capsys.readouterr()
    for line in shown:
        path, *words = line.split()
        assert main(["run", str(ROOT / path), *words, "--dry-run"]) == 0
        out = capsys.readouterr().out
        assert all(one.partition("=")[2] in out for one in words if one != "--set")


def test_every_recipe_is_listed() -> None:
    listed = re.findall(r"^\| \[(\S+)\]\(\1\)", (RECIPES / "README.md").read_text("utf-8"), re.MULTILINE)
    assert sorted(listed) == FILES


@pytest.mark.slow
def test_python_example(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    report = loaded(RECIPES / "after_export.py").main(tmp_path / "small.onnx")
    assert report.is_met
    assert report.audit.checks[0].before > 0.95
    assert report.after.macs <= 0.3 * report.before.macs
    assert "</html>" in (tmp_path / "small.html").read_text("utf-8")
    assert [value.name for value in graphopt.load(tmp_path / "small.onnx").graph.inputs] == ["image"]


def test_ci_example(capsys: pytest.CaptureFixture[str]) -> None:
    yaml = pytest.importorskip("yaml")
    ((_, job),) = yaml.safe_load((RECIPES / "ci.yml").read_text("utf-8"))["jobs"].items()
    install, run = (step["run"] for step in job["steps"] if "run" in step)
    assert install.startswith("pip install 'graphopt[")
    words, _, results = run.removeprefix("graphopt run ").partition(" > ")
    recipe, *options = words.split()
    assert main(["run", str(ROOT / recipe), *options, "--dry-run"]) == 0
    lines = json.loads(capsys.readouterr().out)
    upload = job["steps"][-1]
    assert upload["if"] == "always()"
    published = upload["with"]["path"].split()
    assert published.pop() == results
    assert {Path(one).name for one in published} <= set(lines[0])
    assert {str(Path(one).parent) for one in published} == {str(Path(recipe).parent)}


def test_demo_makes_sense() -> None:
    """The commands of ``make demo`` are ones that there are, on files that are there by then."""
    shown = re.findall(
        r"call shown,graphopt (.*?)\)$", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE | re.DOTALL
    )
    steps = [
        Step("make demo", name, tuple(words)) for name, *words in (one.replace("\\\n", "").split() for one in shown)
    ]
    compress, bench = (step.parsed(None).params for step in steps)
    assert bench["models"] == (compress["model"], compress["output"])
    assert (ROOT / compress["model"]).is_file()
    assert compress["report"]
