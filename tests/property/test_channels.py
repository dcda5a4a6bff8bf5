"""Removing channels from random networks equals masking them, and random models of any kind stay whole."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, Phase, given, reject, settings
from hypothesis import strategies as st
from property.models import Example, models
from property.networks import networks
from zoo.checks import choose, distance, feeds, run

from graphopt import channels, proto
from graphopt.runtime import ort_errors
from graphopt.verify import structure

QUICK = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    print_blob=True,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
)
THOROUGH = settings(QUICK, max_examples=700, derandomize=False)
ROUNDING = 1e-5


def _check_network(model: onnx.ModelProto, seed: int) -> None:
    graph = channels.analyze(model)
    assert graph.groups
    units = choose(graph, seed, 0.5 if seed % 2 else None)
    pruned, masked = channels.remove(graph, units, check=False), channels.mask(graph, units)
    structure.check(proto.from_proto(pruned))
    onnx.checker.check_model(pruned, full_check=True)
    inputs = feeds(model, seed)
    expected = run(masked, inputs)
    noise = np.random.default_rng(seed)
    nearby = {name: array * (1 + 1e-6 * noise.standard_normal(array.shape)) for name, array in inputs.items()}
    if distance(run(masked, {name: array.astype(np.float32) for name, array in nearby.items()}), expected) > ROUNDING:
        reject()  # differences of nearly equal numbers magnify any rounding
    assert distance(run(pruned, inputs), expected) <= ROUNDING


def _check_model(example: Example, seed: int) -> bool:
    """Any operators at all: what has no rule keeps its size, and what is removed is removed exactly.

    Returns:
        Whether anything was.
    """
    try:
        run(example.model, example.feeds)
    except ort_errors():
        reject()  # ONNX Runtime gets some of them wrong itself
    graph = channels.analyze(example.model)
    units = choose(graph, seed)
    pruned, masked = channels.remove(graph, units, check=False), channels.mask(graph, units)
    structure.check(proto.from_proto(pruned))
    assert distance(run(pruned, example.feeds), run(masked, example.feeds)) <= ROUNDING
    return bool(units)


@QUICK
@given(networks(), st.integers(0, 1000))
def test_removal_equals_masking(model: onnx.ModelProto, seed: int) -> None:
    _check_network(model, seed)


@settings(QUICK, max_examples=40)
@given(models(), st.integers(0, 1000))
def test_models_of_any_kind_stay_whole(example: Example, seed: int) -> None:
    _check_model(example, seed)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("part", range(2))
def test_removal_equals_masking_at_length(part: int) -> None:
    settings(THOROUGH)(given(networks(12), st.integers(0, 1000))(_check_network))()


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_models_of_any_kind_stay_whole_at_length() -> None:
    removed: list[bool] = []
    check = given(models(), st.integers(0, 1000))(lambda example, seed: removed.append(_check_model(example, seed)))
    settings(THOROUGH)(check)()
    assert sum(removed) >= 70, "too few of the models had anything to remove"
