"""Which layers stay as they are: with a yardstick that adds up made-up errors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from quantization.examples import perceptron, rows

from graphopt.errors import Infeasible
from graphopt.pruning.layers import find_layers
from graphopt.quantization.choice import choose
from graphopt.quantization.gates import Rounding, harms
from graphopt.quantization.normalizing import normalize
from graphopt.quantization.yardstick import Yardstick, share


class Sum:
    """Says that a model errs by what its layers err."""

    def __init__(self) -> None:
        self.asked = 0

    def error(self, model: Sequence[float]) -> float:
        self.asked += 1
        return float(sum(model))


def chosen(errors: Sequence[float], limit: float, layer_limit: float | None = None) -> tuple[list[int], int]:
    """The places of the layers that are quantized, and how many models were tried."""
    yardstick: Any = Sum()
    layers: Any = [Number(error, place) for place, error in enumerate(errors)]
    build: Any = list
    found: Any = choose(layers, errors, build, yardstick, max_error=limit, max_layer_error=layer_limit)
    assert found.error == sum(found.model)
    assert len(found.left) + len(found.layers) == len(errors)
    return [layer.place for layer in found.layers], yardstick.asked


class Number(float):
    """An error that stands for the layer that causes it."""

    def __new__(cls, error: float, place: int) -> Number:
        return super().__new__(cls, error)

    def __init__(self, error: float, place: int) -> None:
        self.place = place

    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        return self is other


def test_all_if_they_may() -> None:
    assert chosen([0.1, 0.2, 0.3], 0.7) == ([0, 1, 2], 1)


def test_the_fewest_and_most_harmful_stay() -> None:
    assert chosen([0.1, 0.5, 0.3, 0.1], 0.55)[0] == [0, 2, 3]
    assert chosen([0.1, 0.5, 0.3, 0.1], 0.25)[0] == [0, 3]
    assert chosen([0.1, 0.5, 0.3, 0.1], 0.15)[0] == [3], "of equals the first one goes"


def test_few_models_are_tried() -> None:
    errors = list(np.linspace(0.01, 1, 100))
    kept, tried = chosen(errors, sum(sorted(errors)[:37]) + 1e-9)
    assert kept == list(range(37))
    assert tried <= 2 * math.ceil(math.log2(100))


def test_a_limit_for_each_layer() -> None:
    assert chosen([0.1, 0.5, 0.3], 9.0, 0.4)[0] == [0, 2]
    with pytest.raises(Infeasible, match="no layer"):
        chosen([0.5, 0.6], 9.0, 0.4)


def test_out_of_reach() -> None:
    with pytest.raises(Infeasible, match=r"a single layer errs by 10\.0%, more than the 5% allowed"):
        chosen([0.1, 0.5, 0.3], 0.05)
    with pytest.raises(Infeasible, match=r"quantized, the model errs by 10\.0%"):
        chosen([0.1], 0.05)


def test_harm_is_what_a_model_with_that_layer_changed_errs() -> None:
    """Through the gates, and by hand."""
    model = perceptron()
    normalize(model)
    layers = list(find_layers(model.graph))
    yardstick = Yardstick(model, [{"x": rows()}], threads=1)
    random = np.random.default_rng(0)
    changed = [layer.read() + random.standard_normal(layer.read().shape).astype(np.float32) / 50 for layer in layers]
    found = harms(
        model,
        layers,
        lambda layer: Rounding(changed[layers.index(layer)], None),  # type: ignore[arg-type]
        yardstick,
        threads=1,
    )
    for layer, weight, harm in zip(layers, changed, found, strict=True):
        name: Any = layer.node.inputs[1]
        assert yardstick.error(perceptron(0, **{name.name: weight})) == pytest.approx(harm, rel=1e-3)
    assert len(set(found)) == 3


def test_gates_that_are_shut_change_nothing() -> None:
    model = perceptron()
    normalize(model)
    layers = list(find_layers(model.graph))
    found = harms(
        model,
        layers,
        lambda layer: Rounding(layer.read(), None),
        Yardstick(model, [{"x": rows()}], threads=1),
        threads=1,
    )
    assert max(found) < 1e-12


def test_yardstick() -> None:
    yardstick = Yardstick(perceptron(), [{"x": rows(8)}, {"x": rows(5, seed=3)}], threads=1)
    assert yardstick.error(perceptron()) == 0
    expected = [one[0] for one in yardstick._expected]
    scores = np.concatenate(expected)
    off = [[one + 0.5] for one in expected]
    assert yardstick.distance(off) == pytest.approx(0.25 / scores.var())
    broken = [[np.full_like(one, np.nan)] for one in expected]
    assert yardstick.distance(broken) == math.inf
    assert yardstick.distance([[one[:, :3]] for one in expected]) == math.inf


def test_share() -> None:
    assert [share(number) for number in (0.0, 1e-7, 0.0123, 0.5, math.inf)] == [
        "0%",
        "1e-05%",
        "1.2%",
        "50.0%",
        "infinity",
    ]
