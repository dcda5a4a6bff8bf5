"""fuse-conv-sum."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import pytest
from harness import fires, lines, misses, parse, unchanged

NAME = "fuse-conv-sum"


def weight(*shape: int, dtype: str = "float32", seed: int = 7) -> npt.NDArray[Any]:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


WEIGHTS = {
    "w3": weight(4, 4, 3, 3),
    "w1": weight(4, 4, 1, 1, seed=8),
    "w5": weight(4, 4, 5, 5, seed=9),
    "b": weight(4),
    "k": weight(4, seed=3),
    **{name: weight(4, seed=seed) for seed, name in enumerate("gtm")},
    "v": np.abs(weight(4)),
}


def model(body: str, *, x: str = "[N,4,8,9]", kind: str = "float", **values: npt.NDArray[Any]) -> ir.Model:
    words = body.replace("(", " ").replace(")", " ").replace(",", " ").split()
    dtype = {"float": "float32", "float16": "float16"}[kind]
    used = {name: one.astype(dtype) for name, one in {**WEIGHTS, **values}.items() if name in words}
    return parse(f"agraph ({kind}{x} x) => ({kind}[N,C,H,W] y) {{ {body} }}", used)


THREE = "a = Conv <pads = [1,1,1,1]> (x, w3, b)"
BLOCKS = {
    "3x3 and 1x1": f"{THREE} c = Conv (x, w1, k) y = Add (a, c)",
    "1x1 first": f"{THREE} c = Conv (x, w1) y = Add (c, a)",
    "with itself": f"{THREE} y = Add (a, x)",
    "itself first": f"{THREE} y = Add (x, a)",
    "normalized": f"{THREE} n = BatchNormalization (x, g, t, m, v) y = Add (a, n)",
    "5x5 and 3x3": f"{THREE} c = Conv <pads = [2,2,2,2]> (x, w5) y = Add (a, c)",
    "1x1 and itself": "a = Conv (x, w1) y = Add (a, x)",
    "equal windows": f"{THREE} c = Conv <pads = [1,1,1,1]> (x, w) y = Add (a, c)",
    "aside": "a = Conv <pads = [0,1,2,1]> (x, w3) y = Add (a, x)",
    "apart": "a = Conv <pads = [2,2,2,2], dilations = [2,2]> (x, w3) c = Conv (x, w1) y = Add (a, c)",
}


@pytest.mark.parametrize("body", BLOCKS.values(), ids=BLOCKS)
def test_blocks(body: str) -> None:
    assert len(fires(NAME, model(body, w=weight(4, 4, 3, 3, seed=5)), count=1).graph) == 1


def test_block_of_repvgg() -> None:
    body = f"{THREE} c = Conv (x, w1, k) s = Add (a, c) n = BatchNormalization (x, g, t, m, v) y = Add (n, s)"
    (line,) = lines(fires(NAME, model(body), count=2))
    assert line.startswith("y = Conv<pads=(1, 1, 1, 1)>(x, w3_")


def test_strides() -> None:
    body = "a = Conv <pads = [1,1,1,1], strides = [2,2]> (x, w3) c = Conv <strides = [2,2]> (x, w1) y = Add (a, c)"
    fires(NAME, model(body), count=1)
    body = body.replace("c = Conv <strides = [2,2]>", "c = Conv <strides = [2,1]>")
    assert misses(NAME, model(body, x="[N,4,8,1]", w3=weight(4, 4, 3, 3))) == ["the strides differ"]


@pytest.mark.parametrize("groups", [2, 4])
def test_groups(groups: int) -> None:
    shape = (4, 4 // groups, 3, 3)
    body = f"a = Conv <group = {groups}, pads = [1,1,1,1]> (x, w3) y = Add (a, x)"
    fires(NAME, model(body, w3=weight(*shape)), count=1)
    body = f"a = Conv <group = {groups}, pads = [1,1,1,1]> (x, w3) c = Conv <group = {groups}> (x, w1) y = Add (c, a)"
    fires(NAME, model(body, w3=weight(*shape), w1=weight(*shape[:2], 1, 1)), count=1)


def test_half_precision_metadata_and_shared_weight() -> None:
    body = f"{THREE} c = Conv (x, w1) r = Conv (x, w1) s = Add (a, c) y = Mul (s, r)"
    before = model(body, kind="float16")
    before.graph[0].doc_string = "kept"
    after = fires(NAME, before, count=1)
    assert after.graph[1].doc_string == "kept"
    assert lines(after)[0] == "r = Conv(x, w1)"


def test_weights_that_would_not_fit() -> None:
    body = f"{THREE} c = Conv (x, w1) y = Add (a, c)"
    large = np.full((4, 4, 1, 1), 6e4)
    values: dict[str, Any] = {"w3": np.full((4, 4, 3, 3), 6e4), "w1": large}
    assert misses(NAME, model(body, kind="float16", **values)) == ["the new weights do not fit their type"]


GRID = ["one window does not lie on the grid of the other"]
SIZE = ["the result is not known to be of the size of what is added to it"]


@pytest.mark.parametrize(
    "body",
    [
        "a = Conv <pads = [1,2,3,2], dilations = [2,2]> (x, w3) c = Conv (x, w1) y = Add (a, c)",
        "a = Conv <pads = [4,4,4,4], dilations = [2,2]> (x, w5) c = Conv <pads = [1,1,1,1]> (x, w3) y = Add (a, c)",
    ],
)
def test_windows_that_do_not_fit(body: str) -> None:
    assert misses(NAME, model(body)) == GRID


def test_window_whose_padding_is_wider_than_its_place() -> None:
    fires(
        NAME, model("a = Conv <pads = [1,1,1,1]> (x, w1) c = Conv <pads = [2,2,2,2]> (x, w3) y = Add (a, c)"), count=1
    )


def test_smaller_result_that_broadcasts() -> None:
    body = "a = Conv <pads = [1,1,1,1]> (x, w3) y = Add (a, x)"
    assert misses(NAME, model(body, w3=weight(1, 4, 3, 3))) == SIZE
    body = "a = Conv (x, w3) y = Add (a, x)"
    assert misses(NAME, model(body, x="[N,4,3,3]")) == SIZE


def test_of_other_tensors() -> None:
    unchanged(NAME, model(f"r = Relu (x) {THREE} c = Conv (r, w1) y = Add (a, c)"))
    unchanged(NAME, model(f"r = Relu (x) {THREE} y = Add (a, r)"))


@pytest.mark.parametrize("inner", ["a", "c"])
def test_result_read_elsewhere_or_put_out(inner: str) -> None:
    reason = ["the result of a convolution is read elsewhere"]
    body = f"{THREE} c = Conv (x, w1) s = Add (a, c) r = Relu ({inner}) y = Mul (s, r)"
    assert misses(NAME, model(body)) == reason
    text = f"agraph (float[N,4,8,9] x) => (float[N,C,H,W] y, float[N,C,H,W] {inner}) {{ {THREE} c = Conv (x, w1)"
    used = {name: WEIGHTS[name] for name in ("w3", "w1", "b")}
    assert misses(NAME, parse(f"{text} y = Add (a, c) }}", used)) == reason


def test_convolution_added_to_itself() -> None:
    assert misses(NAME, model(f"{THREE} y = Add (a, a)")) == ["the result of a convolution is read elsewhere"]


def test_weight_of_the_caller() -> None:
    text = """agraph (float[N,4,8,8] x, float[4,4,1,1] w1) => (float[N,4,8,8] y) {
        a = Conv <pads = [1,1,1,1]> (x, w3)  c = Conv (x, w1)  y = Add (a, c) }"""
    reason = ["the weight or the bias is not a constant of floats"]
    assert misses(NAME, parse(text, {name: WEIGHTS[name] for name in ("w1", "w3")})) == reason


def test_inside_a_branch_and_a_function() -> None:
    text = """agraph (float[N,4,8,8] x, bool b) => (float[N,4,8,8] z) {
        z = If (b) <then_branch = g1 () => (float[N,4,8,8] y) {
                a = Conv <pads = [1,1,1,1]> (x, w3)  c = Conv (x, w1)  y = Add (a, c) },
            else_branch = g2 () => (float[N,4,8,8] r) { r = Conv (x, w1) }>
    }"""
    branch = fires(NAME, parse(text, {name: WEIGHTS[name] for name in ("w1", "w3")}), count=1).graph[0]
    assert len(branch.attributes["then_branch"].as_graph()) == 1
    text = """<ir_version: 10, opset_import: ["" : 21, "local" : 1]>
    agraph (float[N,2,8] x) => (float[N,2,8] y) { y = local.block (x) }
    <domain: "local", opset_import: ["" : 21]>
    block (x) => (y) {
        w = Constant <value = float[2,2,1] {1,2,3,4}> ()
        a = Conv (x, w)
        y = Add (a, x)
    }"""
    assert misses(NAME, parse(text)) == SIZE
