"""Runs a model in ONNX Runtime, its own optimisations off, and compares results bit by bit or within a tolerance."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from graphopt.runtime import ELEMENT_TYPES, to_ort_value

__all__ = ["difference", "open_quietly", "outputs"]

Array = npt.NDArray[Any]
_TOLERANCE = {"float16": 4e-3, "float32": 2e-5, "float64": 1e-12}
_INTEGERS = [f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)]
_READABLE = {f"tensor({name})" for name in ("float", "double", "float16", "bool", "string", *_INTEGERS)}


def open_quietly(model: bytes | str, *, level: str = "off", threads: int = 1) -> ort.InferenceSession:
    """A session on the CPU.

    Args:
        model: Serialized, or a path.
        level: ``off`` or ``basic``.
        threads: Intra-op threads; one makes results reproducible.
    """
    options = ort.SessionOptions()
    levels = {"off": ort.GraphOptimizationLevel.ORT_DISABLE_ALL, "basic": ort.GraphOptimizationLevel.ORT_ENABLE_BASIC}
    options.graph_optimization_level = levels[level]
    options.log_severity_level = 4
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # A packed weight sums in another order, and only initializers are packed: hoisting a constant would change bits.
    options.add_session_config_entry("session.disable_prepacking", "1")
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "0")
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def outputs(model: bytes | str | ort.InferenceSession, feeds: Mapping[str, Any]) -> list[Any]:
    """Every output; tensors whose type NumPy has no name for come back as their raw bytes, shape in front."""
    session = model if isinstance(model, ort.InferenceSession) else open_quietly(model)
    exotic_out = any(one.type.startswith("tensor(") and one.type not in _READABLE for one in session.get_outputs())
    exotic_in = any(isinstance(value, np.ndarray) and value.dtype.name in ELEMENT_TYPES for value in feeds.values())
    if not exotic_in and not exotic_out:
        return list(session.run(None, dict(feeds)))
    values = session.run_with_ort_values(None, {name: to_ort_value(np.asarray(one)) for name, one in feeds.items()})
    return [one.numpy() if one.data_type() in _READABLE else _raw(one) for one in values]


def _raw(value: Any) -> Array:
    size = value.tensor_size_in_bytes()
    contents = np.frombuffer(ctypes.string_at(value.data_ptr(), size), np.uint8) if size else np.zeros(0, np.uint8)
    return np.concatenate([np.asarray([*value.shape(), -1], np.int64).view(np.uint8), contents])


def difference(
    expected: Any, actual: Any, *, exact: bool, where: str = "output", slack: float = 1, at_least: float = 0
) -> str:
    """What differs first, in words; empty when nothing does.

    Tensors, strings, sequences, maps and absent optionals all compare; dtype and shape count, a NaN equals a NaN.

    Args:
        expected: A result, or a list of results.
        actual: The same of the other model.
        exact: Bit by bit, else floats within a tolerance that follows from the dtype, relative to the largest.
        where: What to call it.
        slack: Factor on the tolerance.
        at_least: Relative tolerance of a dtype that is finer than what the model computes in.
    """
    if expected is None or actual is None:
        return "" if expected is actual else f"{where}: one of the two is absent"
    if isinstance(expected, list):
        return _lists(expected, actual, exact, where, slack, at_least)
    if isinstance(expected, dict):
        if not isinstance(actual, dict) or list(expected) != list(actual):
            return f"{where}: other keys"
        return _lists(list(expected.values()), list(actual.values()), exact, where, slack, at_least)
    return _tensors(np.asarray(expected), np.asarray(actual), exact, where, slack, at_least)


def _lists(expected: Sequence[Any], actual: Any, exact: bool, where: str, slack: float, at_least: float) -> str:
    if not isinstance(actual, list) or len(actual) != len(expected):
        return f"{where}: another number of elements"
    for index, (one, other) in enumerate(zip(expected, actual, strict=True)):
        place = f"{where}[{index}]"
        if found := difference(one, other, exact=exact, where=place, slack=slack, at_least=at_least):
            return found
    return ""


def _tensors(expected: Array, actual: Array, exact: bool, where: str, slack: float, at_least: float) -> str:
    if (expected.dtype, expected.shape) != (actual.dtype, actual.shape):
        return f"{where}: {expected.dtype}{list(expected.shape)} became {actual.dtype}{list(actual.shape)}"
    if expected.dtype.kind != "f":
        return "" if np.array_equal(expected, actual) else f"{where}: {expected.dtype} contents differ"
    if expected.size == 0:
        return ""
    missing, other_missing = np.isnan(expected), np.isnan(actual)
    if not np.array_equal(missing, other_missing):
        return f"{where}: NaN in other places"
    if exact:
        same = (expected == actual) & (np.signbit(expected) == np.signbit(actual)) | missing
        return "" if same.all() else f"{where}: {int((~same).sum())} of {same.size} not bit-equal"
    one, other = expected.astype(np.float64), actual.astype(np.float64)
    finite = np.isfinite(one)
    if not np.array_equal(one[~finite & ~missing], other[~finite & ~missing]):
        return f"{where}: infinities differ"
    if not finite.any():
        return ""
    bound = max(_TOLERANCE[expected.dtype.name], at_least) * slack
    scale = np.abs(one[finite]).max()
    error = np.abs(one[finite] - other[finite])
    excess = error - bound * (np.abs(one[finite]) + scale)
    return "" if excess.max() <= 0 else f"{where}: differs by {error.max():.3g}, the largest value is {scale:.3g}"
