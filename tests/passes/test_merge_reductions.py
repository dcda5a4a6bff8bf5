"""merge-reductions."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from harness import fires, lines, misses, parse

NAME = "merge-reductions"
READ = "what the first reduction gives is read elsewhere"
APART = "the axes of both do not lie side by side"
KEEPS = "only one of the two keeps the axes"
TYPE = "of this type, the two may give something else, or the type is not known"


def model(
    op: str, first: Any, second: Any, *, keeps: tuple[int, int] = (1, 1), kind: str = "float", y: str = "N,A,B,C"
) -> ir.Model:
    text = f"""agraph ({kind}[N,2,3,4] x) => ({kind}[{y}] y) {{
        m = {op} <keepdims = {keeps[0]}> (x, d)
        y = {op} <keepdims = {keeps[1]}> (m, e) }}"""
    return parse(text, {"d": np.array(first, np.int64), "e": np.array(second, np.int64)})


def axes(result: ir.Model) -> list[int]:
    (node,) = result.graph
    (constant,) = [value for value in node.inputs[1:] if value is not None and value.const_value is not None]
    assert constant.const_value is not None
    return [int(axis) for axis in constant.const_value.numpy()]


@pytest.mark.parametrize(("first", "second"), [([1], [2]), ([2], [1]), ([-1], [-2]), ([2, 3], [1]), ([1], [1, 2])])
@pytest.mark.parametrize("op", ["ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin"])
def test_kept_axes(op: str, first: list[int], second: list[int]) -> None:
    result = fires(NAME, model(op, first, second), count=1)
    assert axes(result) == sorted({axis % 4 for axis in (*first, *second)})


@pytest.mark.parametrize(
    ("first", "second", "merged", "y"),
    [([3], [2], [2, 3], "N,A"), ([1], [1], [1, 2], "N,A"), ([2], [-1], [2, 3], "N,A"), ([1, 2], [1], [1, 2, 3], "N")],
)
def test_dropped_axes(first: list[int], second: list[int], merged: list[int], y: str) -> None:
    assert axes(fires(NAME, model("ReduceMean", first, second, keeps=(0, 0), y=y))) == merged


def test_axes_as_attributes() -> None:
    text = """<ir_version: 8, opset_import: ["" : 13]> agraph (float[N,2,3,4] x) => (float[N,2,A,B] y)
    { m = ReduceMean <axes = [3]> (x) y = ReduceMean <axes = [-2]> (m) }"""
    assert lines(fires(NAME, parse(text))) == ["y = ReduceMean<axes=(2, 3)>(x)"]


def test_integers() -> None:
    fires(NAME, model("ReduceSum", [1], [2], kind="int64"))
    assert misses(NAME, model("ReduceMean", [1], [2], kind="int64")) == [TYPE]


def test_half_precision() -> None:
    assert misses(NAME, model("ReduceSum", [1], [2], kind="float16")) == [TYPE]
    assert misses(NAME, model("ReduceMean", [1], [2], kind="float16")) == [TYPE]


@pytest.mark.parametrize(
    ("first", "second", "keeps", "y", "reason"),
    [
        ([1], [3], (1, 1), "N,A,B,C", APART),
        ([1], [2], (0, 0), "N,A", APART),
        ([1], [2], (1, 0), "N,A,B", KEEPS),
        ([1], [1], (0, 1), "N,A,B", KEEPS),
    ],
)
def test_misses(first: list[int], second: list[int], keeps: tuple[int, int], y: str, reason: str) -> None:
    assert misses(NAME, model("ReduceSum", first, second, keeps=keeps, y=y)) == [reason]


def test_two_different_reductions() -> None:
    before = model("ReduceSum", [1], [2])
    before.graph[1].op_type = "ReduceMax"
    assert misses(NAME, before) == []


def test_read_elsewhere() -> None:
    text = """agraph (float[N,2,3] x) => (float[N,1,1] y, float[N,1,3] z)
    { m = ReduceSum (x, d) y = ReduceSum (m, e) z = Neg (m) }"""
    assert misses(NAME, parse(text, {"d": np.array([1]), "e": np.array([2])})) == [READ]
