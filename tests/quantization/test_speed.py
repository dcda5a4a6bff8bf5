"""Which layers are slower in integers: with a stopwatch that adds up made-up times."""

from __future__ import annotations

from typing import Any

import pytest
from quantization.examples import perceptron, rows

import graphopt
from graphopt.quantization import speed
from graphopt.quantization.choice import Choice


class Layer:
    """A layer that saves time, or costs some, beside certain others."""

    def __init__(self, saves: float, alone: float | None = None) -> None:
        self.saves, self.alone = saves, alone if alone is not None else saves


class Watch:
    """Says that a model takes ten milliseconds less what its layers save."""

    asked = 0

    def __init__(self, original: Any, feeds: Any, **settings: Any) -> None:
        self._original = original

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def ratio(self, model: Any) -> Any:
        Watch.asked += 1
        return type("Interval", (), {"value": time(self._original) / time(model)})


def time(model: list[Any]) -> float:
    return 10.0 - float(sum(layer.saves if len(model) > 2 else layer.alone for layer in model))


@pytest.fixture(autouse=True)
def _watch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "Stopwatch", Watch)


def left(layers: list[Any]) -> Any:
    build: Any = list
    given: Any = layers
    return speed.faster(Choice(given, given, {}, 0.0), build, {})


def test_what_costs_time_goes() -> None:
    fast, slow = Layer(2), Layer(-3)
    found = left([fast, slow, fast])
    assert found.layers == [fast, fast]
    assert found.left == {slow: "without it the model is 1.50 times as fast here"}


def test_nothing_goes_for_noise() -> None:
    layers = [Layer(1), Layer(-0.05), Layer(1)]
    assert left(layers).layers == layers


def test_again_with_what_is_left() -> None:
    """A layer that pays only beside others is found out in the second round."""
    social = Layer(0.5, alone=-2)
    keeper = Layer(1)
    assert left([social, keeper, Layer(-3)]).layers == [keeper]


def test_one_layer_stays() -> None:
    only = Layer(-5)
    assert left([only]).layers == [only]


def test_through_the_front_door(monkeypatch: pytest.MonkeyPatch) -> None:
    """``faster`` names what it left out, and the error is that of the result."""

    class Slower(Watch):
        def ratio(self, model: Any) -> Any:
            integers = {node.op_type for node in model.graph}
            names = {node.name for node in model.graph if node.op_type == "Gemm" and node.domain == ""}
            assert integers
            return type("Interval", (), {"value": 1.5 if "second" in names else 0.9})

    monkeypatch.setattr(speed, "Stopwatch", Slower)
    quantized, report = graphopt.quantize(
        perceptron(), {"x": rows()}, scheme="weights-int8", faster=True, time=False, threads=1, with_report=True
    )
    reasons = {layer.name: layer.reason for layer in report.layers if not layer.quantized}
    assert reasons == {"second": "without it the model is 1.50 times as fast here"}
    assert sum(node.op_type == "MatMulNBits" for node in quantized.graph) == 2
    _, whole = graphopt.quantize(
        perceptron(), {"x": rows()}, scheme="weights-int8", time=False, threads=1, with_report=True
    )
    assert 0 < report.error < whole.error
