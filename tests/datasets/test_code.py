"""Data from a function."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import parse

from graphopt.datasets import bind, open_dataset
from graphopt.errors import ModelError, UsageError

MODEL = parse("agraph (float[N,4] a) => (float[N,4] b) { b = Identity(a) }")
CODE = """
import numpy as np

def arrays():
    return {"a": np.full((5, 4), 6, np.float32), "y": np.arange(5)}

def feeds():
    for size in (3, 2):
        yield {"a": np.ones((size, 4), np.float32)}

def nothing():
    return None

def empty():
    return []

def broken():
    raise KeyError("of the user's own making")

number = 3
"""


@pytest.fixture(autouse=True)
def _module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "my_data_for_tests.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)
    yield
    assert sys.path == before
    sys.modules.pop("my_data_for_tests", None)


def test_arrays() -> None:
    bound = bind("my_data_for_tests:arrays:scale=3", MODEL)
    assert (next(bound.batches())["a"] == 2).all()
    assert bound.labels is not None
    assert bound.labels.tolist() == [0, 1, 2, 3, 4]
    assert bound.name == "my_data_for_tests:arrays"


def test_feeds() -> None:
    assert [feeds["a"].shape for feeds in bind("my_data_for_tests:feeds", MODEL).batches()] == [(3, 4), (2, 4)]
    with pytest.raises(UsageError, match="no options apply"):
        open_dataset("my_data_for_tests:feeds:scale=2")


@pytest.mark.parametrize(
    ("spec", "kind", "match"),
    [
        ("my_data_for_tests:nothing", ModelError, "gives NoneType"),
        ("my_data_for_tests:empty", ModelError, "no samples"),
        ("my_data_for_tests:number", UsageError, "is no function"),
        ("my_data_for_tests:absent", UsageError, "cannot be imported"),
        ("no_such_module_here:f", UsageError, "cannot be imported"),
        ("my_data_for_tests", ModelError, "there are no such data"),
    ],
)
def test_what_is_no_data(spec: str, kind: type[Exception], match: str) -> None:
    with pytest.raises(kind, match=match):
        open_dataset(spec)


def test_errors_of_the_code_are_shown_as_they_are() -> None:
    with pytest.raises(KeyError, match="own making"):
        open_dataset("my_data_for_tests:broken")
