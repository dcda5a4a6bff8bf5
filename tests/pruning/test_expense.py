"""What is predicted to be left is what the pruned model has."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from channels.examples import attention, residual
from pruning.examples import classifier

import graphopt
from graphopt.analysis.cost import costs
from graphopt.analysis.parameters import parameters
from graphopt.channels.slicing import cut
from graphopt.pruning.expense import Expense


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


def test_nothing_gone_leaves_everything() -> None:
    graph = graphopt.channels.analyze(classifier())
    expense = Expense(graph, {})
    for measure in ("macs", "params", "bytes"):
        assert expense.left(graph.gone([]), measure) == 1
