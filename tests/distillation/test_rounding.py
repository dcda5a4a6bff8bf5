"""Students that are quantized before they learn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
from distillation.school import FEW, data, factory, student, teacher
from harness import run
from quantization.examples import convolutional, images, perceptron, rows

import graphopt
from graphopt import proto
from graphopt.distillation.history import Moment
from graphopt.distillation.report import DistillReport
from graphopt.distillation.rounding import Rounded, is_quantized, rounded, settings
from graphopt.distillation.student import GraphStudent
from graphopt.errors import ModelError, UsageError

EXAMPLES: dict[str, tuple[Any, Any]] = {"perceptron": (perceptron, rows), "convolutional": (convolutional, images)}


def example(name: str, spec: str = "static", **options: Any) -> tuple[ir.Model, Rounded]:
    model, inputs = EXAMPLES[name]
    made = model()
    return made, rounded(made, spec, {"x": inputs()}, threads=1, **options)


def distilled(**options: Any) -> tuple[ir.Model, DistillReport]:
    found = graphopt.distill(
        teacher(), **(FEW | {"student": student(), "data": data(), "quantize": "static"} | options), with_report=True
    )
    model, report = found
    assert isinstance(model, ir.Model)
    return model, report


def bits(model: ir.Model) -> bytes:
    return b"".join(proto.to_buffers(model))


def constants_of(model: ir.Model) -> dict[str, Any]:
    return {
        name: value.const_value.numpy()
        for name, value in model.graph.initializers.items()
        if value.const_value is not None
    }


def parameters_of(learner: GraphStudent) -> dict[str, Any]:
    return {learner.module.names[name]: one.detach().numpy() for name, one in learner.module.named_parameters()}


@pytest.mark.parametrize("name", EXAMPLES)
def test_starts_as_the_quantized_model_and_between_its_integers(name: str) -> None:
    _, found = example(name)
    begun, coarse = GraphStudent(found.model, floats=found.floats), GraphStudent(found.model)
    for one, value in begun.to_onnx().graph.initializers.items():
        assert value.const_value is found.model.graph.initializers[one].const_value
    fine, rough = parameters_of(begun), parameters_of(coarse)
    assert fine.keys() == rough.keys() == found.floats.keys()
    for one, held in fine.items():
        np.testing.assert_allclose(held, found.floats[one], rtol=0, atol=1e-6)
        assert (held != rough[one]).mean() > 0.8


def test_floats_that_another_integer_is_nearest_to_are_not_taken() -> None:
    _, found = example("perceptron")
    (name, given), *_ = ((one, held) for one, held in found.floats.items() if held.ndim == 2)
    wrong = given.copy()
    wrong[0, 0] += 10 * np.abs(given).max()
    begun = GraphStudent(found.model, floats={name: wrong, "nothing": wrong})
    assert bits(begun.to_onnx()) == bits(GraphStudent(found.model).to_onnx())
    held = parameters_of(begun)[name]
    assert held[0, 0] != wrong[0, 0]
    assert np.array_equal(held[1:], given[1:])


@pytest.mark.parametrize("spec", ["static", "static:per-channel=no:reduce-range=yes:method=minmax"])
@pytest.mark.parametrize("name", EXAMPLES)
def test_only_integers_change_and_onnx_runtime_agrees(name: str, spec: str) -> None:
    made, inputs = EXAMPLES[name]
    options: dict[str, Any] = {"student": made(), "data": {"x": inputs(64)}, "quantize": spec, "threads": 1}
    taught, report = graphopt.distill(
        made(seed=5), **options, loss="logit-mse", epochs=3, batch=16, optimize=False, with_report=True
    )
    assert is_quantized(taught)
    assert report.off_by_one is not None
    assert report.off_by_one < 0.01
    assert max(report.deviation.values()) < 1e-5
    again = graphopt.distill(made(seed=5), **options, dry_run=True)
    before, after = constants_of(again), constants_of(taught)
    assert before.keys() == after.keys()
    kinds = {key: (one.dtype, one.shape) for key, one in before.items()}
    assert kinds == {key: (one.dtype, one.shape) for key, one in after.items()}
    weights = [key for key, (kind, _) in kinds.items() if kind == np.int8 and before[key].ndim > 1]
    assert any(not np.array_equal(before[key], after[key]) for key in weights)
    limit = 64 if "reduce-range=yes" in spec else 128
    assert all(np.abs(after[key].astype(np.int32)).max() <= limit for key in weights)
    assert [node.op_type for node in again.graph] == [node.op_type for node in taught.graph]


def test_learns_what_rounding_took_away() -> None:
    original = convolutional()
    x = images(128, seed=7)
    expected = run(original, {"x": x})[0]
    options: dict[str, Any] = {
        "quantize": "static:per-channel=no:reduce-range=yes:method=minmax",
        "loss": "logit-mse",
        "batch": 32,
        "threads": 1,
    }

    def error(**more: Any) -> float:
        model = graphopt.distill(original, original, {"x": images(256, seed=2)}, **options, **more)
        return float(np.square(run(model, {"x": x})[0] - expected).sum() / np.square(expected - expected.mean(0)).sum())

    assert error(epochs=6) < 0.3 * error(dry_run=True)


def test_reports_the_student_before_it_is_trained_so() -> None:
    _, report = distilled()
    assert [one.name for one in report.contenders] == ["teacher", "student before", "student quantized", "student"]
    sizes = {one.name: one.bytes or 0 for one in report.contenders}
    assert sizes["student quantized"] < sizes["student before"]
    assert report.rounds == [0]
    assert report.to_dict()["off_by_one"] == report.off_by_one
    assert "rounding by rounding" in report._repr_html_()


def test_what_is_new_is_trained_in_floats_first() -> None:
    for options in ({"student": teacher(), "prune": "macs=0.6"}, {"student": "shrink:macs=0.6"}):
        model, report = distilled(**options)
        assert report.rounds == [0, 3]
        assert [one.epoch for one in report.records] == list(range(6))
        assert is_quantized(model)


def test_same_seed_same_bytes_and_goes_on_to_them(tmp_path: Path) -> None:
    whole, _ = distilled()
    assert bits(distilled()[0]) == bits(whole)

    class Enough(Exception):
        pass

    def stop(moment: Moment) -> None:
        if moment.record is not None and moment.epoch == 1:
            raise Enough

    with pytest.raises(Enough):
        distilled(follow=stop, run_directory=tmp_path)
    assert bits(distilled(run_directory=tmp_path, resume=True)[0]) == bits(whole)
    with pytest.raises(UsageError, match="keeps another run"):
        distilled(run_directory=tmp_path, quantize="static:per-channel=no")


def test_a_dry_run_gives_the_quantized_student() -> None:
    model, report = distilled(dry_run=True)
    assert is_quantized(model)
    assert report.records == []


def test_layers_that_stay_float_are_named() -> None:
    _, found = example("perceptron", "static:exclude=head")
    assert any("'head' stays float: it is excluded" in note for note in found.notes)
    _, everything = example("perceptron", "static:exclude=head+sec*")
    assert sum("stays float" in note for note in everything.notes) == 2


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("dynamic", "gradients cannot pass it"),
        ("int8", "there is none of that name"),
        ("static:bits=4", "no option 'bits'"),
        ("static:per-channel=perhaps", "per-channel cannot be 'perhaps'"),
        ("static:per-channel", "in the quantization spec 'static:per-channel' is no option"),
        ("static:per-channel", "for example static:per-channel=no."),
    ],
)
def test_what_makes_no_sense(spec: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        settings(spec)
    with pytest.raises(UsageError, match=words):
        distilled(quantize=spec)


def test_what_cannot_be_quantized() -> None:
    with pytest.raises(UsageError, match="only students that are ONNX graphs"):
        distilled(student=factory())
    _, found = example("perceptron")
    with pytest.raises(ModelError, match="quantized already"):
        rounded(found.model, "static", {"x": rows()})
    with pytest.raises(UsageError, match="there is no method 'best'"):
        distilled(quantize="static:method=best")


def test_gradients_end_where_the_range_does() -> None:
    _, found = example("perceptron")
    begun = GraphStudent(found.model, floats=found.floats)
    far = torch.full((1, 32), 1e4, requires_grad=True)
    near = torch.zeros((1, 32), requires_grad=True)
    for x, flows in ((far, False), (near, True)):
        (slope,) = torch.autograd.grad(begun.outputs({"x": x})["scores"].sum(), x)
        assert bool(slope.abs().sum() > 0) is flows
