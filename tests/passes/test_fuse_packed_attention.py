"""fuse-packed-attention."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from harness import fires, lines, misses, parse, unchanged

from graphopt.pipeline.base import Target

NAME = "fuse-packed-attention"
CPU = Target.ORT_CPU
RANDOM = np.random.default_rng(0)
SIZES = {"B": 2, "S": 5}
MHA = "y = com.microsoft.MultiHeadAttention<num_heads=3, scale=0.5>"


def weights(inner: int = 8, values: int = 12) -> dict[str, Any]:
    shapes = {"wq": (inner, 12), "wk": (inner, 12), "wv": (inner, values), "bq": (12,), "bk": (12,), "bv": (values,)}
    found = {name: RANDOM.standard_normal(shape) for name, shape in shapes.items()}
    found["w"] = np.concatenate([found["wq"], found["wk"], found["wv"]], 1)
    found["wt"] = np.ascontiguousarray(found["w"].T)
    found["b"] = np.concatenate([found["bq"], found["bk"], found["bv"]])
    return {
        **{name: one.astype(np.float32) for name, one in found.items()},
        "parts": np.array([12, 12, values]),
        "flat": np.array([-1, inner]),
        "whole": np.array([-1, 5, 24 + values]),
    }


def model(
    body: str, *, operands: str = "float[B,S,8] x", outputs: str = "", width: int = 12, opset: int = 20, **values: Any
) -> ir.Model:
    known = {**weights(values=width), **values}
    words = body.replace("(", " ").replace(")", " ").replace(",", " ").split()
    header = f'<ir_version: 10, opset_import: ["" : {opset}, "com.microsoft" : 1]>'
    text = f"{header} agraph ({operands}) => (float[B,S,{width}] y{outputs}) {{ {body} }}"
    return parse(text, {name: one for name, one in known.items() if name in words})


PRODUCTS = "a = MatMul(x, wq) c = MatMul(x, wk) e = MatMul(x, wv) "
THREE = PRODUCTS + "q = Add(a, bq) k = Add(bk, c) v = Add(e, bv) "
SPELLINGS = {
    "three": THREE,
    "without biases": PRODUCTS.replace("a =", "q =").replace("c =", "k =").replace("e =", "v ="),
    "one bias": PRODUCTS.replace("a =", "q =").replace("c =", "k =") + "v = Add(e, bv) ",
    "merged": "a = MatMul(x, w) c = Add(a, b) q, k, v = Split<axis=-1>(c, parts) ",
    "merged, without bias": "a = MatMul(x, w) q, k, v = Split<axis=2>(a, parts) ",
}
SLICES = (
    "a = MatMul(x, w) c = Add(a, b) q = Slice(c, n0, n12, two) k = Slice(c, n12, n24, two) v = Slice(c, n24, n36, two) "
)
BOUNDS: dict[str, Any] = {f"n{one}": np.array([one]) for one in (0, 12, 24, 36)} | {"two": np.array([2])}
GEMMS = {
    "gemm": "f = Reshape(x, flat) a = Gemm(f, w, b) c = Reshape(a, whole) q, k, v = Split<axis=-1>(c, parts) ",
    "turned": "f = Reshape(x, flat) a = Gemm<transB=1>(f, wt, b) c = Reshape(a, whole) "
    "q, k, v = Split<axis=-1>(c, parts) ",
}


@pytest.mark.parametrize("width", [12, 6])
@pytest.mark.parametrize("body", SPELLINGS.values(), ids=SPELLINGS)
def test_spellings(body: str, width: int) -> None:
    found = fires(NAME, model(f"{body} {MHA}(q, k, v)", width=width), count=1, target=CPU, sizes=SIZES)
    sizes = f", qkv_hidden_sizes=(12, 12, {width})" if width != 12 else ""
    (line,) = lines(found)
    assert line.startswith(f"y = com.microsoft::Attention<num_heads=3{sizes}, scale=0.5>(x, ")


@pytest.mark.parametrize("body", GEMMS.values(), ids=GEMMS)
def test_gemms_between_reshapes(body: str) -> None:
    found = fires(NAME, model(f"{body} {MHA}(q, k, v)", operands="float[B,5,8] x"), count=1, target=CPU, sizes=SIZES)
    assert [node.op_type for node in found.graph] == ["Attention"]


def test_slices() -> None:
    found = fires(NAME, model(f"{SLICES} {MHA}(q, k, v)", **BOUNDS), count=1, target=CPU, sizes=SIZES)
    assert [node.op_type for node in found.graph] == ["Attention"]


@pytest.mark.parametrize(
    "body",
    [
        SLICES.replace("q = Slice(c, n0, n12", "q = Slice(c, n12, n24"),
        SLICES.replace("q = ", "k0 = ").replace("k = ", "q = ").replace("k0 = ", "k = "),
        SLICES.replace("v = Slice(c, n24, n36", "v = Slice(c, n12, n24"),
        SLICES + "z = Neg(c) ",
    ],
)
def test_other_slices(body: str) -> None:
    outputs = ", float[B,S,36] z" if "z =" in body else ""
    reason = ["query, key and value are not the parts of one product, in this order"]
    assert misses(NAME, model(f"{body} {MHA}(q, k, v)", outputs=outputs, **BOUNDS), CPU) == reason


def test_mask() -> None:
    before = model(f"{THREE} {MHA}(q, k, v,,, m)", operands="float[B,S,8] x, float[B,1,S,S] m")
    (line,) = lines(fires(NAME, before, count=1, target=CPU, sizes=SIZES))
    assert line.endswith(", , , m)")


def test_the_target_decides() -> None:
    before = model(f"{THREE} {MHA}(q, k, v)")
    assert misses(NAME, before) == ["the target has no kernel for it"]
    fires(NAME, before, count=1, target=Target.ORT_CUDA, sizes=SIZES)


READ = ["a projection is read elsewhere"]
NONE = ["query, key and value are not products of one tensor with matrices of their own"]


@pytest.mark.parametrize("inner", ["q", "k", "v"])
def test_a_projection_that_is_read_elsewhere(inner: str) -> None:
    body = f"{THREE} {MHA}(q, k, v)"
    assert misses(NAME, model(body, outputs=f", float[B,S,12] {inner}"), CPU) == READ
    assert misses(NAME, model(f"{body} z = Neg({inner})", outputs=", float[B,S,12] z"), CPU) == READ


@pytest.mark.parametrize("inner", ["a", "c", "e"])
def test_a_product_that_is_read_elsewhere(inner: str) -> None:
    body = f"{THREE} {MHA}(q, k, v)"
    assert misses(NAME, model(body, outputs=f", float[B,S,12] {inner}"), CPU) == NONE
    assert misses(NAME, model(f"{body} z = Neg({inner})", outputs=", float[B,S,12] z"), CPU) == NONE


def test_a_matrix_that_is_read_elsewhere() -> None:
    body = f"{THREE} {MHA}(q, k, v) z = MatMul(x, wq)"
    assert misses(NAME, model(body, outputs=", float[B,S,12] z"), CPU) == NONE


def test_a_matrix_that_can_be_overridden() -> None:
    body = f"{THREE} {MHA}(q, k, v)"
    assert misses(NAME, model(body, operands="float[B,S,8] x, float[8,12] wq"), CPU) == NONE


def test_a_bias_that_is_computed() -> None:
    body = f"{PRODUCTS} q = Add(a, m) k = Add(c, bk) v = Add(e, bv) {MHA}(q, k, v)"
    assert misses(NAME, model(body, operands="float[B,S,8] x, float[12] m"), CPU) == NONE
    assert misses(NAME, model(body, m=np.ones((1, 12), np.float32)), CPU) == NONE


def test_cross_attention() -> None:
    body = f"{THREE.replace('(x, wq)', '(u, wq)')} {MHA}(q, k, v)"
    assert misses(NAME, model(body, operands="float[B,S,8] x, float[B,S,8] u"), CPU) == NONE


def test_parts_in_another_order() -> None:
    body = SPELLINGS["merged"].replace("q, k, v", "k, q, v")
    reason = ["query, key and value are not the parts of one product, in this order"]
    assert misses(NAME, model(f"{body} {MHA}(q, k, v)"), CPU) == reason


@pytest.mark.parametrize(
    "body",
    [
        GEMMS["gemm"].replace("Gemm(", "Gemm<alpha=0.5>("),
        GEMMS["gemm"].replace("Gemm(", "Gemm<beta=0.5>("),
        GEMMS["gemm"].replace("(f, w, b)", "(f, w, row)"),
    ],
)
def test_other_gemms(body: str) -> None:
    before = model(f"{body} {MHA}(q, k, v)", operands="float[B,5,8] x", row=np.ones((1, 36), np.float32))
    assert misses(NAME, before, CPU) == NONE


def test_a_gemm_over_other_rows() -> None:
    """The Reshape after it makes one sample of two."""
    body = GEMMS["gemm"].replace("whole", "other")
    before = model(f"{body} {MHA}(q, k, v)", operands="float[2,5,8] x", other=np.array([1, 10, 36]))
    assert misses(NAME, before, CPU) == NONE


def test_more_operands() -> None:
    unchanged(NAME, model(f"{THREE} {MHA}(q, k, v, b)"), CPU)
    unchanged(NAME, model(f"{THREE} {MHA}(q, k, v,, p)", operands="float[B,S,8] x, int32[B,S] p"), CPU)


def test_metadata_survives() -> None:
    before = model(f"{THREE} {MHA}(q, k, v)")
    before.graph[-1].name, before.graph[-1].doc_string = "heads", "kept"
    (node,) = fires(NAME, before, count=1, target=CPU, sizes=SIZES).graph
    assert (node.name, node.doc_string) == ("heads", "kept")
