"""sparsify-weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from harness import apply, feeds, lines, parse, run

import graphopt
from graphopt.errors import UsageError

RANDOM = np.random.default_rng(0)


def model() -> ir.Model:
    held = {
        "a": RANDOM.standard_normal((16, 32)).astype(np.float32),
        "b": RANDOM.standard_normal((32, 16)).astype(np.float32),
    }
    text = """agraph (float[N,16] x) => (float[N,16] y) {
        [first] u = MatMul (x, a)  t = Relu (u)  [second] y = MatMul (t, b) }"""
    return parse(text, held)


def weight(result: ir.Model, name: str) -> np.ndarray:
    tensor = result.graph.initializers[name].const_value
    assert tensor is not None
    return tensor.numpy()


@pytest.mark.parametrize("options", ["", ":method=wanda:reconstruct=no", ":method=magnitude", ":pattern=2of4:seed=3"])
def test_two_of_each_four_stay(options: str) -> None:
    before = model()
    result, stats, _ = apply(before, f"sparsify-weights{options}")
    assert stats.counts["sparsify-weights"] == 2
    assert stats.references["sparsify-weights"] is None
    assert lines(result) == lines(before)
    for name in ("a", "b"):
        assert ((weight(result, name).T.reshape(-1, 4) != 0).sum(1) == 2).all()
        assert ((weight(before, name)) != 0).all()
    batch = feeds(before, sizes={"N": 64})
    wanted, given = run(before, batch)[0], run(result, batch)[0]
    assert 0.01 < np.square(given - wanted).sum() / np.square(wanted).sum() < 0.4


def test_a_share_of_all_and_only_some_layers() -> None:
    result, stats, _ = apply(model(), "sparsify-weights:pattern=75%:method=magnitude:reconstruct=no:exclude=first")
    assert stats.counts["sparsify-weights"] == 1
    assert (weight(result, "a") != 0).all()
    assert (weight(result, "b") == 0).mean() == 0.75


def test_calibration_data_decide(tmp_path: Path) -> None:
    """Where the data are zero, weights do not matter."""
    data = np.concatenate([np.zeros((64, 8)), RANDOM.standard_normal((64, 8))], axis=1).astype(np.float32)
    np.savez(tmp_path / "data.npz", x=data)
    spec = f"sparsify-weights:pattern=0.5:method=wanda:include=f*+nothing*:calibration={tmp_path / 'data.npz'}"
    with pytest.raises(UsageError, match=r"no layer is called 'nothing\*'"):
        apply(model(), spec)
    result, _, _ = apply(model(), spec.replace("+nothing*", ""))
    assert (weight(result, "a")[:8] == 0).all()
    assert (weight(result, "a")[8:] != 0).all()
    assert (weight(result, "b") != 0).all()


def test_the_optimizer_takes_it() -> None:
    result, report = graphopt.optimize(model(), ["sparsify-weights"], with_report=True)
    assert report.status == "proven"
    assert [node.op_type for node in result.graph] == ["MatMul", "Relu", "MatMul"]


def test_nonsense_is_refused() -> None:
    for options, message in (
        ("pattern=5of4", "keeps 5 of each 4"),
        ("method=guess", "no method 'guess'"),
        ("scope=global", "only magnitudes"),
        ("smallest=1k", "no layer can be made sparse"),
    ):
        with pytest.raises(UsageError, match=message):
            apply(model(), f"sparsify-weights:{options}")
