"""A model run piece by piece computes what it computes in one go."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import pytest
from channels.examples import attention, residual
from harness import parse, run

from graphopt.errors import ModelError
from graphopt.pruning.stages import Cache, Stages, observe

Array = npt.NDArray[Any]


def _named(model: ir.Model, name: str) -> ir.Node:
    return next(node for node in model.graph if node.name == name)


def _inputs(*shape: int, batches: int = 3) -> list[dict[str, Array]]:
    random = np.random.default_rng(0)
    return [{"x": random.standard_normal((2, *shape)).astype(np.float32)} for _ in range(batches)]


@pytest.mark.parametrize(
    ("model", "cuts", "shape"),
    [
        (residual(), ["narrow", "conv3", "conv4", "fc", "last"], (3, 8, 8)),
        (residual(), ["conv4"], (3, 8, 8)),
        (attention(), ["q", "k", "v", "out"], (7, 16)),
    ],
)
def test_the_last_stage_gives_the_outputs(model: ir.Model, cuts: list[str], shape: tuple[int, ...]) -> None:
    batches = _inputs(*shape)
    nodes = [_named(model, name) for name in cuts]
    stages = Stages(model, nodes, batches)
    output = model.graph.outputs[0]
    last = stages.stage_of(output)
    found: list[dict[ir.Value, Any]] = []
    for stage in range(last + 1):
        found = list(stages.run(stage, [output] if stage == last else []))
    for feeds, values in zip(batches, found, strict=True):
        np.testing.assert_allclose(values[output], run(model, feeds)[0], rtol=1e-5, atol=1e-6)


def test_a_cut_layer_comes_after_all_that_it_reads() -> None:
    model = residual()
    stages = Stages(model, [_named(model, name) for name in ("narrow", "conv3", "conv4")], _inputs(3, 8, 8))
    at = {name: stages.stage[_named(model, name)] for name in ("conv1", "narrow", "conv3", "add_3", "conv4", "fc")}
    assert at == {"conv1": 0, "narrow": 1, "conv3": 2, "add_3": 2, "conv4": 3, "fc": 3}


def test_weights_may_change_until_their_stage_runs() -> None:
    model = residual()
    batches = _inputs(3, 8, 8)
    cut = _named(model, "conv4")
    stages = Stages(model, [cut], batches)
    list(stages.run(0))
    weight = cut.inputs[1]
    assert weight is not None
    assert weight.const_value is not None
    weight.const_value = ir.tensor(np.zeros_like(weight.const_value.numpy()), name=weight.name)
    (found, *_) = stages.run(1, [cut.outputs[0]])
    assert not found[cut.outputs[0]].any()


def test_what_no_later_stage_needs_is_forgotten() -> None:
    model = residual()
    stages = Stages(model, [_named(model, "conv4"), _named(model, "fc")], _inputs(3, 8, 8))
    list(stages.run(0))
    kept = _named(model, "add_3").outputs[0]
    assert stages.is_kept(kept, 1)
    list(stages.run(1))
    assert not stages.is_kept(kept, 2)
    with pytest.raises(KeyError):
        stages.available(kept, 0)


def test_values_that_a_branch_reads_are_passed_on() -> None:
    text = """agraph (float[N,4] x, bool c) => (float[N,4] y) {
        [first] a = MatMul (x, w)
        [cut] b = MatMul (a, w)
        [branch] y = If (c) <then_branch = yes () => (float[N,4] t) { t = Add (a, b) },
                             else_branch = no () => (float[N,4] e) { e = Sub (a, x) }>
    }"""
    model = parse(text, {"w": np.random.default_rng(0).standard_normal((4, 4)).astype(np.float32)})
    x = np.ones((2, 4), np.float32)
    for condition in (True, False):
        feeds = {"x": x, "c": np.array(condition)}
        stages = Stages(model, [_named(model, "cut")], [feeds])
        list(stages.run(0))
        (found,) = stages.run(1, [model.graph.outputs[0]])
        np.testing.assert_allclose(found[model.graph.outputs[0]], run(model, feeds)[0], rtol=1e-6)


def test_activations_beyond_the_limit_go_to_files_and_come_back() -> None:
    cache = Cache(limit=100)
    small, large = np.arange(10, dtype=np.float32), np.arange(1000, dtype=np.float32)
    cache.put(0, "small", small)
    cache.put(0, "large", large)
    assert isinstance(cache.get(0, "large"), np.memmap)
    assert not isinstance(cache.get(0, "small"), np.memmap)
    assert np.array_equal(cache.get(0, "large"), large)
    cache.drop("small", 1)
    cache.put(1, "small", small)
    assert not isinstance(cache.get(1, "small"), np.memmap)


def test_observe_shows_inner_values() -> None:
    model = residual()
    batches = _inputs(3, 8, 8)
    values = [_named(model, "relu1").outputs[0], model.graph.outputs[0]]
    for feeds, (inner, output) in zip(batches, observe(model, values, batches), strict=True):
        assert inner.shape == (2, 8, 8, 8)
        assert inner.min() == 0
        np.testing.assert_allclose(output, run(model, feeds)[0], rtol=1e-5)


def test_inputs_that_do_not_run_are_a_clear_error() -> None:
    model = residual()
    with pytest.raises(ModelError, match="cannot run the model on the calibration data"):
        list(observe(model, model.graph.outputs, [{"x": np.zeros((2, 3, 9, 9, 1), np.float32)}]))


def test_constant_nodes_are_part_of_each_stage_that_reads_them() -> None:
    text = """agraph (float[N,4] x) => (float[N,2] y) {
        axes = Constant <value = int64[1] {1}> ()
        [first] a = MatMul (x, w)
        [narrow] s = ReduceMean <keepdims=1> (a, axes)
        [cut] b = MatMul (a, w)
        [again] t = ReduceMean <keepdims=1> (b, axes)
        [both] y = Concat <axis=1> (s, t)
    }"""
    model = parse(text, {"w": np.random.default_rng(0).standard_normal((4, 4)).astype(np.float32)})
    batches = _inputs(4)
    stages = Stages(model, [_named(model, "cut")], batches)
    axes = model.graph.node(0).outputs[0]
    list(stages.run(0))
    assert not stages.is_kept(axes, 1)
    for feeds, found in zip(batches, stages.run(1, [model.graph.outputs[0]]), strict=True):
        np.testing.assert_allclose(found[model.graph.outputs[0]], run(model, feeds)[0], rtol=1e-6)


def test_sizes_that_an_earlier_stage_computes_keep_their_length() -> None:
    text = """agraph (float[N,2,4,4] x) => (float[N,2,8,8] y) {
        [given] k = Shape <start=2> (x)
        [twice] m = Add (k, k)
        [cut] a = Conv (x, w)
        [shape] s = Shape <start=0, end=2> (a)
        [sizes] z = Concat <axis=0> (s, m)
        [resize] y = Resize (a, , , z)
    }"""
    model = parse(text, {"w": np.random.default_rng(0).standard_normal((2, 2, 1, 1)).astype(np.float32)})
    batches = _inputs(2, 4, 4)
    stages = Stages(model, [_named(model, "cut")], batches)
    list(stages.run(0))
    for feeds, found in zip(batches, stages.run(1, [model.graph.outputs[0]]), strict=True):
        np.testing.assert_allclose(found[model.graph.outputs[0]], run(model, feeds)[0], rtol=1e-6)
