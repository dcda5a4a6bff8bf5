"""Operators at any number of channels: the same as in a model from which channels were removed, and ready to run."""

from __future__ import annotations

import random

import numpy as np
import pytest
from pruning import latency_examples as examples

import graphopt
from graphopt.analysis import constants
from graphopt.channels import ChannelGraph
from graphopt.errors import UsageError
from graphopt.pruning.latency.meter import Meter
from graphopt.pruning.latency.products import Site, Sizes, kind_of, sites

MULTIPLES = {"conv": 8, "matmul": 8}
MODELS = {
    "convolutions": (examples.convolutions, {"x": [2, 3, 16, 16]}),
    "matrices": (examples.matrices, {"x": [2, 7, 32]}),
    "recurrent": (examples.recurrent, {"x": [9, 2, 6]}),
}


def analysed(name: str) -> tuple[ChannelGraph, list[Site]]:
    build, shapes = MODELS[name]
    graph = graphopt.channels.analyze(build())
    return graph, sites(Sizes(graph, shapes), MULTIPLES)


def removable(graph: ChannelGraph, seed: int) -> list[graphopt.channels.Unit]:
    """Some units of each group, not all of any."""
    choice = random.Random(seed)
    return [unit for group in graph.groups for unit in choice.sample(group.units, choice.randrange(len(group.units)))]


def kept(graph: ChannelGraph, site: Site, gone: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> dict[int, int]:
    return {
        factor.number: factor.size - int(gone[factor.first : factor.first + factor.size].sum())
        for factor in site.factors
    }


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("seed", range(4))
def test_operators_are_those_of_the_pruned_model(name: str, seed: int) -> None:
    graph, own = analysed(name)
    while True:
        try:
            units = removable(graph, seed)
            gone = graph.gone(units)
            break
        except UsageError:  # a segment would be empty
            seed += 100
    pruned = graphopt.channels.remove(graph, units, check=False)
    nodes = {node.name: node for node in pruned.graph}
    assert gone.any()
    for site in own:
        operator = site.operator(kept(graph, site, gone))
        assert operator is not None
        node = nodes[site.node.name]
        for operand, value in zip(operator.inputs, node.inputs, strict=True):
            tensor = constants.constant(value)
            if operand is not None and tensor is not None:
                assert operand.shape == tuple(tensor.shape.numpy()), site.node.name
                assert operand.fixed
        adapted = {attribute.name: attribute.value for attribute in operator.attributes}
        assert adapted == {attribute.name: attribute.value for attribute in node.attributes.values()}, site.node.name


@pytest.mark.parametrize("name", MODELS)
def test_every_operator_runs_alone_at_full_size_and_at_half(name: str) -> None:
    _, own = analysed(name)
    meter = Meter("cpu", 1)
    assert len(own) == {"convolutions": 7, "matrices": 8, "recurrent": 3}[name]
    for site in own:
        for part in (1, 2):
            operator = site.operator({factor.number: factor.size // part for factor in site.factors})
            assert operator is not None
            assert (meter.milliseconds(operator) or 0) > 0, str(operator)


def test_a_slope_of_copies_is_a_time_too() -> None:
    _, own = analysed("convolutions")
    operator = own[0].operator({})
    assert operator is not None
    taken = Meter("cpu", 1, method="slope").milliseconds(operator)
    assert taken is not None
    assert 0 <= taken < 100


def test_what_onnx_runtime_refuses_has_no_time() -> None:
    _, own = analysed("matrices")
    operator = own[0].operator({})
    assert operator is not None
    broken = type(operator)("", "NoSuchOperator", 17, 17, (), operator.inputs)
    assert Meter("cpu", 1).milliseconds(broken) is None


def test_activations_that_fuse_are_measured_along() -> None:
    _, own = analysed("convolutions")
    found = {site.node.name: site.operator({}) for site in own}
    after = {name: operator and operator.activation and operator.activation.op_type for name, operator in found.items()}
    assert after["stem"] == "Clip"
    assert after["depthwise"] == "Relu"
    assert after["narrow"] is None  # two read it
    clip = found["stem"]
    assert clip is not None
    assert clip.activation is not None
    assert [None if operand is None else operand.contents for operand in clip.activation.inputs] == [None, 0.0, 6.0]


def test_steps_follow_what_lies_within_a_factor() -> None:
    _, own = analysed("matrices")
    steps = {site.node.name: {factor.size: factor.step for factor in site.factors} for site in own}
    assert steps["q"] == {4: 1}  # a head has 8 lanes
    assert steps["scores"] == {4: 1}  # heads are a batch
    assert steps["up"] == {32: 8, 64: 8}


def test_macs_are_those_of_the_shapes() -> None:
    _, own = analysed("matrices")
    (up,) = [site for site in own if site.node.name == "up"]
    assert up.macs == 2 * 7 * 32 * 64
    (wide,) = [factor for factor in up.factors if factor.size == 64]
    assert up.macs_at({wide.number: 16}) == 2 * 7 * 32 * 16


def test_kinds_of_fused_operators() -> None:
    assert [kind_of(name) for name in ("FusedConv", "SkipLayerNormalization", "LogSoftmax", "BiasGelu", "QGemm")] == [
        "product",
        "norm",
        "softmax",
        "other",
        "product",
    ]


def test_shapes_must_fit() -> None:
    graph = graphopt.channels.analyze(examples.matrices())
    with pytest.raises(UsageError, match="no input is named"):
        Sizes(graph, {"z": [1]})
    with pytest.raises(UsageError, match="axis 2"):
        Sizes(graph, {"x": [1, 7, 33]})
