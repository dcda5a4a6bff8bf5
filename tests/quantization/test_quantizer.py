"""``graphopt.quantize`` as a whole."""

from __future__ import annotations

import collections
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import pytest
from harness import parse
from quantization.examples import convolutional, images, perceptron, rows
from rich.console import Console

import graphopt
from graphopt import proto, runtime
from graphopt.errors import Infeasible, ModelError, UsageError
from graphopt.quantization import METHODS, SCHEMES

Array = npt.NDArray[Any]
QUICK: dict[str, Any] = {"time": False, "threads": 1}


def run(model: ir.Model, **feeds: Array) -> Array:
    found: Array = runtime.open_session(model, threads=1).run(None, feeds)[0]
    return found


def operators(model: ir.Model) -> collections.Counter[str]:
    return collections.Counter(node.op_type for node in model.graph)


def missed(model: ir.Model, quantized: ir.Model, x: Array) -> float:
    """The squared difference as a share of the variance."""
    a, b = run(model, x=x).astype(np.float64), run(quantized, x=x)
    assert np.isfinite(b).all()
    return float(np.square(a - b).sum() / np.square(a - a.mean()).sum())


def bytes_of(model: ir.Model) -> bytes:
    return proto.join(proto.to_buffers(model))


@pytest.mark.parametrize(("scheme", "limit"), [
    ("static", 2e-3), ("dynamic", 2e-3), ("weights-int8", 2e-4), ("weights-int4", 4e-2),
])  # fmt: skip
def test_each_scheme_on_products(scheme: str, limit: float) -> None:
    model = perceptron()
    before = bytes_of(model)
    quantized, report = graphopt.quantize(
        model, {"x": rows()}, scheme=scheme, max_error=0.05, with_report=True, **QUICK
    )
    assert bytes_of(model) == before, "the original is never changed"
    assert 1e-7 < missed(model, quantized, rows(seed=7)) < limit
    assert [layer.name for layer in report.layers if layer.quantized] == ["plus", "second", "head"]
    assert report.after.bytes < 0.5 * report.before.bytes
    assert all(0 < layer.error < limit for layer in report.layers)
    onnx.checker.check_model(proto.to_proto(quantized))


EXPECTED = {
    "static": {"QuantizeLinear", "DequantizeLinear"},
    "dynamic": {"DynamicQuantizeLinear", "MatMulInteger"},
    "weights-int8": {"MatMulNBits"},
    "weights-int4": {"MatMulNBits"},
}


@pytest.mark.parametrize("scheme", SCHEMES)
def test_operators_and_dtypes(scheme: str) -> None:
    quantized = graphopt.quantize(perceptron(), {"x": rows()}, scheme=scheme, max_error=0.05, **QUICK)
    assert EXPECTED[scheme] <= set(operators(quantized))
    floats = [value for value in quantized.graph.initializers.values() if value.dtype == ir.DataType.FLOAT]
    assert not [value.name for value in floats if value.shape is not None and len(value.shape) == 2]


def test_static_keeps_what_lies_between_in_integers() -> None:
    model = convolutional()
    quantized, report = graphopt.quantize(model, {"x": images()}, optimize=False, with_report=True, **QUICK)
    assert missed(model, quantized, images(seed=7)) < 2e-3
    assert all(layer.quantized for layer in report.layers)
    assert operators(quantized)["Relu"] == 0, "rounding to uint8 from zero on is a Relu"
    total = {
        name
        for name, one in quantized.graph.initializers.items()
        if one.dtype == ir.DataType.INT8 and one.const_value is not None and one.const_value.size > 16
    }
    assert len(total) == 5
    producers = {node.op_type for value in _read_by(quantized, "Add") if (node := value.producer()) is not None}
    assert producers == {"DequantizeLinear"}


def _read_by(model: ir.Model, operator: str) -> list[ir.Value]:
    return [value for node in model.graph if node.op_type == operator for value in node.inputs if value is not None]


def test_scales_are_per_channel_unless_asked_otherwise() -> None:
    skewed = np.float32(10.0) ** np.linspace(-3, 0, 16, dtype=np.float32)[:, None, None, None]
    model = convolutional(k2=convolutional().graph.initializers["k2"].const_value.numpy() * skewed)  # type: ignore[union-attr]
    errors = {}
    for per_channel in (True, False):
        quantized = graphopt.quantize(model, {"x": images()}, per_channel=per_channel, max_error=1.0, **QUICK)
        sizes = {
            value.const_value.size
            for name, value in quantized.graph.initializers.items()
            if name.endswith("scale") and value.const_value is not None
        }
        assert (max(sizes) == 16) is per_channel
        errors[per_channel] = missed(model, quantized, images(seed=7))
    assert errors[True] < errors[False]


@pytest.mark.parametrize("scheme", ["static", "dynamic"])
def test_seven_bits(scheme: str) -> None:
    quantized = graphopt.quantize(perceptron(), {"x": rows()}, scheme=scheme, reduce_range=True, max_error=0.1, **QUICK)
    integers = [
        one.const_value.numpy()
        for one in quantized.graph.initializers.values()
        if one.dtype == ir.DataType.INT8 and one.const_value is not None
    ]
    assert max(np.abs(one).max() for one in integers if one.ndim == 2) in (63, 64)


def test_harmful_layers_stay_float_and_are_named() -> None:
    """An outlier that one scale cannot hold beside the others."""
    spoiled = rows()
    spoiled[:, 0] *= 3000
    w1 = np.array(perceptron().graph.initializers["w1"].const_value.numpy())  # type: ignore[union-attr]
    w1[0] /= 3000
    model = perceptron(w1=w1)
    quantized, report = graphopt.quantize(model, {"x": spoiled}, max_error=0.005, with_report=True, **QUICK)
    left = {layer.name: layer for layer in report.layers if not layer.quantized}
    assert list(left) == ["plus"]
    assert "to stay within 0.5%" in left["plus"].reason
    assert report.error <= 0.005
    assert missed(model, quantized, spoiled) <= 0.005
    assert max(report.layers, key=lambda layer: layer.error or 0).name == "plus"
    with pytest.raises(Infeasible, match=r"more than the 1e-05%"):
        graphopt.quantize(model, {"x": spoiled}, max_error=1e-7, **QUICK)
    _, report = graphopt.quantize(
        model, {"x": spoiled}, max_error=9.0, max_layer_error=0.005, with_report=True, **QUICK
    )
    assert [layer.name for layer in report.layers if not layer.quantized] == ["plus"]
    with pytest.raises(Infeasible, match="no layer"):
        graphopt.quantize(model, {"x": spoiled}, max_layer_error=1e-9, **QUICK)


def test_excluded_layers_stay() -> None:
    _, report = graphopt.quantize(perceptron(), {"x": rows()}, exclude=["head", "fir*"], with_report=True, **QUICK)
    assert {layer.name: layer.reason for layer in report.layers} == {
        "second": "", "plus": "it is excluded", "head": "it is excluded",
    }  # fmt: skip
    with pytest.raises(UsageError, match="no layer is called 'nothing\\*'"):
        graphopt.quantize(perceptron(), {"x": rows()}, exclude="nothing*", **QUICK)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_same_inputs_same_bytes(scheme: str) -> None:
    first, second = (
        graphopt.quantize(perceptron(), {"x": rows()}, scheme=scheme, max_error=0.05, **QUICK) for _ in range(2)
    )
    assert bytes_of(first) == bytes_of(second)


def test_nothing_is_left_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """No files in the working directory, no prints, no log lines, no change of the log level."""
    monkeypatch.chdir(tmp_path)
    for scheme in SCHEMES:
        graphopt.quantize(convolutional(), {"x": images()}, scheme=scheme, max_error=0.5, **QUICK)
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")
    assert not caplog.records
    assert logging.getLogger().manager.disable == logging.NOTSET


@pytest.mark.parametrize("kind", ["path", "ir", "proto"])
def test_gives_back_the_kind_that_came(kind: str, tmp_path: Path) -> None:
    model = perceptron()
    graphopt.save(model, tmp_path / "model.onnx")
    source = {"path": tmp_path / "model.onnx", "ir": model, "proto": proto.to_proto(model)}[kind]
    quantized = graphopt.quantize(source, {"x": rows()}, **QUICK)
    assert isinstance(quantized, onnx.ModelProto if kind == "proto" else ir.Model)


def test_without_data_it_says_so() -> None:
    _, report = graphopt.quantize(perceptron(), samples=32, with_report=True, **QUICK)
    assert any("do not trust the result" in note for note in report.notes)
    _, report = graphopt.quantize(perceptron(), samples=32, scheme="dynamic", with_report=True, **QUICK)
    assert any("measured on noise" in note for note in report.notes)
    _, report = graphopt.quantize(perceptron(), {"x": rows()}, with_report=True, **QUICK)
    assert not report.notes


@pytest.mark.parametrize("method", [*METHODS, "auto"])
def test_methods(method: str) -> None:
    quantized, report = graphopt.quantize(
        perceptron(), {"x": rows()}, method=method, with_report=True, max_error=0.05, **QUICK
    )
    assert report.method in METHODS
    assert missed(perceptron(), quantized, rows(seed=7)) < 0.01


def test_auto_is_no_worse_than_each() -> None:
    heavy = np.random.default_rng(5).standard_t(2.5, (256, 32)).astype(np.float32)
    errors = {}
    for method in [*METHODS, "auto"]:
        _, report = graphopt.quantize(
            perceptron(), {"x": heavy}, method=method, with_report=True, max_error=9.0, **QUICK
        )
        errors[method] = report.error
    assert errors["auto"] == min(errors.values())
    assert len(set(errors.values())) > 2


def test_outputs_of_products_that_no_integer_reads_stay_float() -> None:
    """Scores are not rounded to 256 levels."""
    quantized = graphopt.quantize(perceptron(), {"x": rows()}, **QUICK)
    producer = quantized.graph.outputs[0].producer()
    assert producer is not None
    assert producer.op_type == "MatMul"
    assert quantized.graph.outputs[0].name == "scores"
    assert len(np.unique(run(quantized, x=rows())[:, 0])) > 64


def test_refuses_quantized_models() -> None:
    quantized = graphopt.quantize(perceptron(), {"x": rows()}, **QUICK)
    with pytest.raises(ModelError, match="quantized already"):
        graphopt.quantize(quantized, {"x": rows()}, **QUICK)


def test_nothing_to_quantize() -> None:
    with pytest.raises(ModelError, match="the model has none of"):
        graphopt.quantize(parse("agraph (float[N,8] x) => (float[N,8] y) { y = Relu (x) }"), **QUICK)
    half = parse(
        "agraph (float16[N,8] x) => (float16[N,4] y) { [only] y = MatMul (x, w) }", {"w": np.ones((8, 4), np.float16)}
    )
    with pytest.raises(ModelError, match=r"only.*float16"):
        graphopt.quantize(half, **QUICK)
    endless = parse(
        "agraph (float[N,8] x) => (float[N,4] y) { [only] y = MatMul (x, w) }",
        {"w": np.full((8, 4), np.inf, np.float32)},
    )
    with pytest.raises(ModelError, match="not finite"):
        graphopt.quantize(endless, optimize=False, **QUICK)


@pytest.mark.parametrize(("options", "words"), [
    ({"scheme": "int8"}, "there is no scheme 'int8'"),
    ({"method": "max"}, "there is no method 'max'"),
    ({"max_error": 0}, "max_error=0 is no limit"),
    ({"max_error": float("nan")}, "max_error=nan"),
    ({"max_layer_error": -1.0}, "max_layer_error"),
    ({"samples": 0}, "samples=0"),
    ({"batch": 0}, "batch=0"),
    ({"seed": -1}, "seed=-1"),
])  # fmt: skip
def test_refuses_options(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        graphopt.quantize(perceptron(), {"x": rows()}, **options)


@pytest.mark.parametrize(("scheme", "opset"), [("static", 13), ("dynamic", 11), ("weights-int4", 11)])
def test_old_opsets_are_lifted_where_needed(scheme: str, opset: int) -> None:
    model = proto.to_proto(perceptron())
    model.opset_import[0].version, model.ir_version = 11, 6
    quantized, report = graphopt.quantize(
        proto.from_proto(model), {"x": rows()}, scheme=scheme, max_error=0.05, with_report=True, **QUICK
    )
    assert quantized.opset_imports[""] == opset
    assert any("opset 11" in note for note in report.notes) is (opset == 13)
    assert missed(perceptron(), quantized, rows(seed=7)) < 0.04
    onnx.checker.check_model(proto.to_proto(quantized))


def test_what_cannot_be_lifted(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(message: object, version: int) -> None:
        raise RuntimeError("no adapter for  Frobnicate")

    monkeypatch.setattr("onnx.version_converter.convert_version", fails)
    model = proto.to_proto(perceptron())
    model.opset_import[0].version, model.ir_version = 11, 6
    with pytest.raises(ModelError, match="from opset 11 to 13: no adapter for Frobnicate"):
        graphopt.quantize(proto.from_proto(model), {"x": rows()}, **QUICK)


def test_report(tmp_path: Path) -> None:
    _, report = graphopt.quantize(perceptron(), {"x": rows()}, exclude="head", with_report=True, time=True, threads=1)
    found = json.loads(json.dumps(report.to_dict()))
    assert found["scheme"] == "static"
    assert {layer["name"] for layer in found["layers"]} == {"plus", "second", "head"}
    assert found["fidelity"]["error"]["scores"] < 0.01
    assert found["speedup"]["value"] > 0
    console = Console(width=100, record=True, file=(tmp_path / "out.txt").open("w"))
    console.print(report)
    text = console.export_text()
    assert "static: 2 of 3 layers quantized" in text
    assert "it is excluded" in text
    assert "<table>" in report._repr_html_()
    assert "samples that had no part in it" in " ".join(text.split())


def test_large_fixed_batches() -> None:
    """A model that takes more at once than is looked at otherwise."""
    message = proto.to_proto(perceptron())
    for value in (*message.graph.input, *message.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 600
    model = proto.from_proto(message)
    quantized, report = graphopt.quantize(model, {"x": rows(2400)}, with_report=True, **QUICK)
    assert missed(model, quantized, rows(600, seed=7)) < 2e-3
    assert report.fidelity.samples == 600


def test_too_few_samples_to_hold_any_out() -> None:
    _, report = graphopt.quantize(perceptron(), {"x": rows(5)}, with_report=True, max_error=0.1, **QUICK)
    assert not report.is_held_out
    assert "had no part" not in report._repr_html_()
