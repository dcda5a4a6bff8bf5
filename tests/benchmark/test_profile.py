"""Times of nodes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from harness import parse

import graphopt
from graphopt.benchmark.profile import node_times
from graphopt.errors import ModelError, SaveError


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model whose first product takes most of the time."""
    random = np.random.default_rng(0)
    weights = {
        name: random.standard_normal(shape).astype(np.float32) for name, shape in (("w", (512, 512)), ("v", (512, 4)))
    }
    graph = parse(
        "agraph (float[N,512] x) => (float[N,4] y) { a = MatMul (x, w)\n b = Softmax (a)\n y = MatMul (b, v) }", weights
    )
    for node, name in zip(graph.graph, ("big", "soft", "small"), strict=True):
        node.name = name
    graphopt.save(graph, tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


def test_the_slowest_node_comes_first(model: Path) -> None:
    found = node_times(model, {"x": np.ones((64, 512), np.float32)}, threads=1, runs=5)
    assert {one.name for one in found} == {"big", "soft", "small"}
    assert (found[0].name, found[0].op) == ("big", "MatMul")
    assert all(one.milliseconds > 0 for one in found[:2])


def test_nothing_is_left_behind(model: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    node_times(model, {"x": np.ones((1, 512), np.float32)}, runs=1)
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


def test_feeds_that_do_not_fit_are_told(model: Path) -> None:
    with pytest.raises(ModelError, match="cannot run the model"):
        node_times(model, {"x": np.ones((1, 3), np.float32)}, runs=1)


def test_no_room_for_the_profile_is_told(model: Path) -> None:
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64, before[1]))
    try:
        with pytest.raises(SaveError, match="could not write its profile"):
            node_times(model, {"x": np.zeros((2, 512), np.float32)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
