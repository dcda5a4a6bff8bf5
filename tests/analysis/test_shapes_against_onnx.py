"""Predicted against real shapes: onnx's node cases with their expected outputs, and real models run by ONNX Runtime.

Every symbol gets a number: the input's real extent, or for a symbol first met in a result the real extent there. After
that each prediction must evaluate to what is real; a prediction may be missing, never wrong.
"""

from __future__ import annotations

import collections
import functools
import tomllib
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from conftest import ROOT
from onnx.backend.test.case.node import collect_testcases
from onnxruntime.capi.onnxruntime_pybind11_state import (
    Fail,
    InvalidArgument,
    InvalidGraph,
    NotImplemented,  # noqa: A004
    RuntimeException,
)

from graphopt import proto
from graphopt.analysis.dims import Dim, evaluate
from graphopt.analysis.shapes import Shapes

Array = npt.NDArray[Any]
_REFUSED = (Fail, InvalidArgument, InvalidGraph, NotImplemented, RuntimeException, RuntimeError, ValueError)


class _Witness:
    """Compares predictions with real tensors and keeps the numbers that symbols turned out to have."""

    def __init__(self, shapes: Shapes) -> None:
        self.shapes = shapes
        self.bindings: dict[str, int] = {}
        self.count: collections.Counter[str] = collections.Counter()
        self.wrong: list[str] = []

    def see(self, value: ir.Value, real: Array) -> None:
        shape, data, dtype = self.shapes.of(value), self.shapes.data(value), self.shapes.dtype(value)
        self.count["values"] += 1
        if dtype is not None and real.dtype.kind in "fiub" and real.dtype.itemsize > 1:
            self._expect(value, "dtype", dtype, ir.DataType.from_numpy(real.dtype))
        if shape is None:
            return
        self.count["ranked"] += 1
        self._expect(value, "rank", len(shape), real.ndim)
        known = [self._check(value, "dim", dim, extent) for dim, extent in zip(shape, real.shape, strict=False)]
        self.count["complete"] += all(known)
        if data is not None:
            self._expect(value, "size", len(data), real.size)
            for item, number in zip(data, real.reshape(-1).tolist(), strict=False):
                self._check(value, "item", item, int(number))

    def _check(self, value: ir.Value, what: str, dim: Dim, real: int) -> bool:
        predicted = evaluate(dim, self.bindings)
        if predicted is not None:
            self._expect(value, f"{what} {dim}", predicted, real)
            return True
        assert not isinstance(dim, int)
        if len(dim.terms) == 1 and dim.terms[0][1] == 1 and len(dim.terms[0][0]) == 1:
            atom = dim.terms[0][0][0]
            if atom.kind == "name":
                self.bindings[atom] = real
        return False

    def _expect(self, value: ir.Value, what: str, predicted: object, real: object) -> None:
        if predicted != real:
            self.wrong.append(f"{value.name} {what}: predicted {predicted}, is {real}")


def _values(model: ir.Model) -> list[ir.Value]:
    return [*model.graph.inputs, *[output for node in model.graph for output in node.outputs if output.name]]


def _run_all(model: onnx.ModelProto, feeds: Mapping[str, Array]) -> dict[str, Any]:
    """Every value of the main graph."""
    exposed = onnx.ModelProto()
    exposed.CopyFrom(model)
    outputs = {output.name for output in model.graph.output}
    names = [name for node in model.graph.node for name in node.output if name and name not in outputs]
    exposed.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    session = ort.InferenceSession(exposed.SerializeToString(), options, ["CPUExecutionProvider"])
    return {**feeds, **dict(zip([o.name for o in session.get_outputs()], session.run(None, dict(feeds)), strict=True))}


@functools.cache
def _cases() -> list[Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return [case for case in collect_testcases(None) if case.model is not None and case.data_sets]


def _array(item: Any) -> Any:
    return onnx.numpy_helper.to_array(item) if isinstance(item, onnx.TensorProto) else item


def _loosen(model: ir.Model, random: np.random.Generator | None) -> None:
    """Replaces input dims by symbols (about half of them, or all where ``random`` is None) and drops other types."""
    for place, value in enumerate(model.graph.inputs):
        if value.shape is not None:
            value.shape = ir.Shape(
                [
                    f"in{place}_{axis}" if random is None or random.random() < 0.5 else dim
                    for axis, dim in enumerate(value.shape)
                ]
            )
    for node in model.graph:
        for output in node.outputs:
            output.shape, output.type = None, None


@pytest.mark.parametrize("variant", ["declared", "half symbolic", "all symbolic"])
def test_node_cases_are_never_contradicted(variant: str) -> None:
    random = np.random.default_rng(7) if variant == "half symbolic" else None
    count: collections.Counter[str] = collections.Counter()
    wrong: list[str] = []
    for case in _cases():
        model = proto.from_proto(case.model)
        if variant != "declared":
            _loosen(model, random)
        inputs, outputs = case.data_sets[0]
        real = dict(zip([item.name for item in case.model.graph.output], map(_array, outputs), strict=True))
        real.update(zip([item.name for item in case.model.graph.input], map(_array, inputs), strict=False))
        witness = _Witness(Shapes(model))
        for value in _values(model):
            if isinstance(real.get(value.name or ""), np.ndarray):
                witness.see(value, real[value.name or ""])
        count += witness.count
        wrong += [f"{case.name}: {line}" for line in witness.wrong]
    assert not wrong, "\n".join(wrong[:40])
    assert count["values"] > 5000
    assert count["ranked"] > 0.97 * count["values"]


@pytest.mark.slow
def test_inner_values_of_expanded_node_cases_are_never_contradicted() -> None:
    wrong: list[str] = []
    seen = 0
    for case in _cases():
        if len(case.model.graph.node) < 2:
            continue
        feeds = dict(
            zip([item.name for item in case.model.graph.input], map(_array, case.data_sets[0][0]), strict=False)
        )
        model = proto.from_proto(case.model)
        _loosen(model, None)
        try:
            real = _run_all(case.model, feeds)
        except _REFUSED:
            continue  # nothing to compare with
        witness = _Witness(Shapes(model))
        for value in _values(model):
            if isinstance(real.get(value.name or ""), np.ndarray):
                witness.see(value, real[value.name or ""])
        wrong += [f"{case.name}: {line}" for line in witness.wrong]
        seen += witness.count["values"]
    assert not wrong, "\n".join(wrong[:40])
    assert seen > 5000


_MODELS = tomllib.loads((ROOT / "models" / "manifest.toml").read_text())["model"]
# A free dim of an input counts as unknown once, which is much where there are few values.
_COVERED = {"digits": 0.9, "surf_gbr": 0.9, "silero_vad_16k_op15": 0.8, "silero_vad": 0.5}


def _feed(item: Mapping[str, Any], random: np.random.Generator) -> Array:
    kind, _, detail = item["values"].partition(":")
    shape = item["shape"]
    made: Any
    if kind == "int":
        low, high = map(int, detail.split(","))
        made = random.integers(low, high, shape)
    elif kind == "const":
        made = np.full(shape, float(detail))
    else:
        made = random.random(shape) if kind == "rand" else random.standard_normal(shape) * float(detail or 1)
    return np.asarray(made).astype(item["dtype"])


@pytest.mark.parametrize("entry", _MODELS, ids=[entry["name"] for entry in _MODELS])
def test_real_models_are_never_contradicted(entry: Mapping[str, Any]) -> None:
    raw = onnx.load(ROOT / "models" / entry["file"])
    model = proto.from_proto(raw)
    random = np.random.default_rng(3)
    real = _run_all(raw, {item["name"]: _feed(item, random) for item in entry["inputs"]})
    witness = _Witness(Shapes(model))
    for value in _values(model):
        if isinstance(real.get(value.name or ""), np.ndarray):
            witness.see(value, real[value.name or ""])
    assert not witness.wrong, "\n".join(witness.wrong[:20])
    assert witness.count["complete"] >= _COVERED.get(entry["name"], 0.98) * witness.count["values"]
