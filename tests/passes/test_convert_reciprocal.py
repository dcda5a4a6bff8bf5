"""convert-reciprocal."""

from __future__ import annotations

import numpy as np
import pytest
from harness import apply, fires, lines, misses, parse, unchanged

NAME = "convert-reciprocal"
OTHER = ["it is no root-mean-square normalization with a scale"]
ROOT = "q = Pow(x, two)  v = ReduceMean<axes = [-1]>(q)  a = Add(v, eps)  s = Sqrt(a)  r = Reciprocal(s)"
WEIGHTS = {
    "two": np.array(2, np.float32), "eps": np.array(1e-6, np.float32), "w": np.linspace(0.5, 2, 8, dtype=np.float32)
}  # fmt: skip


def graph(body: str, outputs: str = "float[A,B,C] y", kind: str = "float", opset: int = 17) -> str:
    outputs = outputs.replace("float[", f"{kind}[")
    return f'<ir_version: 8, opset_import: ["" : {opset}]> agraph ({kind}[N,S,8] x) => ({outputs}) {{ {body} }}'


@pytest.mark.parametrize("product", ["n = Mul(x, r)", "n = Mul(r, x)"])
@pytest.mark.parametrize("scale", ["y = Mul(n, w)", "y = Mul(w, n)"])
def test_normalization(product: str, scale: str) -> None:
    result = fires(NAME, parse(graph(f"{ROOT}  {product}  {scale}"), WEIGHTS), count=1)
    assert lines(result)[-2:] == ["n = Div(x, s)", scale]
    assert len(result.graph) == 6


@pytest.mark.parametrize("opset", [11, 13, 17])
def test_mean_as_a_product_and_statistics_of_another_type(opset: int) -> None:
    body = ROOT.replace("Pow(x, two)", "Mul(c, c)").replace("q =", "c = Cast<to = 1>(x)  q =")
    body = f"{body}  n = Mul(c, r)  k = Cast<to = 10>(n)  y = Mul(k, w)"
    weights = {**WEIGHTS, "w": WEIGHTS["w"].astype(np.float16)}
    result = fires(NAME, parse(graph(body, kind="float16", opset=opset), weights), count=1)
    assert "n = Div(c, s)" in lines(result)


def test_double() -> None:
    weights = {name: held.astype(np.float64) for name, held in WEIGHTS.items()}
    fires(NAME, parse(graph(f"{ROOT}  n = Mul(x, r)  y = Mul(n, w)", kind="double"), weights), count=1)


@pytest.mark.parametrize(
    "body",
    [
        f"{ROOT}  y = Mul(x, r)",
        f"{ROOT}  n = Mul(x, r)  y = Add(n, w)",
        "p = Abs(x)  a = Add(p, eps)  s = Sqrt(a)  r = Reciprocal(s)  n = Mul(x, r)  y = Mul(n, w)",
        "q = Pow(x, two)  a = ReduceMean<axes = [-1]>(q)  s = Sqrt(a)  r = Reciprocal(s)  n = Mul(x, r)  y = Mul(n, w)",
    ],
)
def test_no_normalization(body: str) -> None:
    assert misses(NAME, parse(graph(body), WEIGHTS)) == OTHER


def test_reciprocal_of_something_else() -> None:
    unchanged(NAME, parse(graph("p = Exp(x)  r = Reciprocal(p)  n = Mul(x, r)  y = Mul(n, w)"), WEIGHTS))


@pytest.mark.parametrize("more", ["  z = Neg(r)", ""])
def test_reciprocal_is_read_elsewhere(more: str) -> None:
    outputs = "float[A,B,C] y, float[D,E,F] z" if more else "float[A,B,C] y, float[D,E,F] r"
    text = graph(f"{ROOT}  n = Mul(x, r)  y = Mul(n, w){more}", outputs)
    assert misses(NAME, parse(text, WEIGHTS)) == ["the reciprocal is read elsewhere"]


def test_inside_a_branch_and_a_function() -> None:
    text = f"""<ir_version: 8, opset_import: ["" : 17, "own" : 1]>
    agraph (float[N,S,8] x, bool t) => (float[A,B,C] y) {{
        z = If (t) <
            then_branch = yes () => (float[A,B,C] m) {{ {ROOT}  n = Mul(x, r)  m = Mul(n, w) }},
            else_branch = no () => (float[D,E,F] o) {{ o = Neg(x) }}
        >
        y = own.f(z)
    }}
    <domain: "own", opset_import: ["" : 17]>
    f (x) => (y) {{
        two = Constant<value_float = 2.0>()
        eps = Constant<value_float = 0.1>()
        {ROOT}
        n = Mul(x, r)
        y = Mul(n, eps)
    }}"""
    result = fires(NAME, parse(text, WEIGHTS), count=2)
    (function,) = result.functions.values()
    assert "n = Div(x, s)" in lines(function)
    assert "n = Div(x, s)" in lines(result.graph[0].attributes["then_branch"].as_graph())


def test_name_and_metadata_survive() -> None:
    model = parse(graph(f"{ROOT}  n = Mul(x, r)  y = Mul(n, w)"), WEIGHTS)
    model.graph[5].name = "norm"
    model.graph[5].metadata_props["origin"] = "llama"
    (node,) = (node for node in fires(NAME, model).graph if node.op_type == "Div")
    assert (node.name, node.metadata_props) == ("norm", {"origin": "llama"})


def test_no_undoing_with_other_passes() -> None:
    model = parse(graph(f"{ROOT}  n = Mul(x, r)  y = Mul(n, w)"), WEIGHTS)
    once, _, _ = apply(model, "default")
    assert not apply(once, "default")[1].counts
