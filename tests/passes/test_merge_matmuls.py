"""merge-matmuls."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import pytest
from harness import fires, lines, parse, unchanged

NAME = "merge-matmuls"


def weight(*shape: int, dtype: str = "float32", seed: int = 7) -> npt.NDArray[Any]:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def weights(dtype: str = "float32", sizes: tuple[int, ...] = (6, 6, 6)) -> dict[str, npt.NDArray[Any]]:
    made = {f"w{name}": weight(4, size, dtype=dtype, seed=size) for name, size in zip("qkv", sizes, strict=True)}
    return {**made, **{f"b{name}": weight(size, dtype=dtype) for name, size in zip("qkv", sizes, strict=True)}}


BODY = """a = MatMul (x, wq)
    q = Add (a, bq)
    b = MatMul (x, wk)
    k = Add (bk, b)
    c = MatMul (x, wv)
    v = Add (c, bv)
    t = Transpose <perm = [0,2,1]> (k)
    s = MatMul (q, t)
    y = MatMul (s, v)"""


def model(body: str = BODY, *, opset: int = 21, kind: str = "float", outputs: str = "", **values: Any) -> ir.Model:
    dtype = {"float": "float32", "float16": "float16", "double": "float64"}[kind]
    text = f"""<ir_version: 7, opset_import: ["" : {opset}]>
    agraph ({kind}[N,S,4] x) => ({kind}[N,S,6] y{outputs}) {{ {body} }}"""
    return parse(text, {**weights(dtype), **values})


@pytest.mark.parametrize("opset", [11, 13, 21])
def test_query_key_and_value(opset: int) -> None:
    result = fires(NAME, model(opset=opset), count=1)
    product, total, split, *rest = lines(result)
    assert product.endswith(" = MatMul(x, wq_merged)")
    assert total.endswith(", bq_merged)")
    assert split.startswith("q, k, v = Split<axis=-1")
    assert rest == ["t = Transpose<perm=(0, 2, 1)>(k)", "s = MatMul(q, t)", "y = MatMul(s, v)"]


@pytest.mark.parametrize("kind", ["float16", "double"])
def test_other_types(kind: str) -> None:
    fires(NAME, model(kind=kind), count=1)


def test_other_sizes() -> None:
    text = f"agraph (float[N,S,4] x) => (float[A,B,C] y) {{ {BODY} }}"
    fires(NAME, parse(text, weights(sizes=(6, 6, 2))), count=1)


def test_results_that_are_put_out_keep_their_names() -> None:
    result = fires(NAME, model(outputs=", float[N,S,6] q, float[N,S,6] v"), count=1)
    assert [value.name for value in result.graph.outputs] == ["y", "q", "v"]


def test_four_and_the_ones_that_do_not_take_part() -> None:
    more = "d = MatMul (x, wu) u = Add (d, bu) e = MatMul (x, wz) z = Mul (o, e) y = Mul (z, u)"
    body = f"{BODY.replace('y =', 'o =')} {more}"
    values: dict[str, Any] = {"wu": weight(4, 6), "bu": weight(6), "wz": weight(4, 6)}
    result = fires(NAME, model(body, **values), count=1)
    assert [node.op_type for node in result.graph].count("MatMul") == 4
    assert len(result.graph[2].outputs) == 4


def test_metadata_survives() -> None:
    before = model()
    before.graph[0].name, before.graph[0].doc_string = "query", "kept"
    before.graph[0].metadata_props["key"] = "value"
    node = fires(NAME, before).graph[0]
    assert (node.doc_string, node.metadata_props["key"]) == ("kept", "value")


def test_two_are_too_few() -> None:
    body = "a = MatMul (x, wq) q = Add (a, bq) b = MatMul (x, wk) k = Add (b, bk) y = Mul (q, k)"
    used = {name: array for name, array in weights().items() if name[1] in "qk"}
    unchanged(NAME, parse(f"agraph (float[N,S,4] x) => (float[N,S,6] y) {{ {body} }}", used))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("q = Add (a, bq)", "q = Relu (a)"),
        ("q = Add (a, bq)", "h = Add (a, bq) q = Mul (h, a)"),
        ("q = Add (a, bq)", "q = Add (a, a)"),
        ("a = MatMul (x, wq)", "r = Relu (x) a = MatMul (r, wq)"),
        ("a = MatMul (x, wq)", "a = MatMul (x, wk)"),
        ("k = Add (bk, b)", "k = Add (bq, b)"),
    ],
)
def test_without_a_third(old: str, new: str) -> None:
    unchanged(NAME, model(BODY.replace(old, new)))


def test_product_put_out() -> None:
    unchanged(NAME, model(outputs=", float[N,S,6] a"))


@pytest.mark.parametrize("shape", [(1,), (1, 6), (6, 1)])
def test_bias_of_another_shape(shape: tuple[int, ...]) -> None:
    text = f"agraph (float[N,6,4] x) => (float[N,6,6] y) {{ {BODY} }}"
    unchanged(NAME, parse(text, {**weights(), "bq": weight(*shape)}))


def test_constants_of_the_caller() -> None:
    text = f"agraph (float[N,S,4] x, float[4,6] wq) => (float[N,S,6] y) {{ {BODY} }}"
    unchanged(NAME, parse(text, weights()))
    unchanged(NAME, parse(text.replace("float[4,6] wq", "float[6] bk"), weights()))


def test_inside_a_branch_and_across_it() -> None:
    text = f"""agraph (float[N,S,4] x, bool g) => (float[N,S,6] z) {{
        z = If (g) <then_branch = g1 () => (float[N,S,6] y) {{ {BODY} }},
                    else_branch = g2 () => (float[N,S,6] r) {{ r = MatMul (x, wr) }}>
    }}"""
    branch = fires(NAME, parse(text, {**weights(), "wr": weight(4, 6)}), count=1).graph[0].attributes["then_branch"]
    assert [node.op_type for node in branch.as_graph()][:3] == ["MatMul", "Add", "Split"]
    across = """agraph (float[N,S,4] x, bool g) => (float[N,S,6] z) {
        a = MatMul (x, wq)  b = MatMul (x, wk)  c = MatMul (x, wv)
        z = If (g) <then_branch = g1 () => (float[N,S,6] y) {
                q = Add (a, bq)  k = Add (b, bk)  v = Add (c, bv)  o = Mul (q, k)  y = Mul (o, v) },
            else_branch = g2 () => (float[N,S,6] r) { r = Relu (a) }>
    }"""
    unchanged(NAME, parse(across, weights()))


def test_inside_a_function() -> None:
    text = """<ir_version: 10, opset_import: ["" : 21, "local" : 1]>
    agraph (float[N,2] x) => (float[N,1] y) { y = local.block (x) }
    <domain: "local", opset_import: ["" : 21]>
    block (x) => (y) {
        w = Constant <value = float[2,1] {1,2}> ()
        v = Constant <value = float[2,1] {3,4}> ()
        u = Constant <value = float[2,1] {5,6}> ()
        d = Constant <value = float[1] {1}> ()
        e = Constant <value = float[1] {2}> ()
        f = Constant <value = float[1] {3}> ()
        a = MatMul (x, w)  q = Add (a, d)
        b = MatMul (x, v)  k = Add (b, e)
        c = MatMul (x, u)  z = Add (c, f)
        o = Mul (q, k)     y = Mul (o, z)
    }"""
    function = next(iter(fires(NAME, parse(text), count=1).functions.values()))
    assert [node.op_type for node in function if node.op_type != "Constant"] == ["MatMul", "Add", "Split", "Mul", "Mul"]
