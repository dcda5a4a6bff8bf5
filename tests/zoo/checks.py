"""What is asked of a pruned model: that it runs, equals the masked one, and is as small as it should be."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort

from graphopt.channels import ChannelGraph, Unit

__all__ = ["choose", "distance", "feeds", "parameters", "run"]

Array = npt.NDArray[Any]
_SIZES = {"N": 2, "S": 7}
_WEIGHTS = {
    onnx.TensorProto.FLOAT,
    onnx.TensorProto.FLOAT16,
    onnx.TensorProto.DOUBLE,
    onnx.TensorProto.INT8,
    onnx.TensorProto.UINT8,
}


def parameters(model: onnx.ModelProto) -> int:
    """The elements of all weights, in initializers and in Constant nodes."""
    tensors = [*model.graph.initializer]
    for node in model.graph.node:
        if node.op_type == "Constant":
            tensors += [attribute.t for attribute in node.attribute if attribute.name == "value"]
    return sum(math.prod(tensor.dims) for tensor in tensors if tensor.data_type in _WEIGHTS)


def choose(graph: ChannelGraph, seed: int, share: float | None = None) -> list[Unit]:
    """Units to remove from each group, at random and legal.

    Args:
        graph: The graph.
        seed: Of the choice.
        share: Of each group; another one for each group, up to three quarters, if ``None``. (Statistics over two or
            three lanes that happen to be alike magnify rounding.)
    """
    random = np.random.default_rng(seed)
    chosen: list[Unit] = []
    for group in graph.groups:
        wanted = math.floor(len(group.units) * (0.75 * random.random() if share is None else share))
        needed = [set(segment) for segment in group.segments]
        taken = 0
        for place in random.permutation(len(group.units)):
            unit = group.units[place]
            if taken == wanted or any(segment == {unit.index} for segment in needed):
                continue
            for segment in needed:
                segment.discard(unit.index)
            chosen.append(unit)
            taken += 1
    return chosen


def feeds(model: onnx.ModelProto, seed: int = 0) -> dict[str, Array]:
    """Seeded inputs."""
    random = np.random.default_rng(seed)
    made: dict[str, Array] = {}
    initializers = {tensor.name for tensor in model.graph.initializer}
    for value in model.graph.input:
        if value.name in initializers:
            continue
        tensor = value.type.tensor_type
        shape = [dim.dim_value or _SIZES.get(dim.dim_param, 2) for dim in tensor.shape.dim]
        kind = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
        if kind.kind == "f":
            made[value.name] = random.standard_normal(shape).astype(kind)
        elif kind.kind == "b":
            made[value.name] = np.ones(shape, bool)
        else:
            made[value.name] = random.integers(0, 3, shape).astype(kind)
    return made


def run(model: onnx.ModelProto, inputs: Mapping[str, Array]) -> list[Array]:
    """The outputs under ONNX Runtime, its own optimisations off."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
    return list(session.run(None, dict(inputs)))


def distance(actual: Sequence[Array], expected: Sequence[Array]) -> float:
    """``max|a - b| / max|b|``, the largest of all outputs; infinite where shapes, types or NaNs differ."""
    largest = 0.0
    for a, b in zip(actual, expected, strict=True):
        if a.shape != b.shape or a.dtype != b.dtype:
            return math.inf
        a, b = a.astype(np.float64), b.astype(np.float64)
        finite = np.isfinite(b)
        if not np.array_equal(a[~finite], b[~finite], equal_nan=True) or not np.isfinite(a[finite]).all():
            return math.inf
        if finite.any():
            difference = np.abs(a - b)[finite].max()
            scale = np.abs(b)[finite].max()
            largest = max(largest, float(difference / scale) if difference else 0.0)
    return largest
