"""eliminate-reductions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
import pytest
from harness import fires, misses, parse, unchanged

NAME = "eliminate-reductions"


def model(
    op: str, axes: Sequence[int] | None, *, x: str = "N,1,4", y: str = "N,1,4", opset: int = 21, attributes: str = ""
) -> ir.Model:
    values = {} if axes is None else {"d": np.array(axes, np.int64)}
    text = f"""<ir_version: 8, opset_import: ["" : {opset}]> agraph (float[{x}] x) => (float[{y}] y)
    {{ m = {op} {f"<{attributes}>" if attributes else ""} (x{", d" if values else ""}) y = Neg (m) }}"""
    return parse(text, values)


@pytest.mark.parametrize("axes", [[1], [-2]])
@pytest.mark.parametrize("op", ["ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceProd"])
def test_an_axis_of_length_1(op: str, axes: list[int]) -> None:
    fires(NAME, model(op, axes), ["y = Neg(x)"], count=1)


def test_axes_as_an_attribute() -> None:
    fires(NAME, model("ReduceMean", None, opset=13, attributes="axes = [1]"), ["y = Neg(x)"])


def test_no_axes() -> None:
    fires(NAME, model("ReduceSum", [], attributes="noop_with_empty_axes = 1"), ["y = Neg(x)"])
    unchanged(NAME, model("ReduceSum", [], y="1,1,1"))
    fires(NAME, model("ReduceSum", None, x="1,1", y="1,1"), ["y = Neg(x)"])


@pytest.mark.parametrize("axes", [[2], [0], [0, 1]])
def test_longer_axes(axes: list[int]) -> None:
    unchanged(NAME, model("ReduceMean", axes, y="A,B,C"))


def test_other_reductions_change_the_element() -> None:
    for op in ("ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceLogSum", "ReduceLogSumExp"):
        unchanged(NAME, model(op, [1]))


def test_dropped_axes() -> None:
    assert misses(NAME, model("ReduceMean", [1], y="N,4", attributes="keepdims = 0")) == ["it drops the axes"]


def test_axes_of_the_caller() -> None:
    text = "agraph (float[N,1,4] x, int64[1] d) => (float[A,B,C] y) { m = ReduceMean (x, d) y = Neg (m) }"
    unchanged(NAME, parse(text))
