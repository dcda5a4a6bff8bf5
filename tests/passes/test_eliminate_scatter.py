"""eliminate-scatter."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from harness import fires, misses, parse

NAME = "eliminate-scatter"
HEAD = "agraph (float[2,4] x, float[2,4] z) => (float[2,4] y)"
ELSEWHERE = ["the indices are not those of all places"]


def graph(contents: object, attributes: str = "", head: str = HEAD) -> ir.Model:
    text = f"{head} {{ a = ScatterND {attributes} (x, i, z) y = Relu (a) }}"
    return parse(text, {"i": np.array(contents, np.int64)})


@pytest.mark.parametrize(
    "contents",
    [
        [[0], [1]],
        [[[0, 0], [0, 1], [0, 2], [0, 3]], [[1, 0], [1, 1], [1, 2], [1, 3]]],
    ],
)
def test_all_places(contents: list[object]) -> None:
    fires(NAME, graph(contents), ["y = Relu(z)"])


def test_lengths_of_other_axes_need_not_be_known() -> None:
    head = HEAD.replace("2,4", "2,N")
    fires(NAME, graph([[0], [1]], head=head), ["y = Relu(z)"])


def test_opset_11() -> None:
    text = """<ir_version: 6, opset_import: ["" : 11]>
    agraph (float[3] x, float[3] z) => (float[3] y) { a = ScatterND (x, i, z) y = Relu (a) }"""
    fires(NAME, parse(text, {"i": np.array([[0], [1], [2]], np.int64)}), ["y = Relu(z)"])


@pytest.mark.parametrize("contents", [[[1], [0]], [[0], [0]], [[0], [-1]]])
def test_other_places(contents: list[object]) -> None:
    assert misses(NAME, graph(contents)) == ELSEWHERE


def test_some_places() -> None:
    head = "agraph (float[2,4] x, float[1,4] z) => (float[2,4] y)"
    assert misses(NAME, graph([[0]], head=head)) == ELSEWHERE


def test_length_that_is_not_known() -> None:
    head = "agraph (float[N,4] x, float[2,4] z) => (float[N,4] y)"
    assert misses(NAME, graph([[0], [1]], head=head)) == ELSEWHERE


def test_what_was_there_counts() -> None:
    reason = ["it takes what was there into account"]
    assert misses(NAME, graph([[0], [1]], '<reduction = "add">')) == reason


def test_indices_of_the_caller() -> None:
    text = "agraph (float[1] x, float[1] z, int64[1,1] i) => (float[1] y) { a = ScatterND (x, i, z) y = Relu (a) }"
    assert misses(NAME, parse(text)) == ["the indices are not a small constant"]


def test_graph_output() -> None:
    text = "agraph (float[1] x, float[1] z) => (float[1] y) { w = Neg (z) y = ScatterND (x, i, w) }"
    fires(NAME, parse(text, {"i": np.zeros((1, 1), np.int64)}), ["y = Neg(z)"])
