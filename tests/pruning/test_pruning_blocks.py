"""Residual blocks that go with the channels of a plan: what is left is proven, and refitted to the original."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import pytest
from harness import lines, parse, run

import graphopt
from graphopt.errors import ModelError, UsageError
from graphopt.pruning.depth.blocks import find
from graphopt.pruning.depth.choice import by_worth
from graphopt.pruning.plan import Plan, Settings, digest_of
from graphopt.pruning.report import PruneReport

Array = npt.NDArray[Any]
RANDOM = np.random.default_rng(0)
X = RANDOM.standard_normal((512, 8)).astype(np.float32)


def _weights(**shapes: tuple[int, int]) -> dict[str, Array]:
    return {
        name: (RANDOM.standard_normal(shape) / np.sqrt(shape[0])).astype(np.float32) for name, shape in shapes.items()
    }


def _residual() -> ir.Model:
    """Two blocks of one hidden layer between an embedding and a head."""
    text = """agraph (float[N,8] x) => (float[N,4] y) {
        e = MatMul (x, w)  h0 = Relu (e)
        [up0] u0 = MatMul (h0, a0)  r0 = Relu (u0)  d0 = MatMul (r0, b0)  [sum0] h1 = Add (h0, d0)
        [up1] u1 = MatMul (h1, a1)  r1 = Relu (u1)  d1 = MatMul (r1, b1)  [sum1] h2 = Add (h1, d1)
        y = MatMul (h2, v) }"""
    return parse(text, _weights(w=(8, 16), a0=(16, 32), b0=(32, 16), a1=(16, 32), b1=(32, 16), v=(16, 4)))


def _two_streams() -> ir.Model:
    """The block reads a stream that is deeper than what it adds to, and that goes on beside it."""
    text = """agraph (float[N,8] x) => (float[N,4] y) {
        e1 = MatMul (x, w1)  f1 = Relu (e1)  e2 = MatMul (f1, w2)  f2 = Relu (e2)  e3 = MatMul (f2, w3)  f3 = Relu (e3)
        h = MatMul (x, w)  m = Mul (h, f3)  t = MatMul (m, a)  [sum] s = Add (h, t)
        p = MatMul (s, b)  q = MatMul (f3, c)  o = Add (p, q)  y = MatMul (o, v) }"""
    return parse(text, _weights(w1=(8, 16), w2=(16, 16), w3=(16, 8), w=(8, 8), a=(8, 8), b=(8, 8), c=(8, 8), v=(8, 4)))


def _norms_that_add() -> ir.Model:
    """Both add a bias, too; the second gives the sum as well."""
    text = """agraph (float[N,8] x) => (float[N,4] y) {
        e = MatMul (x, w)  h = Relu (e)  u0 = MatMul (h, a0)  r0 = Relu (u0)  d0 = MatMul (r0, b0)
        [norm0] n = com.microsoft.SkipLayerNormalization <epsilon = 0.00001> (h, d0, g0, c0, k0)
        u1 = MatMul (n, a1)  r1 = Relu (u1)  d1 = MatMul (r1, b1)
        [norm1] m, mean, deviation, s = com.microsoft.SkipLayerNormalization <epsilon = 0.00001> (d1, n, g1, c1, k1)
        t = Add (m, s)  y = MatMul (t, v) }"""
    vectors = {name: RANDOM.standard_normal(16).astype(np.float32) for name in ("g0", "c0", "k0", "g1", "c1", "k1")}
    matrices = _weights(w=(8, 16), a0=(16, 32), b0=(32, 16), a1=(16, 32), b1=(32, 16), v=(16, 4))
    model = parse(text, matrices | vectors)
    for value in (value for node in model.graph for value in node.outputs if value.name in ("mean", "deviation")):
        value.name = ""
    return model


def _plan(model: ir.Model, *blocks: str, **removed: list[int]) -> Plan:
    sizes = {group.name: len(group.units) for group in graphopt.channels.analyze(model).groups}
    settings = Settings(optimize=False, batch=128)
    return Plan(digest_of(model), "macs=0.5", settings, "", removed, {name: sizes[name] for name in removed}, blocks)


def _pruned(model: ir.Model, plan: Plan, **options: Any) -> tuple[ir.Model, PruneReport]:
    result, report = graphopt.prune(model, plan=plan, calibration={"x": X}, with_report=True, **options)
    return result, report


def _error(original: ir.Model, other: ir.Model) -> float:
    x = np.random.default_rng(1).standard_normal((256, 8)).astype(np.float32)
    wanted, got = (np.asarray(run(one, {"x": x})[0], np.float64) for one in (original, other))
    return float(np.square(got - wanted).sum() / np.square(wanted - wanted.mean(0)).sum())


def _raw(plan: Plan) -> Plan:
    return dataclasses.replace(plan, settings=dataclasses.replace(plan.settings, reconstruct=False))


def test_a_block_goes_and_what_follows_makes_up_for_it() -> None:
    model = _residual()
    plan = _plan(model, "sum1")
    raw, _ = _pruned(model, _raw(plan))
    fitted, report = _pruned(model, plan)
    assert report.proof == "proven"
    assert not [line for line in lines(fitted) if "a1" in line or "r1" in line]
    assert _error(model, fitted) < 0.6 * _error(model, raw)


def test_blocks_and_channels_go_together() -> None:
    model = _residual()
    plan = _plan(model, "sum0", up1=list(range(0, 32, 2)))
    raw, _ = _pruned(model, _raw(plan))
    fitted, report = _pruned(model, plan)
    assert report.proof == "proven"
    shapes = {
        name: value.const_value.shape.numpy() for name, value in fitted.graph.initializers.items() if value.const_value
    }
    assert "a0" not in shapes
    assert (16, 16) in shapes.values()  # of up1
    assert _error(model, fitted) < 0.8 * _error(model, raw)


def test_a_block_that_reads_what_is_deeper_than_what_it_adds_to() -> None:
    model = _two_streams()
    inner = graphopt.channels.analyze(model).groups[0]
    plan = _plan(model, "sum", **{inner.name: [0, 1, 2]})
    raw, _ = _pruned(model, _raw(plan))
    fitted, report = _pruned(model, plan)
    assert report.proof == "proven"
    assert len(report.refits) > 2
    assert _error(model, fitted) < _error(model, raw)


@pytest.mark.parametrize("blocks", [("norm0",), ("norm1",), ("norm0", "norm1")], ids=str)
def test_norms_that_add_lose_channels_and_what_they_add(blocks: tuple[str, ...]) -> None:
    model = _norms_that_add()
    stream = next(group for group in graphopt.channels.analyze(model).groups if len(group.units) == 16)
    plan = _plan(model, *blocks, **{stream.name: [1, 4, 5, 9]})
    raw, _ = _pruned(model, _raw(plan))
    fitted, report = _pruned(model, plan)
    assert report.proof == "proven"
    assert _error(model, fitted) < 0.5 * _error(model, raw)


def test_a_run_with_blocks_keeps_its_own_fits(tmp_path: Path) -> None:
    model = _residual()
    for plan in (_plan(model, up1=[0, 1]), _plan(model, "sum0", up1=[0, 1])):
        kept, _ = _pruned(model, plan, run_directory=tmp_path)
        anew, _ = _pruned(model, plan)
        assert _error(anew, kept) < 1e-6


def test_a_block_that_is_not_there() -> None:
    with pytest.raises(UsageError, match="no residual block 'sum7'") as caught:
        _pruned(_residual(), _plan(_residual(), "sum7"))
    assert caught.value.hint == "It has sum0, sum1."


def test_plans_of_the_version_without_blocks_are_read() -> None:
    text = _plan(_residual(), "sum1").to_json()
    assert Plan.from_json(text).blocks == ("sum1",)
    old = text.replace('"version": 2', '"version": 1').replace('"blocks": [\n    "sum1"\n  ]', '"seed": 0')
    assert Plan.from_json(old).blocks == ()


@pytest.mark.parametrize("wrong", ["sum1", {"sum1": 1}, [1], 3, None], ids=str)
def test_blocks_of_a_plan_are_a_list_of_names(wrong: object) -> None:
    data = json.loads(_plan(_residual(), "sum1").to_json())
    with pytest.raises(ModelError, match=r"no plan of graphopt's.*no list of names"):
        Plan.from_json(json.dumps(data | {"blocks": wrong}))


def test_worth_is_harm_for_what_a_block_costs() -> None:
    blocks = find(_residual())
    assert [block.name for block in by_worth(blocks, [0.3, 0.1])] == ["sum1", "sum0"]
    assert [block.name for block in by_worth(find(_two_streams()), [1.0])] == ["sum"]
    small, large = find(
        parse(
            """agraph (float[N,8] x) => (float[N,8] y) {
                u = MatMul (x, a)  [small] s = Add (x, u)
                t = MatMul (s, b)  r = Relu (t)  d = MatMul (r, c)  [large] l = Add (s, d)  y = Tanh (l) }""",
            _weights(a=(8, 8), b=(8, 64), c=(64, 8)),
        )
    )
    assert [block.name for block in by_worth([small, large], [0.1, 0.2])] == ["large", "small"]
    assert by_worth([], []) == []
