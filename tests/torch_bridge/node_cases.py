"""Runs onnx's own node cases in torch and compares with ONNX Runtime.

``python tests/torch_bridge/node_cases.py`` prints how many of those that ONNX Runtime runs agree, and which do not.
"""

from __future__ import annotations

import collections
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

ROOT = Path(__file__).parents[2]
if __name__ == "__main__":
    sys.path[:1] = [str(ROOT), str(ROOT / "passes"), str(ROOT / "tests")]

from equivalence.backend import reference  # noqa: E402
from equivalence.cases import Case, collect  # noqa: E402
from equivalence.compare import difference  # noqa: E402

import graphopt.torch as bridge  # noqa: E402
from graphopt.runtime import ELEMENT_TYPES  # noqa: E402
from graphopt.torch.values import from_ir, to_numpy  # noqa: E402

__all__ = ["concerned", "inputs", "judge", "score"]

_ELSEWHERE = frozenset({"ImageDecoder", "StringNormalizer", "StringSplit", "StringConcat", "RegexFullMatch"})
_TEXT = onnx.TensorProto.STRING
_BITS: dict[int, int] = {
    onnx.TensorProto.UINT4: 4,
    onnx.TensorProto.INT4: 4,
    onnx.TensorProto.UINT2: 2,
    onnx.TensorProto.INT2: 2,
}
_HALF = (onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16)


def concerned(case: Case) -> bool:
    """Whether the case is about float or integer tensors of ONNX's own domain."""
    values = [*case.model.graph.input, *case.model.graph.output]
    if any(f"elem_type: {_TEXT}\n" in str(value.type) for value in values):
        return False
    return not any(
        node.domain.startswith("ai.onnx.") or node.op_type in _ELSEWHERE or node.op_type == "TfIdfVectorizer"
        for node in case.model.graph.node
    )


def with_the_bridge(case: Case) -> Sequence[Any]:
    """The outputs of the case here."""
    outputs: tuple[Any, ...] = bridge.from_onnx(case.model)(**inputs(case))
    return outputs


def judge(case: Case, execute: Callable[[Case], Sequence[Any]] = with_the_bridge) -> str | None:
    """What differs; empty when nothing does, ``None`` where ONNX Runtime cannot say.

    Args:
        case: The case.
        execute: Gives its outputs in torch.
    """
    status, expected = reference(case)
    if status != "ran":
        return None
    with torch.no_grad():
        outputs = execute(case)
    half = any(value.type.tensor_type.elem_type in _HALF for value in case.model.graph.input)
    actual = [
        _as_expected(_array(one), wanted, value.type.tensor_type.elem_type)
        for one, wanted, value in zip(outputs, expected, case.model.graph.output, strict=True)
    ]
    return difference(expected, actual, exact=False, at_least=4e-3 if half else 0)


def inputs(case: Case) -> dict[str, Any]:
    """The inputs of a case as tensors, by name."""
    return {name: _tensor(one) for name, one in case.feeds.items()}


def _tensor(value: Any) -> Any:
    if value is None or isinstance(value, list):
        return value if value is None else [_tensor(one) for one in value]
    import onnx_ir as ir

    array = np.asarray(value)
    held = from_ir(ir.tensor(array)) if array.dtype.name in ELEMENT_TYPES else torch.from_numpy(np.array(array))
    if held is None:
        raise TypeError(f"torch has no {array.dtype}")
    return held


def _array(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_array(one) for one in value]
    return None if value is None else to_numpy(value)


def _as_expected(actual: Any, expected: Any, element: int) -> Any:
    """What NumPy cannot hold comes from ONNX Runtime as bytes behind a shape; NaNs among them have many forms."""
    if not isinstance(actual, np.ndarray):
        return actual
    exotic = actual.dtype.name in ELEMENT_TYPES
    if not exotic and element not in _BITS:
        return actual
    raw = np.ascontiguousarray(actual).reshape(-1).view(np.uint8)
    if element in _BITS:
        raw = _packed(raw, _BITS[element])
    whole = np.concatenate([np.asarray([*actual.shape, -1], np.int64).view(np.uint8), raw])
    if exotic and len(whole) == len(expected):
        theirs = np.asarray(expected[len(whole) - len(raw) :].view(actual.dtype), np.float32)
        if np.array_equal(theirs, np.asarray(actual.reshape(-1), np.float32), equal_nan=True):
            return expected
    return whole


def _packed(raw: np.ndarray[Any, Any], bits: int) -> np.ndarray[Any, Any]:
    """Several small integers to a byte, the first in the low bits."""
    lanes = np.zeros(-(-raw.size * bits // 8) * (8 // bits), np.uint8)
    lanes[: raw.size] = raw & ((1 << bits) - 1)
    shifted = lanes.reshape(-1, 8 // bits) << np.arange(0, 8, bits, dtype=np.uint8)
    return np.asarray(np.bitwise_or.reduce(shifted, axis=1))


def score(execute: Callable[[Case], Sequence[Any]] = with_the_bridge) -> tuple[int, dict[str, str]]:
    """How many cases ONNX Runtime runs, and why some of them fail in torch, by name."""
    ran, failures = 0, {}
    for case in filter(concerned, collect()):
        try:
            found = judge(case, execute)
        except Exception as error:  # noqa: BLE001 -- any error is a failure of this case, and the rest shall run
            found = f"{type(error).__name__}: {error}"
        ran += found is not None
        if found:
            failures[case.name] = re.sub(r"node '.*?' ", "", found.splitlines()[0])[:100]
    return ran, failures


def main() -> None:
    """Prints the figures."""
    ran, failures = score()
    good = ran - len(failures)
    print(f"{good} of {ran} node cases that ONNX Runtime runs agree: {good / ran:.2%}")
    for why, count in collections.Counter(failures.values()).most_common():
        print(f"{count:4} {why} ({next(name for name, one in failures.items() if one == why)})")


if __name__ == "__main__":
    main()
