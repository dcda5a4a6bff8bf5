"""prune-channels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from harness import apply, feeds, lines, parse, run
from pruning.examples import classifier, inputs

import graphopt
from graphopt.errors import Infeasible, UsageError

DATA_FREE = "prune-channels:goal=macs=0.5:importance=l2:reconstruct=false:samples=8"


def sizes(model: ir.Model) -> dict[str, tuple[int, ...]]:
    return {
        name: tuple(value.const_value.shape.numpy())
        for name, value in model.graph.initializers.items()
        if value.const_value is not None
    }


def test_least_important_go() -> None:
    """What is left is the model with zeros in place of what went, and names and order stay."""
    columns = np.random.default_rng(0).standard_normal((8, 32)).astype(np.float32)
    columns[:, [3, 17]] *= 1e-3
    before = parse(
        "agraph (float[N,8] x) => (float[N,4] y) { a = Gemm (x, w1, b1)  b = Relu (a)  y = Gemm (b, w2) }",
        {"w1": columns, "b1": np.zeros(32, np.float32), "w2": np.ones((32, 4), np.float32)},
    )
    result, stats, _ = apply(before, DATA_FREE.replace("0.5", "0.95"))
    assert stats.counts["prune-channels"] == 2
    assert lines(result) == lines(before)
    assert sizes(result) == {"w1": (8, 30), "b1": (30,), "w2": (30, 4)}
    kept = result.graph.initializers["w1"].const_value
    assert kept is not None
    np.testing.assert_array_equal(kept.numpy(), np.delete(columns, [3, 17], axis=1))
    reference = stats.references["prune-channels"]
    assert reference is not None
    batch = feeds(before)
    np.testing.assert_allclose(run(result, batch)[0], run(reference, batch)[0], rtol=1e-5, atol=1e-6)
    assert sorted(sizes(reference).values()) == sorted(sizes(before).values())


def test_proven_against_the_mask() -> None:
    result, report = graphopt.optimize(classifier(), [DATA_FREE], with_report=True)
    assert report.status == "proven"
    assert any("prune-channels: equal to the model that it stands for" in note for note in report.notes)
    assert sizes(result)["w2"][0] < 32


def test_reconstruction_claims_nothing(tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", x=inputs(256))
    spec = f"prune-channels:goal=macs=0.6:calibration={tmp_path / 'data.npz'}"
    batch = {"x": inputs(512, seed=5)}
    before = classifier()
    wanted = run(before, batch)[0]

    def error(options: str) -> float:
        result, report = graphopt.optimize(before, [spec + options], with_report=True)
        assert any("nothing that its own result could be compared" in note for note in report.notes) == (not options)
        return float(np.square(run(result, batch)[0] - wanted).mean())

    assert error("") < 0.7 * error(":reconstruct=false")


def test_several_goals_and_exclusions() -> None:
    before = classifier()
    spec = DATA_FREE.replace("macs=0.5", "macs=0.9+params=0.5")
    result, _, _ = apply(before, spec)
    assert sum(map(np.prod, sizes(result).values())) <= 0.5 * sum(map(np.prod, sizes(before).values()))
    result, _, _ = apply(before, f"{DATA_FREE}:exclude=head")
    assert sizes(result)["w2"][1] == 32
    assert sizes(result)["w2"][0] < 32


def test_functions_become_part_of_the_graph() -> None:
    text = """<ir_version: 10, opset_import: ["" : 21, "own" : 1]>
    agraph (float[N,8] x) => (float[N,4] y) { a = MatMul (x, w)  b = own.Twice (a)  y = MatMul (b, v) }
    <domain: "own", opset_import: ["" : 21]> Twice (p) => (q) { q = Add (p, p) }"""
    random = np.random.default_rng(0)
    held: dict[str, Any] = {
        name: random.standard_normal(shape).astype(np.float32) for name, shape in {"w": (8, 32), "v": (32, 4)}.items()
    }
    result, stats, _ = apply(parse(text, held), DATA_FREE)
    assert not result.functions
    assert [node.op_type for node in result.graph] == ["MatMul", "Add", "MatMul"]
    reference = stats.references["prune-channels"]
    assert reference is not None
    np.testing.assert_allclose(run(result, feeds(result))[0], run(reference, feeds(result))[0], rtol=1e-5, atol=1e-6)


def test_nothing_to_do() -> None:
    before = classifier()
    result, stats, _ = apply(before, DATA_FREE.replace("0.5", "1"))
    assert not stats.counts
    assert sizes(result) == sizes(before)


def test_same_seed_same_bytes() -> None:
    first, second = (apply(classifier(), DATA_FREE)[0] for _ in range(2))
    for name, value in first.graph.initializers.items():
        other = second.graph.initializers[name].const_value
        assert value.const_value is not None
        assert other is not None
        assert value.const_value.tobytes() == other.tobytes()


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ("", UsageError, "needs a goal"),
        (":goal=half", UsageError, "is no goal"),
        (":goal=macs=0.5:importance=l3", UsageError, "there is no importance"),
        (":goal=macs=0.001:samples=4", Infeasible, "cannot be reached"),
        (":goal=macs=0.5:exclude=nobody", UsageError, "nobody"),
    ],
)
def test_errors(options: str, error: type[Exception], words: str) -> None:
    before = classifier()
    with pytest.raises(error, match=words):
        graphopt.optimize(before, [f"prune-channels{options}"])
    assert sizes(before) == sizes(classifier())
