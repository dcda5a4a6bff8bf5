"""eliminate-zero-biases."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from harness import fires, misses, parse, unchanged

NAME = "eliminate-zero-biases"
RANDOM = np.random.default_rng(0)
BODIES = {
    "Conv": ("float[N,3,8,8]", "float[N,6,6,6]", (6, 3, 3, 3), (6,)),
    "ConvTranspose": ("float[N,3,8,8]", "float[N,6,10,10]", (3, 6, 3, 3), (6,)),
    "Gemm": ("float[N,3]", "float[N,6]", (3, 6), (1, 6)),
}


def model(op: str, bias: float = 0.0, *, opset: int = 21, inputs: str = "") -> ir.Model:
    x, y, weight, shape = BODIES[op]
    values = {"w": RANDOM.standard_normal(weight).astype(np.float32), "b": np.full(shape, 0, np.float32)}
    values["b"].flat[-1] = bias
    text = f"""<ir_version: 7, opset_import: ["" : {opset}]>
    agraph ({x} x{inputs}) => ({y} y) {{ y = {op} (x, w, b) }}"""
    return parse(text, values if not inputs else {"w": values["w"]})


@pytest.mark.parametrize("bias", [0.0, -0.0])
@pytest.mark.parametrize("op", BODIES)
def test_zeros_go(op: str, bias: float) -> None:
    fires(NAME, model(op, bias), [f"y = {op}(x, w)"], count=1)


@pytest.mark.parametrize("number", [1e-40, np.nan, 1.0])
@pytest.mark.parametrize("op", BODIES)
def test_other_numbers_stay(op: str, number: float) -> None:
    unchanged(NAME, model(op, number))


def test_a_gemm_before_opset_11_must_have_one() -> None:
    assert misses(NAME, model("Gemm", opset=9)) == ["before opset 11, a Gemm must have a bias"]
    fires(NAME, model("Gemm", opset=11), ["y = Gemm(x, w)"])


def test_a_bias_of_the_caller_stays() -> None:
    unchanged(NAME, model("Gemm", inputs=", float[6] b"))


def test_attributes_and_metadata_survive() -> None:
    text = """agraph (float[3,N] x) => (float[N,6] y)
    { [named] y = Gemm <transA = 1, alpha = 0.5, beta = 2.0> (x, w, b) }"""
    values = {"w": RANDOM.standard_normal((3, 6)).astype(np.float32), "b": np.zeros(6, np.float32)}
    (node,) = fires(NAME, parse(text, values), ["y = Gemm<alpha=0.5, beta=2.0, transA=1>(x, w)"]).graph
    assert node.name == "named"


def test_a_shared_bias_stays_for_the_other_reader() -> None:
    text = "agraph (float[N,3] x) => (float[N,6] y, float[6] z) { y = Gemm (x, w, b) z = Neg (b) }"
    values = {"w": RANDOM.standard_normal((3, 6)).astype(np.float32), "b": np.zeros(6, np.float32)}
    fires(NAME, parse(text, values), ["y = Gemm(x, w)", "z = Neg(b)"])
