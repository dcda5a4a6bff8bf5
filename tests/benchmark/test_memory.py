"""Session creation and peak memory in a fresh process."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from harness import parse

import graphopt
from graphopt.benchmark.memory import CannotRun, footprint
from graphopt.errors import LimitReached, ModelError

X = {"x": np.ones((4, 4), np.float32)}


@pytest.fixture
def relu(tmp_path: Path) -> Path:
    path = tmp_path / "relu.onnx"
    graphopt.save(parse("g (float[4,4] x) => (float[4,4] y) {y = Relu(x)}"), path)
    return path


@pytest.mark.skipif(sys.platform != "linux", reason="anonymous memory is told apart on Linux only")
def test_peak_memory_follows_what_the_model_allocates(tmp_path: Path, relu: Path) -> None:
    path = tmp_path / "wide.onnx"
    graphopt.save(
        parse(
            "g (float[4,4] x) => (float[1] y) { e = Expand(x, s) f = Exp(e) y = ReduceSum<keepdims=0>(f, a) }",
            {"s": np.array([1 << 20, 4, 4]), "a": np.array([0, 1, 2])},
        ),
        path,
    )
    small, large = footprint(relu, X), footprint(path, X)
    assert small.peak_bytes is not None
    assert large.peak_bytes is not None
    assert small.peak_bytes < 16e6
    assert 60e6 < large.peak_bytes < 400e6  # two tensors of 67 MB, in an arena that grows by powers of two


def test_session_time_is_measured(relu: Path) -> None:
    assert 0 < footprint(relu, X).session_ms < 5000


def test_bound_to_the_cpu(relu: Path) -> None:
    assert footprint(relu, X, device="cpu").session_ms > 0


def test_wrong_feeds_can_be_told_from_a_wrong_model(tmp_path: Path, relu: Path) -> None:
    with pytest.raises(CannotRun, match=r"relu\.onnx: ONNX Runtime cannot run the model"):
        footprint(relu, {"x": np.ones((4, 5), np.float32)})
    broken = tmp_path / "broken.onnx"
    graphopt.save(parse("g (float[4,4] x) => (float[4,5] y) {y = Relu(x)}"), broken)
    broken.write_bytes(b"\x08\x0a" + b"no model")
    with pytest.raises(ModelError, match=r"broken\.onnx") as raised:
        footprint(broken, X)
    assert not isinstance(raised.value, CannotRun)


def test_time_limit(relu: Path) -> None:
    with pytest.raises(LimitReached, match="longer than the time limit"):
        footprint(relu, X, time_limit=0)


def test_a_crash_is_a_model_error(relu: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    crash = tmp_path / "sitecustomize.py"
    crash.write_text("import os, sys\nprint('so it ends', file=sys.stderr, flush=True)\nos.abort()\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", sys.executable)
    with pytest.raises(ModelError, match=r"was killed by SIGABRT \(.*\)"):
        footprint(relu, X)


@pytest.mark.parametrize("kind", ["string", "bfloat16"])
def test_types_that_numpy_lacks_reach_the_model(tmp_path: Path, kind: str) -> None:
    import ml_dtypes

    path = tmp_path / "types.onnx"
    graphopt.save(parse(f"g ({kind}[3] x) => ({kind}[3] y) {{ y = Identity(x) }}"), path)
    array = np.array(["a", "b", "ä"], object) if kind == "string" else np.ones(3, getattr(ml_dtypes, kind))
    assert footprint(path, {"x": array}, device="cpu").session_ms > 0
