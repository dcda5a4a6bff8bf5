"""The wheel is complete, and anyone's pass package takes part by name."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import onnx_ir as ir
import pytest

import graphopt

PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
OFFLINE = ["--no-index", "--no-deps", "--no-build-isolation"]


def run(*command: str | Path, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    if path is not None:
        environment["PYTHONPATH"] = str(path)
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, env=environment, check=False)


@pytest.fixture(scope="module")
def third_party(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which pip installed the example package."""
    target = tmp_path_factory.mktemp("site")
    done = run(*PIP, "install", *OFFLINE, "--target", target, root / "tests/data/third_party_passes")
    assert done.returncode == 0, done.stderr
    return target


@pytest.fixture
def negations(tmp_path: Path) -> Path:
    """A model with two Neg nodes in a row."""
    x = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([3]))
    first = ir.node("Neg", [x], name="first")
    second = ir.node("Neg", [first.outputs[0]], name="second")
    last = ir.node("Abs", [second.outputs[0]], name="last")
    last.outputs[0].name = "y"
    last.outputs[0].type, last.outputs[0].shape = x.type, x.shape
    nodes = [first, second, last]
    model = ir.Model(ir.Graph([x], last.outputs, nodes=nodes, opset_imports={"": 17}, name="negations"), ir_version=8)
    path = tmp_path / "in.onnx"
    graphopt.save(model, path)
    return path


def graphopt_command(*arguments: str | Path, path: Path) -> subprocess.CompletedProcess[str]:
    return run(sys.executable, "-P", "-m", "graphopt", *arguments, path=path)


def test_third_party_pass_is_listed(third_party: Path) -> None:
    done = graphopt_command("passes", "--json", path=third_party)
    cards = {card["name"]: card for card in json.loads(done.stdout)}
    assert cards["eliminate-double-negation"]["module"] == "tidy_passes.eliminate_double_negation"
    assert cards["eliminate-double-negation"]["options"][0]["name"] == "limit"
    assert "eliminate-identity" in cards


def test_third_party_pass_runs_by_name(third_party: Path, negations: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.onnx"
    done = graphopt_command(
        "optimize", negations, output, "--passes", "eliminate-double-negation", "--json", path=third_party
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["passes"] == [{"name": "eliminate-double-negation", "safety": "exact", "count": 1}]
    assert report["status"] == "proven"
    assert [node.op_type for node in graphopt.load(output).graph] == ["Abs"]


def test_third_party_pass_takes_options(third_party: Path, negations: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.onnx"
    spec = "eliminate-double-negation:limit=0"
    done = graphopt_command("optimize", negations, output, "--passes", spec, "--explain", path=third_party)
    assert done.returncode == 0, done.stderr
    assert "the limit is 0" in done.stdout
    assert len(list(graphopt.load(output).graph)) == 3


def test_broken_pass_package_is_named(third_party: Path, tmp_path: Path) -> None:
    information = tmp_path / "wrecked-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: wrecked\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text("[graphopt.passes]\nwrecked = wrecked_passes:CATALOGUE\n")
    done = graphopt_command("doctor", "--json", path=tmp_path)
    assert done.returncode == 8
    assert any("wrecked" in problem for problem in json.loads(done.stdout)["problems"])


def test_wheel_holds_both_packages(root: Path, tmp_path: Path) -> None:
    done = run(*PIP, "wheel", *OFFLINE, "--wheel-dir", tmp_path, root)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("graphopt-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        archive.extractall(tmp_path / "site")
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"graphopt", "graphopt_passes"}
    assert {"graphopt/py.typed", "graphopt_passes/py.typed"} <= set(names)
    assert {f"graphopt/reporting/templates/{name}" for name in ("report.html.j2", "style.css")} <= set(names)

    code = "import graphopt, graphopt_passes; print(graphopt.__file__); print(graphopt_passes.__file__)"
    done = run(sys.executable, "-P", "-c", code, path=tmp_path / "site")
    assert done.returncode == 0, done.stderr
    assert all(line.startswith(str(tmp_path)) for line in done.stdout.splitlines())
    done = graphopt_command("passes", path=tmp_path / "site")
    assert "eliminate-identity" in done.stdout, done.stderr
