"""drop-blocks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from harness import apply, feeds, lines, parse, run

import graphopt
from graphopt.errors import UsageError

RANDOM = np.random.default_rng(0)


def model(scales: tuple[float, ...] = (1, 0.01, 1)) -> ir.Model:
    """Blocks ``h = h + MatMul(Tanh(MatMul(h, a)), b)`` whose last layers are scaled."""
    held: dict[str, Any] = {"w": RANDOM.standard_normal((8, 4)).astype(np.float32)}
    body = ""
    for i, scale in enumerate(scales):
        held[f"a{i}"] = (RANDOM.standard_normal((8, 8)) / 3).astype(np.float32)
        held[f"b{i}"] = (RANDOM.standard_normal((8, 8)) / 3 * scale).astype(np.float32)
        body += f"u{i} = MatMul (h{i}, a{i})  t{i} = Tanh (u{i})  f{i} = MatMul (t{i}, b{i})  "
        body += f"h{i + 1} = Add (h{i}, f{i})\n"
    return parse(
        f"agraph (float[N,8] x) => (float[N,4] y) {{ h0 = Relu (x)\n{body} y = MatMul (h{len(scales)}, w) }}", held
    )


@pytest.mark.parametrize("options", ["count=1", "fraction=0.4:measure=output", "count=1:measure=change:iterative=true"])
def test_least_influence_goes(options: str) -> None:
    before = model()
    result, stats, _ = apply(before, f"drop-blocks:{options}")
    assert stats.counts["drop-blocks"] == 1
    assert not [line for line in lines(result) if "b1" in line or "h2" in line]
    assert set(result.graph.initializers) == {"a0", "b0", "a2", "b2", "w"}
    reference = stats.references["drop-blocks"]
    assert reference is not None
    batch = feeds(before)
    np.testing.assert_allclose(run(result, batch)[0], run(reference, batch)[0], rtol=1e-5, atol=1e-6)
    assert np.abs(run(result, batch)[0] - run(before, batch)[0]).max() > 1e-5


def test_calibration_data_decide(tmp_path: Path) -> None:
    """The first block does much, but only where the first channels are not zero, as they are in the data."""
    held = {
        "a": np.diag([3.0] * 4 + [0.0] * 4).astype(np.float32),
        "b": RANDOM.standard_normal((8, 8)).astype(np.float32),
        "c": (np.eye(8)[::-1] * 0.3).astype(np.float32),
    }
    text = """agraph (float[N,8] x) => (float[N,8] y) {
        f = MatMul (x, a)  g = Tanh (f)  k = MatMul (g, b)  s = Add (x, k)
        l = MatMul (s, c)  t = Add (s, l)  y = Tanh (t) }"""
    before = parse(text, held)
    data = np.concatenate([np.zeros((32, 4)), RANDOM.standard_normal((32, 4))], axis=1).astype(np.float32)
    np.savez(tmp_path / "data.npz", x=data)
    on_data, _, _ = apply(before, f"drop-blocks:count=1:calibration={tmp_path / 'data.npz'}")
    assert lines(on_data) == ["l = MatMul(x, c)", "t = Add(x, l)", "y = Tanh(t)"]
    on_noise, _, _ = apply(before, "drop-blocks:count=1")
    assert lines(on_noise)[-2:] == ["s = Add(x, k)", "y = Tanh(s)"]


def test_linear_layers_that_meet_become_one() -> None:
    held = {name: RANDOM.standard_normal(shape).astype(np.float32) for name, shape in
            {"p": (8, 16), "a": (16, 16), "b": (16, 16), "q": (16, 4)}.items()}  # fmt: skip
    text = """agraph (float[N,8] x) => (float[N,4] y) {
        h = MatMul (x, p)  u = MatMul (h, a)  t = Tanh (u)  f = MatMul (t, b)  s = Add (h, f)  y = MatMul (s, q) }"""
    before = parse(text, held)
    result, report = graphopt.optimize(before, ["drop-blocks:count=1"], with_report=True)
    assert [node.op_type for node in result.graph] == ["MatMul"]
    assert report.status == "proven"


def test_says_how_many() -> None:
    for options in ("", ":count=1:fraction=0.5"):
        with pytest.raises(UsageError, match="how many blocks"):
            apply(model(), f"drop-blocks{options}")
    with pytest.raises(UsageError, match="there are 3"):
        apply(model(), "drop-blocks:count=9")
    with pytest.raises(UsageError, match="measure"):
        apply(model(), "drop-blocks:count=1:measure=angle")


def test_nothing_to_drop() -> None:
    text = "agraph (float[N,4] x) => (float[N,4] y) { y = Relu (x) }"
    result, stats, _ = apply(parse(text), "drop-blocks:fraction=0.5")
    assert not stats.counts
    assert lines(result) == ["y = Relu(x)"]
