"""One name everywhere: the pass, its file, its class, its test; and no public function hides a module."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from graphopt_passes import CATALOGUE

import graphopt
from graphopt.pipeline import registry
from graphopt.pipeline.registry import Entry

ROOT = Path(__file__).parents[2]
LIBRARY = ROOT / "passes" / "graphopt_passes"
VERBS = {
    "convert", "deduplicate", "drop", "eliminate", "fix", "fold", "fuse", "hoist", "inline", "merge", "prune", "reduce",
    "remove", "simplify", "sink", "sparsify",
}  # fmt: skip
"""How a pass name may begin. A new verb is fine where none of these says it; it is added here."""


@pytest.mark.parametrize(("name", "entry"), CATALOGUE.items(), ids=CATALOGUE)
def test_pass_has_one_name(name: str, entry: Entry) -> None:
    stem = name.replace("-", "_")
    assert name.split("-")[0] in VERBS
    assert entry.module == f"graphopt_passes.{stem}"
    assert entry.class_name.casefold() == name.replace("-", "").casefold()
    assert registry.load_class(name).name == name
    assert (ROOT / "tests" / "passes" / f"test_{stem}.py").is_file()


@pytest.mark.parametrize(("name", "entry"), CATALOGUE.items(), ids=CATALOGUE)
def test_docstring_has_the_headings(name: str, entry: Entry) -> None:
    lines = (registry.load_class(name).__doc__ or "").splitlines()
    headings = [line.strip().rstrip(":") for line in lines if line.startswith("    ") and line.rstrip().endswith(":")]
    wanted = ["What it does", "Before", "After", "Does not apply when", "Safety"]
    assert [heading for heading in headings if heading in wanted] == wanted


def test_every_pass_file_is_in_the_catalogue() -> None:
    files = {path.stem for path in LIBRARY.glob("*.py") if not path.stem.startswith("_")}
    assert files == {entry.module.rpartition(".")[2] for entry in CATALOGUE.values()}


@pytest.mark.parametrize("name", graphopt.__all__)
def test_public_name_exists_and_hides_no_module(name: str) -> None:
    package = ROOT / "graphopt"
    assert getattr(graphopt, name) is getattr(graphopt, name)
    if callable(getattr(graphopt, name)):
        assert not (package / name).is_dir()
        assert not (package / f"{name}.py").exists()


def test_public_names_are_listed() -> None:
    assert set(graphopt.__all__) <= set(dir(graphopt))
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = graphopt.nonsense


@pytest.mark.parametrize("folder", ["graphopt", "passes"])
def test_no_class_is_called_manager_or_utils(folder: str) -> None:
    for path in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ClassDef):
                assert not node.name.endswith(("Manager", "Utils", "Helper")), f"{path}: {node.name}"
