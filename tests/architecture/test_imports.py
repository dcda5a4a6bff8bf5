"""Who may import what, and that nothing heavy loads before it is needed."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "graphopt").rglob("*.py"))
PASSES = sorted((ROOT / "passes").rglob("*.py"))
HEAVY = ("numpy", "onnx", "onnx_ir", "onnxruntime", "onnx_graphsurgeon", "rich", "torch")


def imports(path: Path) -> Iterator[tuple[str, bool]]:
    """Each module that ``path`` imports at run time, and whether it does so when it is itself imported."""
    yield from _imports(ast.parse(path.read_text("utf-8")), at_import=True)


def _imports(tree: ast.AST, *, at_import: bool) -> Iterator[tuple[str, bool]]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, at_import) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield str(node.module), at_import
        elif isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            continue
        else:
            inside = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from _imports(node, at_import=at_import and not inside)


def top(module: str) -> str:
    return module.partition(".")[0]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_core_keeps_the_law(path: Path) -> None:
    place = path.relative_to(ROOT / "graphopt").parts[0]
    found = list(imports(path))
    assert not [module for module, _ in found if top(module) == "graphopt_passes"], "the core names no pass"
    if place != "interop" and not place.startswith("proto"):
        assert not [module for module, _ in found if top(module) == "onnx"], "protobuf stays behind graphopt.proto"
    if place not in ("torch", "distillation"):
        assert not [module for module, _ in found if top(module) == "torch"], "torch is only for training"


@pytest.mark.parametrize("path", PASSES, ids=lambda path: str(path.relative_to(ROOT)))
def test_passes_touch_neither_protobuf_nor_torch(path: Path) -> None:
    assert not [module for module, _ in imports(path) if top(module) in ("onnx", "torch")]


def test_graphopt_and_its_command_group_load_nothing_heavy() -> None:
    code = "import graphopt, graphopt.cli.main, sys, json; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not set(json.loads(done.stdout)) & set(HEAVY)


def test_optimizing_does_not_load_torch() -> None:
    code = "import graphopt.optimizer, graphopt_passes, sys; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
