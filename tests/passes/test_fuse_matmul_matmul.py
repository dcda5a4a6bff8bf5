"""fuse-matmul-matmul."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import pytest
from harness import fires, lines, misses, parse, unchanged

NAME = "fuse-matmul-matmul"


def weight(*shape: int, seed: int = 7) -> npt.NDArray[Any]:
    return np.random.default_rng(seed).standard_normal(shape)


ALL = {"w": weight(4, 8), "v": weight(8, 5), "wt": weight(8, 4), "vt": weight(5, 8), "b": weight(8), "k": weight(5)}


def model(body: str, *, x: str = "[N,4]", kind: str = "float", extra: str = "", **values: Any) -> ir.Model:
    dtype = {"float": "float32", "float16": "float16", "double": "float64"}[kind]
    words = set(re.split(r"\W+", body))
    used = {name: np.asarray(one, dtype) for name, one in {**ALL, **values}.items() if name in words}
    y = "[N,5]" if x == "[N,4]" else "[N,S,5]"
    return parse(f"agraph ({kind}{x} x) => ({kind}{y} y{extra}) {{ {body} }}", used)


SPELLINGS = {
    "products": ("a = MatMul (x, w) y = MatMul (a, v)", ["MatMul"]),
    "bias": ("m = MatMul (x, w) a = Add (m, b) y = MatMul (a, v)", ["MatMul", "Add"]),
    "bias first": ("m = MatMul (x, w) a = Add (b, m) y = MatMul (a, v)", ["MatMul", "Add"]),
    "both": ("m = MatMul (x, w) a = Add (m, b) p = MatMul (a, v) y = Add (p, k)", ["MatMul", "Add", "Add"]),
}


@pytest.mark.parametrize("x", ["[N,4]", "[N,S,4]"])
@pytest.mark.parametrize(("body", "kinds"), SPELLINGS.values(), ids=SPELLINGS)
def test_products(body: str, kinds: list[str], x: str) -> None:
    assert [node.op_type for node in fires(NAME, model(body, x=x), count=1).graph] == kinds


GEMMS = {
    "plain": "a = Gemm (x, w) y = Gemm (a, v)",
    "torch": "a = Gemm <transB = 1> (x, wt, b) y = Gemm <transB = 1> (a, vt, k)",
    "beta": "a = Gemm <beta = 0.5> (x, w, b) y = Gemm <beta = 2.0> (a, v, k)",
    "mixed": "a = Gemm (x, w, b) y = MatMul (a, v)",
    "mixed too": "a = MatMul (x, w) y = Gemm (a, v, k)",
}


@pytest.mark.parametrize("body", GEMMS.values(), ids=GEMMS)
def test_gemms(body: str) -> None:
    (line,) = lines(fires(NAME, model(body), count=1))
    assert line.startswith("y = Gemm(x, ")


def test_gemm_before_opset_11_keeps_its_bias() -> None:
    text = """<ir_version: 4, opset_import: ["" : 9]>
    agraph (float[N,4] x) => (float[N,5] y) { a = Gemm (x, w, b)  y = Gemm (a, v, k) }"""
    values = {**{name: ALL[name] for name in "wv"}, "b": np.zeros(8), "k": np.zeros(5)}
    result = fires(NAME, parse(text, {name: one.astype(np.float32) for name, one in values.items()}), count=1)
    assert len(result.graph[0].inputs) == 3


def test_chain_and_metadata() -> None:
    before = model("a = MatMul (x, w) c = MatMul (a, u) y = MatMul (c, v)", u=weight(8, 8))
    before.graph[-1].name, before.graph[-1].doc_string = "last", "kept"
    (node,) = fires(NAME, before, count=2).graph
    assert (node.name, node.doc_string) == ("last", "kept")


@pytest.mark.parametrize("kind", ["float16", "double"])
def test_other_types(kind: str) -> None:
    fires(NAME, model(SPELLINGS["bias"][0], kind=kind), count=1)


def test_weights_that_would_not_fit() -> None:
    values = {"w": np.full((4, 8), 1e3), "v": np.full((8, 5), 1e3)}
    body = SPELLINGS["products"][0]
    text = f"agraph (float16[N,4] x) => (float16[N,5] y) {{ {body} }}"
    weights = {name: one.astype(np.float16) for name, one in values.items()}
    assert misses(NAME, parse(text, weights)) == ["the new weights do not fit their type"]


def test_narrow_middle() -> None:
    body = SPELLINGS["products"][0]
    assert misses(NAME, model(body, w=weight(4, 2), v=weight(2, 5))) == ["one layer would cost more than two"]


@pytest.mark.parametrize("inner", ["m", "a"])
def test_inner_result_read_elsewhere_or_put_out(inner: str) -> None:
    reason = ["an inner result is read elsewhere"]
    body = SPELLINGS["bias"][0]
    assert misses(NAME, model(f"{body} z = Neg ({inner})", extra=", float[N,8] z")) == reason
    assert misses(NAME, model(body, extra=f", float[N,8] {inner}")) == reason


@pytest.mark.parametrize(
    "body",
    [
        "a = Gemm <alpha = 0.5> (x, w) y = MatMul (a, v)",
        "t = Transpose (x) a = Gemm <transA = 1> (t, w) y = MatMul (a, v)",
        "m = MatMul (x, w) a = Relu (m) y = MatMul (a, v)",
        "m = MatMul (x, w) a = Add (m, m) y = MatMul (a, v)",
    ],
)
def test_something_else(body: str) -> None:
    unchanged(NAME, model(body))


@pytest.mark.parametrize("shape", [(3, 8), (3, 1), (1, 1, 8)])
def test_bias_that_varies_over_the_rows(shape: tuple[int, ...]) -> None:
    text = "agraph (float[3,4] x) => (float[A,B] y) { m = MatMul (x, w)  a = Add (m, b)  y = MatMul (a, v) }"
    values = {**{name: ALL[name] for name in "wv"}, "b": weight(*shape)}
    text = text if len(shape) == 2 else text.replace("[A,B]", "[A,B,C]")
    unchanged(NAME, parse(text, {name: one.astype(np.float32) for name, one in values.items()}))


def test_weight_of_the_caller_and_integers() -> None:
    text = "agraph (float[N,4] x, float[8,5] v) => (float[N,5] y) { a = MatMul (x, w)  y = MatMul (a, v) }"
    unchanged(NAME, parse(text, {name: ALL[name].astype(np.float32) for name in "wv"}))
    text = "agraph (int32[3,4] x) => (int32[3,5] y) { a = MatMul (x, w)  y = MatMul (a, v) }"
    unchanged(NAME, parse(text, {"w": np.ones((4, 8), np.int32), "v": np.ones((8, 5), np.int32)}))


def test_inside_a_branch_a_function_and_across() -> None:
    text = """agraph (float[N,4] x, bool g) => (float[N,5] z) {
        OUTER z = If (g) <then_branch = g1 () => (float[N,5] y) { INNER y = MatMul (a, v) },
                    else_branch = g2 () => (float[N,5] r) { r = MatMul (x, u) }>
    }"""
    values = {**{name: ALL[name].astype(np.float32) for name in "wv"}, "u": weight(4, 5).astype(np.float32)}
    inside = parse(text.replace("OUTER", "").replace("INNER", "a = MatMul (x, w)"), values)
    assert len(fires(NAME, inside, count=1).graph[0].attributes["then_branch"].as_graph()) == 1
    across = parse(text.replace("INNER", "").replace("OUTER", "a = MatMul (x, w)"), values)
    assert misses(NAME, across) == ["an inner result is read elsewhere"]
    text = """<ir_version: 10, opset_import: ["" : 21, "local" : 1]>
    agraph (float[N,2] x) => (float[N,1] y) { y = local.block (x) }
    <domain: "local", opset_import: ["" : 21]>
    block (x) => (y) {
        w = Constant <value = float[2,2] {1,2,3,4}> ()
        v = Constant <value = float[2,1] {5,6}> ()
        a = MatMul (x, w)
        y = MatMul (a, v)
    }"""
    assert lines(next(iter(fires(NAME, parse(text), count=1).functions.values())))[-1] == "y = MatMul(x, v_1)"
