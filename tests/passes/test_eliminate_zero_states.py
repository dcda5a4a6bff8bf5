"""eliminate-zero-states."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from harness import fires, lines, parse, unchanged

NAME = "eliminate-zero-states"
RANDOM = np.random.default_rng(0)
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


def weights(op: str, directions: int = 1) -> dict[str, Any]:
    rows = 5 * GATES[op]
    made = {
        "w": RANDOM.standard_normal((directions, rows, 4)),
        "r": RANDOM.standard_normal((directions, rows, 5)),
        "b": RANDOM.standard_normal((directions, 2 * rows)),
    }
    numbers = {
        "one": np.array([directions]),
        "five": np.array([5]),
        "i1": np.array([1]),
        "zero": np.array(0, np.float32),
    }
    return {**{name: array.astype(np.float32) for name, array in made.items()}, **numbers}


SPELLINGS = {
    "legacy": "s = Shape (x) n = Gather (s, i1) t = Concat <axis = 0> (one, n, five) h = ConstantOfShape (t)",
    "dynamo": "s = Shape <start = 1, end = 2> (x) t = Concat <axis = 0> (one, s, five) h = Expand (zero, t)",
    "sliced": "s = Shape <start = 1, end = 2> (x) t = Concat <axis = 0> (one, s, five) e = Expand (zero, t)"
    " f = Unsqueeze (e, i1) g = Squeeze (f, i1) k = Transpose <perm = [0, 1, 2]> (g) h = Identity (k)",
    "joined": "s = Shape <start = 1, end = 2> (x) t = Concat <axis = 0> (one, s, i1) a = ConstantOfShape (t)"
    " h = Concat <axis = 2> (a, a, a, a, a)",
}


def model(states: str, op: str = "LSTM", *, directions: int = 1, opset: int = 21) -> ir.Model:
    operands = "h, h" if op == "LSTM" else "h"
    direction = "bidirectional" if directions == 2 else "forward"
    text = f"""<ir_version: 8, opset_import: ["" : {opset}]>
    agraph (float[3,N,4] x) => (float[3,{directions},N,5] y, float[{directions},N,5] yh) {{
        {states}
        y, yh = {op} <hidden_size = 5, direction = "{direction}"> (x, w, r, b, , {operands})
    }}"""
    return parse(text, weights(op, directions))


@pytest.mark.parametrize("op", GATES)
@pytest.mark.parametrize("states", SPELLINGS.values(), ids=SPELLINGS)
def test_spellings(states: str, op: str) -> None:
    expected = [f"y, yh = {op}<direction='forward', hidden_size=5>(x, w, r, b)"]
    fires(NAME, model(states, op), expected, count=1)


@pytest.mark.parametrize("opset", [11, 14, 22])
def test_opsets_and_directions(opset: int) -> None:
    fires(NAME, model(SPELLINGS["legacy"], directions=2, opset=opset), count=1)
    fires(NAME, model(SPELLINGS["legacy"], "RNN", opset=opset), count=1)


def test_constants_and_only_some_of_the_operands() -> None:
    text = """agraph (float[3,2,4] x, float[1,2,5] h) => (float[1,2,5] y) {
        k, l, y = LSTM <hidden_size = 5> (x, w, r, nothing, , h, zeros, p)
    }"""
    fixed = {"nothing": np.zeros((1, 40), np.float32), "zeros": np.zeros((1, 2, 5), np.float32)}
    peepholes = RANDOM.standard_normal((1, 15)).astype(np.float32)
    result = fires(NAME, parse(text, {**weights("LSTM"), **fixed, "p": peepholes}), count=1)
    assert lines(result)[0].endswith("(x, w, r, , , h, , p)")


def test_zeros_that_others_read_stay() -> None:
    text = """agraph (float[3,2,4] x) => (float[3,1,2,5] y, float[1,2,5] z) {
        y = GRU <hidden_size = 5> (x, w, r, b, , h)
        z = Relu (h)
    }"""
    found = fires(NAME, parse(text, {**weights("GRU"), "h": np.zeros((1, 2, 5), np.float32)}), count=1)
    assert lines(found) == ["y = GRU<hidden_size=5>(x, w, r, b)", "z = Relu(h)"]


def test_inside_a_function() -> None:
    text = """<ir_version: 10, opset_import: ["" : 21, "local" : 1]>
    agraph (float[3,2,4] x) => (float[3,1,2,5] y) { y = local.block (x, w, r) }
    <domain: "local", opset_import: ["" : 21]>
    block (x, w, r) => (y) {
        t = Constant <value_ints = [1, 2, 5]> ()
        h = ConstantOfShape (t)
        y = GRU <hidden_size = 5> (x, w, r, , , h)
    }"""
    result = fires(NAME, parse(text, {name: weights("GRU")[name] for name in "wr"}), count=1)
    assert lines(next(iter(result.functions.values())))[-1] == "y = GRU<hidden_size=5>(x, w, r)"


def test_metadata_survives() -> None:
    before = model(SPELLINGS["legacy"])
    before.graph[-1].name, before.graph[-1].doc_string = "layer", "kept"
    (node,) = fires(NAME, before).graph
    assert (node.name, node.doc_string) == ("layer", "kept")


@pytest.mark.parametrize("number", [1.0, -0.0, 1e-30, np.nan])
def test_other_numbers(number: float) -> None:
    text = "agraph (float[3,2,4] x) => (float[3,1,2,5] y) { y = GRU <hidden_size = 5> (x, w, r, b, , h) }"
    state = np.zeros((1, 2, 5), np.float32)
    state[0, 1, 2] = number
    unchanged(NAME, parse(text, {**weights("GRU"), "h": state}))


@pytest.mark.parametrize("fill", ["float[1] {1.0}", "float[1] {-0.0}"])
def test_other_fill(fill: str) -> None:
    states = SPELLINGS["legacy"].replace("ConstantOfShape", f"ConstantOfShape <value = {fill}>")
    unchanged(NAME, model(states))


def test_state_of_the_caller() -> None:
    text = """agraph (float[3,2,4] x, float[1,2,5] h) => (float[3,1,2,5] y) {
        y = GRU <hidden_size = 5> (x, w, r, b, , h)
    }"""
    unchanged(NAME, parse(text, weights("GRU")))
    unchanged(NAME, parse(text, {**weights("GRU"), "h": np.zeros((1, 2, 5), np.float32)}))
