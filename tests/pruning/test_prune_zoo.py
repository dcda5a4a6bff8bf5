"""Architectures as exporters write them, pruned end to end: they run, they keep the goal, reconstruction helps."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from zoo.architecture import export
from zoo.catalogue import CASES, Case
from zoo.checks import feeds, run

import graphopt
from graphopt import proto
from graphopt.pruning.report import PruneReport

Array = npt.NDArray[Any]

_GOAL = 0.7
_HARM = 1.5  # times the error without reconstruction that is too much, on six samples
_DEFAULT = (
    "resnet-basic-legacy",
    "mobilenet-v2-legacy",
    "siamese-legacy",  # two towers of the same weights
    "aspp-legacy",  # Resize to a size that an earlier stage computes
    "mlp-mixer-legacy",  # tokens go as well as channels
    "rnn-dynamo",  # sums of other ranks than the layer's result
    "vit-fused-3hd-dynamo",
    "llama-legacy",
    "conv-qdq-onnx",
    "if-branches-onnx",
    "functions-onnx",
)


def _pruned(
    model: onnx.ModelProto, inputs: list[dict[str, Array]], *, fit: bool
) -> tuple[onnx.ModelProto, PruneReport]:
    result, report = graphopt.prune(
        proto.from_proto(model),
        {"params": _GOAL},
        inputs,
        optimize=False,
        check=False,
        samples=8,
        batch=1,
        threads=1,
        reconstruct=fit,
        with_report=True,
    )
    return proto.to_proto(result), report


def _error(got: list[list[Array]], wanted: list[list[Array]]) -> float:
    """The squared error of all float outputs as a share of their squares."""
    missed = total = 0.0
    for ours, theirs in zip(got, wanted, strict=True):
        for a, b in zip(ours, theirs, strict=True):
            assert (a.shape, a.dtype) == (b.shape, b.dtype)
            if b.dtype.kind == "f":
                assert np.isfinite(a).all() or not np.isfinite(b).all()
                missed += float(np.square(a.astype(np.float64) - b).sum())
                total += float(np.square(b.astype(np.float64)).sum())
    return missed / total


def _check(case: Case) -> None:
    model = export(case.architecture, case.exporter)
    inputs = [feeds(model, seed) for seed in range(6)]
    wanted = [run(model, one) for one in inputs]
    errors = []
    for fit in (False, True):
        pruned, report = _pruned(model, inputs, fit=fit)
        onnx.checker.check_model(pruned)
        assert report.after.params <= _GOAL * report.before.params
        errors.append(_error([run(pruned, one) for one in inputs], wanted))
    assert errors[1] <= _HARM**2 * errors[0] + 1e-12


@pytest.mark.parametrize("name", _DEFAULT)
def test_architectures_are_pruned(name: str) -> None:
    _check(next(case for case in CASES if str(case) == name))


@pytest.mark.slow
@pytest.mark.parametrize("case", [case for case in CASES if str(case) not in _DEFAULT], ids=str)
def test_every_architecture_is_pruned(case: Case) -> None:
    _check(case)
