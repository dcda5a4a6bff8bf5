"""Recipes in TOML."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from distillation.school import data, student, teacher

import graphopt
from graphopt.distillation import recipe
from graphopt.errors import ModelError, UsageError


def write(folder: Path, text: str) -> Path:
    path = folder / "recipe.toml"
    path.write_text(text, "utf-8")
    return path


def test_the_one_of_the_docstring(tmp_path: Path) -> None:
    shown = re.search(r"toml\n\n(.*?)\n\n\S", recipe.__doc__ or "", re.DOTALL)
    assert shown is not None
    (tmp_path / "train.npz").touch()
    (tmp_path / "test.npz").touch()
    assert recipe.read(write(tmp_path, "\n".join(map(str.strip, shown[1].splitlines())))) == {
        "teacher": (str(tmp_path / "teacher.onnx"),),
        "student": "shrink:macs=0.25",
        "data": str(tmp_path / "train.npz"),
        "evaluation": str(tmp_path / "test.npz"),
        "loss": "kd:temperature=4:weight=0.9+ce:weight=0.1",
        "epochs": 20,
        "output": tmp_path / "student.onnx",
    }


def test_is_what_the_library_takes(tmp_path: Path) -> None:
    graphopt.save(teacher(), tmp_path / "t.onnx")
    graphopt.save(student(), tmp_path / "s.onnx")
    np.savez(tmp_path / "d.npz", **data(60))
    text = 'teacher = "t.onnx"\nstudent = "s.onnx"\ndata = "d.npz"\nepochs = 1\nlearning_rate = 1\ncache = false\n'
    _, report = graphopt.distill(**recipe.read(write(tmp_path, text)), with_report=True)
    assert len(report.records) == 1
    assert report.cached == 0


@pytest.mark.parametrize(
    ("line", "parameter", "value"),
    [
        ('teacher = ["a.onnx", "/b.onnx"]', "teacher", ("HERE/a.onnx", "/b.onnx")),
        ('student = "s.onnx"', "student", "HERE/s.onnx"),
        ('student = "module:factory"', "student", "module:factory"),
        ('data = "there.npz:scale=255"', "data", "HERE/there.npz:scale=255"),
        ('data = "digits"', "data", "digits"),
        ('eval = "mnist:split=test"', "evaluation", "mnist:split=test"),
        ('data = "module:function"', "data", "module:function"),
        ('augment = ["shift:pixels=1", "flip"]', "augment", "shift:pixels=1+flip"),
        ("teacher-weights = [0.7, 1]", "teacher_weights", (0.7, 1)),
        ('teacher_weights = "sample"', "teacher_weights", "sample"),
        ("learning-rate = 3e-4", "learning_rate", 3e-4),
        ("top_k = 5", "top_k", 5),
        ("dry-run = true", "dry_run", True),
        ('run-directory = "run"', "run_directory", Path("HERE/run")),
        ('log-to = ["tensorboard:logs", "wandb:p"]', "log_to", ("tensorboard:HERE/logs", "wandb:p")),
    ],
)
def test_values(line: str, parameter: str, value: Any, tmp_path: Path) -> None:
    (tmp_path / "there.npz").touch()
    found = recipe.read(write(tmp_path, line))
    here = str(tmp_path)

    def placed(one: Any) -> Any:
        if isinstance(one, tuple):
            return tuple(map(placed, one))
        return type(one)(str(one).replace("HERE", here)) if isinstance(one, str | Path) else one

    if isinstance(value, Path):
        value = Path(str(value).replace("HERE", here))
    assert found == {parameter: value if isinstance(value, Path) else placed(value)}


@pytest.mark.parametrize(
    ("text", "words", "hint"),
    [
        ("epoch = 3", "no key 'epoch'", "'epochs'"),
        ('epochs = "3"', "'epochs' cannot be '3'", "a whole number"),
        ("epochs = true", "'epochs' cannot be True", "a whole number"),
        ("epochs = 2.5", "'epochs' cannot be 2.5", "a whole number"),
        ("cache = 1", "'cache' cannot be 1", "true or false"),
        ("clip = false", "'clip' cannot be False", "a number"),
        ("loss = []", "'loss' cannot be []", "a list of the terms"),
        ('loss = ["kd", 1]', "'loss' cannot be", "a list of the terms"),
        ("teacher = []", "'teacher' cannot be []", "a path"),
        ('student = ""', "'student' cannot be ''", "shrink"),
        ("teacher-weights = [true]", "'teacher-weights' cannot be [True]", "sample"),
        ("top-k = 1\ntop_k = 2", "'top-k' is there twice", "one"),
        ("[training]\nepochs = 3", "no key 'training'", ""),
    ],
)
def test_what_makes_no_sense(text: str, words: str, hint: str, tmp_path: Path) -> None:
    path = write(tmp_path, text)
    with pytest.raises(UsageError) as caught:
        recipe.read(path)
    assert str(path) in caught.value.message
    assert words in caught.value.message
    assert hint in caught.value.hint


def test_what_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot read the recipe"):
        recipe.read(tmp_path / "no.toml")
    with pytest.raises(ModelError, match=r"is no TOML: .*line 1"):
        recipe.read(write(tmp_path, "loss = kd"))
    (tmp_path / "recipe.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ModelError, match="is no TOML"):
        recipe.read(tmp_path / "recipe.toml")
