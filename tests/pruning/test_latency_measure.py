"""Measured ratios of a pruned model and its original."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from harness import parse

import graphopt
from graphopt import proto, runtime
from graphopt.errors import ModelError
from graphopt.pruning.latency import sessions
from graphopt.pruning.latency.measure import Stopwatch, speedup


def dense(width: int, deep: int = 4) -> ir.Model:
    lines = [f"x{layer + 1} = MatMul (x{layer}, w{layer})" for layer in range(deep)]
    text = f"g (float[N,64] x0) => (float[N,64] x{deep}) {{\n" + "\n".join(lines) + "\n}"
    sizes = [64, *[width] * (deep - 1), 64]
    weights = {f"w{layer}": np.ones(sizes[layer : layer + 2], np.float32) for layer in range(deep)}
    return parse(text, weights)


FEEDS = {"x0": np.ones((64, 64), np.float32)}


def test_a_model_is_as_fast_as_itself_and_slower_than_half_of_it() -> None:
    with Stopwatch(dense(512), FEEDS, threads=1, seconds=0.3) as watch:
        same, half = watch.ratio(dense(512)), watch.ratio(dense(128))
        assert watch.milliseconds > 0
    assert 0.7 < same.value < 1.4
    assert half.value > 2
    assert half.low is not None
    assert half.low <= half.value


def test_speedup_alone() -> None:
    assert speedup(dense(512), dense(128), FEEDS, threads=1, seconds=0.2).value > 2


def test_a_path_will_do(tmp_path: Path) -> None:
    graphopt.save(dense(64), tmp_path / "small.onnx")
    with Stopwatch(dense(512), FEEDS, threads=2, seconds=0.2) as watch:
        assert watch.ratio(tmp_path / "small.onnx").value > 1


@pytest.mark.parametrize(("threads", "opened"), [(1, 3), (2, 5)])
def test_of_several_threads_both_sessions_are_of_the_same_age(
    threads: int, opened: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = itertools.count(1)
    open_session = sessions.open_session

    def counting(*arguments: Any, **options: Any) -> Any:
        next(count)
        return open_session(*arguments, **options)

    monkeypatch.setattr(sessions, "open_session", counting)
    with Stopwatch(dense(64), FEEDS, threads=threads, seconds=0.05) as watch:
        watch.ratio(dense(32))
        watch.ratio(dense(16))
    assert next(count) - 1 == opened


def test_feeds_that_do_not_fit_are_an_error() -> None:
    with (
        Stopwatch(dense(64), {"x0": np.ones((1, 3), np.float32)}, seconds=0.1) as watch,
        pytest.raises(ModelError, match="cannot run"),
    ):
        watch.ratio(dense(64))


def test_a_large_model_goes_through_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sessions, "_LARGEST_MESSAGE", 1000)
    session = sessions.open_session(dense(64), provider="cpu", threads=1, scratch=tmp_path)
    assert session.run(None, FEEDS)[0].shape == (64, 64)
    assert list(tmp_path.rglob("*.onnx"))
    with pytest.raises(ModelError, match="larger than a message"):
        sessions.open_session(dense(64), provider="cpu", threads=1)


def test_a_profile_knows_each_node() -> None:
    model = parse("g (float[N,64] x) => (float[N,64] y) {[one] a = MatMul (x, w)\n[two] y = Softmax (a)}", weights())
    feeds = {"x": np.ones((256, 64), np.float32)}
    swept: list[int] = []
    times = sessions.profile(
        model, feeds, threads=1, enough=lambda runs, seconds: runs >= 3, before=lambda: swept.append(1)
    )
    assert {op_type for _, op_type in times.nodes} == {"MatMul", "Softmax"}
    assert all(taken > 0 for taken in times.nodes.values())
    assert times.overhead >= 0
    assert sum(times.nodes.values()) <= times.wall * 1.5
    assert len(swept) >= 4


def test_a_profile_of_what_does_not_run_is_an_error() -> None:
    model = parse("g (float[N,64] x) => (float[N,64] y) {y = MatMul (x, w)}", weights())
    with pytest.raises(ModelError, match="cannot run"):
        sessions.profile(model, {"x": np.ones((2, 3), np.float32)}, threads=1, enough=lambda runs, seconds: True)


def test_a_session_of_a_convolution_in_memory_opens() -> None:
    """Fusions of ONNX Runtime do not find weights that are handed over as arrays, as ``runtime`` does by itself."""
    random = np.random.default_rng(0)
    model = parse(
        "g (float[N,3,8,8] x) => (float[N,512,8,8] y) {a = Conv (x, w1)\nb = Conv (a, w2)\ny = Add (a, b)}",
        {
            "w1": random.standard_normal((512, 3, 1, 1), np.float32),
            "w2": random.standard_normal((512, 512, 1, 1), np.float32),
        },
    )
    session = sessions.open_session(model, provider="cpu", threads=1)
    x = random.standard_normal((1, 3, 8, 8), np.float32)
    plain = runtime.open_session(proto.to_proto(model).SerializeToString(), optimization="off")
    np.testing.assert_allclose(session.run(None, {"x": x})[0], plain.run(None, {"x": x})[0], rtol=1e-3, atol=1e-3)


def weights() -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float32]]]:
    return {"w": np.eye(64, dtype=np.float32)}


def test_what_is_within_a_branch_counts_once() -> None:
    model = parse(
        """g (bool c, float[N,64] x) => (float[N,64] y) {
            y = If (c) <then_branch = t () => (float[N,64] a) {[deep] a = MatMul (x, w)},
                        else_branch = e () => (float[N,64] b) {b = Neg (x)}>
        }""",
        weights(),
    )
    feeds = {"c": np.array(True), "x": np.ones((256, 64), np.float32)}
    times = sessions.profile(model, feeds, threads=1, enough=lambda runs, seconds: runs >= 3)
    assert {op_type for _, op_type in times.nodes} == {"MatMul"}
