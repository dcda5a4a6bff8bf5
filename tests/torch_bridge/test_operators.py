"""The table of operators against ONNX Runtime, on onnx's own node cases and on real models."""

from __future__ import annotations

import random
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from equivalence.cases import collect
from torch_bridge.node_cases import concerned, judge
from zoo.architecture import export
from zoo.catalogue import CASES
from zoo.checks import distance
from zoo.checks import feeds as zoo_feeds
from zoo.checks import run as zoo_run

import graphopt
import graphopt.torch as bridge
from graphopt import runtime
from graphopt.verify.feeds import Plan

KNOWN = {
    "training_dropout": "random in both",
    "maxunpool_export_with_output_shape": "ONNX Runtime takes the places for those of the larger output",
    "no_saturate": "overflow is NaN in torch and a finite number in ONNX Runtime",
    "qk_matmul_bias": "minus infinity against the lowest number",
}
"""Why some cases differ, by a part of their names."""

FRAGILE = {
    "basic_pitch": "logarithms of amplitudes near zero magnify the rounding of either by a thousand",
    "ppocrv6_det_tiny": "ONNX Runtime approximates the last Sigmoid, whose results are small",
}
"""Models of which both sides keep less than 1e-5 to each other: there float64 is the judge."""


def outcome(case: Any) -> str | None:
    try:
        return judge(case)
    except (graphopt.GraphoptError, RuntimeError, TypeError, ValueError) as error:
        return f"{type(error).__name__}: {error}"


def test_a_sample_of_the_node_cases_agrees() -> None:
    cases = random.Random(0).sample([case for case in collect() if concerned(case)], 150)
    found = {case.name: outcome(case) for case in cases}
    wrong = {name: why for name, why in found.items() if why and not any(part in name for part in KNOWN)}
    assert sum(why is not None for why in found.values()) > 90
    assert not wrong


@pytest.mark.slow
def test_nearly_all_node_cases_agree() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = {case.name: outcome(case) for case in collect() if concerned(case)}
    ran = {name: why for name, why in found.items() if why is not None}
    wrong = {name: why for name, why in ran.items() if why}
    assert len(ran) > 1400
    assert len(wrong) <= 0.01 * len(ran), wrong
    assert not [name for name in wrong if not any(part in name for part in KNOWN)]


@pytest.mark.parametrize(
    "name",
    [
        "silero_vad", "silero_vad_16k_op15", "magika", "ppocrv2_cls", "ppocrv6_det_tiny", "ppocrv6_rec_tiny",
        "basic_pitch", "thai_deepcut", "caustic_painn", "brainmaze_spindle", "light_squeezenet", "light_shufflenet",
    ],
)  # fmt: skip
def test_shipped_models_agree_with_onnx_runtime(name: str, models: Path) -> None:
    model = graphopt.load(models / f"{name}.onnx")
    session = runtime.open_session(models / f"{name}.onnx", optimization="off", faithful=True)
    feeds, expected = _first_that_runs(model, session)
    with torch.no_grad():
        actual = bridge.from_onnx(model).named(feeds).values()
        if name in FRAGILE:
            wide = bridge.from_onnx(model).double().named({key: _wide(one) for key, one in feeds.items()}).values()
            exact = [one.numpy() for one in wide]
            ours, theirs = (
                distance([_wide(one) for one in side], exact) for side in (map(np.asarray, actual), expected)
            )
            assert ours <= theirs < 5e-5
            return
    for one, other in zip(expected, actual, strict=True):
        assert one.shape == tuple(other.shape)
        if one.dtype.kind == "f":
            assert np.abs(one - other.numpy()).max() <= 1e-5 * np.abs(one).max()
        else:
            np.testing.assert_array_equal(one, other.numpy())


def _wide(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return array.astype(np.float64) if array.dtype == np.float32 else array


def _first_that_runs(model: Any, session: Any) -> tuple[dict[str, Any], list[Any]]:
    plan = Plan.of(model, {})
    for guess in plan.guesses():
        feeds = plan.fill(guess, 0)
        try:
            if feeds is not None:
                return feeds, list(session.run(None, feeds))
        except runtime.ort_errors():
            continue
    raise AssertionError("no inputs fit")


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_zoo_agrees_with_onnx_runtime(case: Any) -> None:
    model = export(case.architecture, case.exporter)
    inputs = zoo_feeds(model)
    with torch.no_grad():
        outputs = [one.numpy() for one in bridge.from_onnx(model).named(inputs).values()]
    assert distance(outputs, zoo_run(model, inputs)) <= 1e-5
