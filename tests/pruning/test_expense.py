"""What is predicted to be left is what the pruned model has."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from channels.examples import attention, residual
from harness import parse
from pruning.examples import classifier

import graphopt
from graphopt.analysis.cost import costs
from graphopt.analysis.memory import peak_bytes
from graphopt.analysis.parameters import parameters
from graphopt.channels.slicing import cut
from graphopt.pruning.expense import COUNTED, Expense


@pytest.mark.parametrize(
    ("model", "shape"), [(classifier(), (3, 8)), (residual(), (2, 3, 8, 8)), (attention(), (5, 7, 16))]
)
@pytest.mark.parametrize("seed", range(4))
def test_counts_are_those_of_the_pruned_model(model: ir.Model, shape: tuple[int, ...], seed: int) -> None:
    graph = graphopt.channels.analyze(model)
    random = np.random.default_rng(seed)
    units = [
        unit.index
        for group in graph.groups
        for unit in random.permutation(np.array(group.units, object))[: random.integers(0, len(group.units))]
    ]
    gone = graph.gone(units)
    pruned = cut(graph, gone)
    expense = Expense(graph, {"x": shape})
    before, after = (costs(one, input_shapes={"x": shape}).macs for one in (model, pruned))
    assert expense.total["macs"] == before
    assert expense.left(gone, "macs") == pytest.approx(after / before, rel=1e-6)
    assert expense.left(gone, "params") == pytest.approx(parameters(pruned) / parameters(model), rel=1e-6)
    weights = expense.total["bytes"] * expense.left(gone, "bytes")
    tensors = peak_bytes(pruned, input_shapes={"x": shape})
    assert expense.left(gone, "memory") * expense.total["memory"] == pytest.approx(weights + tensors, rel=1e-6)


def test_nothing_gone_leaves_everything() -> None:
    graph = graphopt.channels.analyze(classifier())
    expense = Expense(graph, {})
    for measure in COUNTED:
        assert expense.left(graph.gone([]), measure) == 1
        assert expense.exceeded(graph.gone([]), measure, 0.25) == 4


def test_memory_is_that_of_the_run_that_was_named() -> None:
    model = classifier()
    few, many = (Expense(graphopt.channels.analyze(model), {"x": (1, 8)}, run) for run in (None, {"x": (500, 8)}))
    assert few.total["macs"] == many.total["macs"]
    assert many.total["memory"] - many.total["bytes"] == 500 * (few.total["memory"] - few.total["bytes"])


TWO_PEAKS = """g (float[1,8,32,32] x) => (float[1,4,1,1] y) {
    a = Conv <pads = [1, 1, 1, 1]> (x, w1)
    b = MaxPool <kernel_shape = [4, 4], strides = [4, 4]> (a)
    c = Resize (b, none, s)
    d = Conv <pads = [1, 1, 1, 1]> (c, w2)
    e = GlobalAveragePool (d)
    y = Conv (e, w3)
}""".replace("none", "")


def test_beyond_the_limit_every_peak_counts() -> None:
    """Less at one of two peaks is a gain, though the other one stays; at the limit it is the peak that counts."""
    shapes = {"w1": (16, 8, 3, 3), "w2": (16, 16, 3, 3), "w3": (4, 16, 1, 1)}
    weights = {name: np.ones(shape, np.float32) for name, shape in shapes.items()}
    graph = graphopt.channels.analyze(parse(TWO_PEAKS, weights | {"s": np.array([1, 1, 4, 4], np.float32)}))
    expense = Expense(graph, {})
    half = [[unit.index for unit in group.units[:8]] for group in graph.groups]
    assert len(half) == 2
    none, first, second, both = (graph.gone(units) for units in ([], half[0], half[1], half[0] + half[1]))
    limit = 0.7
    assert expense.exceeded(none, "memory", limit) == pytest.approx(1 / limit)
    for one in (first, second):
        assert 1 < expense.exceeded(one, "memory", limit) < expense.exceeded(none, "memory", limit)
    assert expense.exceeded(both, "memory", limit) < 1
    exact = expense.left(both, "memory")
    assert expense.exceeded(both, "memory", exact) == pytest.approx(1)
    assert expense.exceeded(both, "memory", exact * 0.999999) == pytest.approx(1, abs=1e-3)
