"""The models that ship here: groups are found, half of each goes, and the result proves itself."""

from __future__ import annotations

import warnings
from pathlib import Path

import onnx
import pytest
from zoo.checks import choose

import graphopt
from graphopt import channels, proto
from graphopt.inspect import inspect

GROUPS = {
    "silero_vad": 8,
    "silero_vad_16k_op15": 4,
    "magika": 3,
    "ppocrv2_cls": 26,
    "ppocrv6_det_tiny": 41,
    "ppocrv6_rec_tiny": 18,
    "basic_pitch": 3,
    "thai_deepcut": 16,
    "caustic_painn": 35,
    "brainmaze_spindle": 12,
    "surf_gbr": 2,
    "logreg_iris": 0,  # one layer, whose both sides are the interface
    "light_squeezenet": 25,
    "light_shufflenet": 13,
    "digits": 3,
}
"""At least so many groups."""


def test_every_model_is_listed(models: Path) -> None:
    assert {path.stem for path in models.glob("*.onnx")} == set(GROUPS)


@pytest.mark.parametrize("name", GROUPS)
def test_half_of_each_group_goes(name: str, models: Path, tmp_path: Path) -> None:
    graph = channels.analyze(models / f"{name}.onnx")
    assert len(graph.groups) >= GROUPS[name]
    assert graph.groups or graph.frozen or name == "logreg_iris"
    units = choose(graph, 0, 0.5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nothing stays unproven
        pruned = channels.remove(graph, units)
    assert bool(units) == bool(graph.groups)
    onnx.checker.check_model(proto.to_proto(pruned))
    graphopt.save(pruned, tmp_path / "pruned.onnx")
    assert not units or inspect(tmp_path / "pruned.onnx").costs.macs < inspect(models / f"{name}.onnx").costs.macs
