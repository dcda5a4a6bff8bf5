"""How large the numbers get that a model computes."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from graphopt import runtime
from graphopt.datasets import bind
from graphopt.datasets.synthetic import synthetic
from graphopt.errors import ModelError
from graphopt.names import Names
from graphopt_passes._narrowing import Clamp, change_constant, converted

__all__ = ["reach"]

_SAMPLES = 2  # of generated inputs, as in the proof
_READ = 16  # of data


def reach(model: ir.Model, values: Sequence[str], clamps: Mapping[str, Clamp], calibration: str) -> Mapping[str, float]:
    """The largest magnitude of each value that ONNX Runtime sees when it runs the model, without infinities.

    Args:
        model: The model; not changed.
        values: Names of float values of the main graph.
        clamps: By name, constants that are clamped before, and how.
        calibration: A file of inputs; empty for generated ones.

    Returns:
        By name; nothing where the model does not run on generated inputs.

    Raises:
        ModelError: The file cannot be read or does not fit, or the model does not run on it.
    """
    try:
        samples = _READ if calibration else _SAMPLES
        data = bind(calibration or synthetic(model, samples), model, samples=samples, at_most=True)
        session = runtime.open_session(_watched(model, values, clamps), optimization="basic")
        peaks = [_run(session, feeds) for feeds in data.batches(1)]
    except ModelError:
        if calibration:
            raise
        return {}
    return dict(zip(values, np.nanmax(peaks, axis=0, initial=0.0).tolist(), strict=True))


def _run(session: Any, feeds: Mapping[str, Any]) -> list[float]:
    names = [output.name for output in session.get_outputs()]
    try:
        values = {name: runtime.to_ort_value(np.asarray(array)) for name, array in feeds.items()}
        results = session.run_with_ort_values(names, values)
    except runtime.ort_errors() as error:
        raise ModelError(f"the model does not run on the calibration inputs: {runtime.trim(error)}") from error
    return [_finite(float(result.numpy())) for result in results]


def _finite(number: float) -> float:
    return number if np.isfinite(number) else 0.0


def _watched(model: ir.Model, values: Iterable[str], clamps: Mapping[str, Clamp]) -> ir.Model:
    """The same model, whose outputs are the largest magnitudes of its values."""
    copy = model.clone()
    names = Names(copy)
    made = {value.name: value for node in copy.graph for value in node.outputs}
    made.update({value.name: value for value in copy.graph.inputs})
    for name, clamp in clamps.items():
        value = made.get(name) or copy.graph.initializers.get(name)
        if value is not None:
            change_constant(value, functools.partial(_clamped, clamp))
    copy.graph.outputs.clear()
    for name in values:
        size = ir.node("Abs", [made[name]])
        peak = ir.node("ReduceMax", size.outputs, {"keepdims": 0})
        for node in (size, peak):
            node.outputs[0].name = names.fresh("reach")
            node.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
        copy.graph.extend([size, peak])
        copy.graph.outputs.append(peak.outputs[0])
    return copy


def _clamped(clamp: Clamp, tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    return converted(tensor, tensor.dtype, clamp)
