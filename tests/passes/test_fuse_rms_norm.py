"""fuse-rms-norm."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from harness import fires, lines, misses, parse, unchanged

NAME = "fuse-rms-norm"
RANDOM = np.random.default_rng(0)
NUMBERS = {"two": 2.0, "half": 0.5, "eps": 1e-5, "minus": -0.5, "one": 1.0}


def model(
    body: str, *, opset: int = 23, kind: str = "float", x: str = "[N,3,4]", extra: str = "", **values: Any
) -> ir.Model:
    dtype = {"float": np.float32, "float16": np.float16, "double": np.float64}[kind]
    words = set(re.split(r"\W+", body))
    floats = {
        "w": RANDOM.standard_normal(4),
        **NUMBERS,
        **{name: one for name, one in values.items() if name != "axes"},
    }
    used: dict[str, Any] = {name: np.asarray(one, dtype) for name, one in floats.items() if name in words}
    if "axes" in words:
        used["axes"] = np.asarray(values.get("axes", [-1]))
    header = f'<ir_version: 10, opset_import: ["" : {opset}]>'
    return parse(f"{header} agraph ({kind}{x} x) => ({kind}{x} y{extra}) {{ {body} }}", used)


CORE = "q = Pow(x, two) v = ReduceMean(q, axes) a = Add(v, eps) s = Sqrt(a) "
SPELLINGS = {
    "dynamo": CORE + "r = Reciprocal(s) n = Mul(x, r) y = Mul(w, n)",
    "legacy": CORE + "r = Div(one, s) n = Mul(x, r) y = Mul(n, w)",
    "quotient": CORE + "n = Div(x, s) y = Mul(n, w)",
    "scaled first": CORE + "n = Mul(x, w) y = Div(n, s)",
    "product": "q = Mul(x, x) v = ReduceMean(q, axes) a = Add(eps, v) r = Pow(a, minus) n = Mul(r, x) y = Mul(n, w)",
    "root by power": CORE.replace("Sqrt(a)", "Pow(a, half)") + "n = Div(x, s) y = Mul(n, w)",
}
WHOLE = ["y = RMSNormalization<axis=-1, epsilon=9.999999747378752e-06>(x, w)"]


@pytest.mark.parametrize("opset", [23, 24])
@pytest.mark.parametrize("body", SPELLINGS.values(), ids=SPELLINGS)
def test_spellings(body: str, opset: int) -> None:
    fires(NAME, model(body, opset=opset), WHOLE, count=1)


def test_several_axes() -> None:
    scale = RANDOM.standard_normal((3, 4))
    result = fires(NAME, model(SPELLINGS["quotient"], axes=[1, -1], w=scale), count=1)
    assert result.graph[0].attributes["axis"].as_int() == -2


def test_computed_operand_and_what_follows() -> None:
    body = re.sub(r"\bx\b", "k", SPELLINGS["dynamo"]).replace("y =", "z =")
    result = fires(NAME, model(f"k = Add(x, x) {body} y = Add(z, k)"), count=1)
    assert [node.op_type for node in result.graph] == ["Add", "RMSNormalization", "Add"]


def test_half_precision_and_doubles() -> None:
    fires(NAME, model(SPELLINGS["dynamo"], kind="float16", eps=1e-3), count=1)
    assert misses(NAME, model(SPELLINGS["dynamo"], kind="double")) == [
        "the type is not known to be float32 or of half precision"
    ]


def test_before_opset_23() -> None:
    unchanged(NAME, model(SPELLINGS["dynamo"], opset=22))


def test_metadata_survives() -> None:
    before = model(SPELLINGS["dynamo"])
    before.graph[-1].name, before.graph[-1].doc_string = "norm", "kept"
    (node,) = fires(NAME, before).graph
    assert (node.name, node.doc_string) == ("norm", "kept")


@pytest.mark.parametrize("inner", ["q", "v", "a", "s", "n"])
def test_inner_result_read_elsewhere_or_put_out(inner: str) -> None:
    body = SPELLINGS["quotient"]
    shape = "[A,B,C]"
    reason = ["an inner result is read elsewhere"]
    assert misses(NAME, model(f"{body} z = Neg({inner})", extra=f", float{shape} z")) == reason
    assert misses(NAME, model(body, extra=f", float{shape} {inner}")) == reason


def test_other_axes() -> None:
    reason = ["the mean is not over the last axes, kept"]
    assert misses(NAME, model(SPELLINGS["quotient"], axes=[1])) == reason
    body = SPELLINGS["quotient"].replace("ReduceMean(", "ReduceMean<keepdims = 0>(")
    assert misses(NAME, model(body, x="[4,4]")) == reason


@pytest.mark.parametrize("shape", [(1,), (3, 4), (1, 4), (3, 1)])
def test_scale_of_another_shape(shape: tuple[int, ...]) -> None:
    scale = RANDOM.standard_normal(shape)
    if shape == (1,):  # a number, which is part of the formula
        unchanged(NAME, model(SPELLINGS["quotient"], w=scale))
    else:
        reason = ["the scale does not have just the normalized axes"]
        assert misses(NAME, model(SPELLINGS["quotient"], w=scale)) == reason


@pytest.mark.parametrize(
    "body",
    [
        CORE + "y = Div(x, s)",
        CORE + "n = Div(w, s) y = Mul(n, s)",
        "q = Pow(x, two) v = ReduceMean(q, axes) s = Sqrt(v) n = Div(x, s) y = Mul(n, w)",
        "q = Pow(x, two) v = ReduceMean(q, axes) s = Sqrt(v) a = Add(s, eps) n = Div(x, a) y = Mul(n, w)",
        CORE + "k = Neg(x) n = Div(k, s) y = Mul(n, w)",
        CORE + "n = Div(x, s) m = Mul(n, two) y = Mul(m, w)",
        "q = Pow(x, half) v = ReduceMean(q, axes) a = Add(v, eps) s = Sqrt(a) n = Div(x, s) y = Mul(n, w)",
    ],
)
def test_other_formulas(body: str) -> None:
    unchanged(NAME, model(body))


def test_inside_a_branch_and_a_function() -> None:
    text = f"""<ir_version: 10, opset_import: ["" : 23]>
    agraph (float[N,3,4] x, bool b) => (float[N,3,4] z) {{
        z = If (b) <then_branch = g1 () => (float[N,3,4] y) {{ {SPELLINGS["quotient"]} }},
                    else_branch = g2 () => (float[N,3,4] r) {{ r = Relu (x) }}>
    }}"""
    values = {"two": np.array(2, np.float32), "eps": np.array(1e-5, np.float32), "axes": np.array([-1])}
    scale = RANDOM.standard_normal(4).astype(np.float32)
    result = fires(NAME, parse(text, {**values, "w": scale}), count=1)
    assert lines(result.graph[0].attributes["then_branch"].as_graph()) == WHOLE
    text = """<ir_version: 10, opset_import: ["" : 23, "local" : 1]>
    agraph (float[N,4] x, float[4] w) => (float[N,4] y) { y = local.block (x, w) }
    <domain: "local", opset_import: ["" : 23]>
    block (x, w) => (y) {
        e = Constant <value_float = 0.001> ()
        t = Constant <value_ints = [-1]> ()
        q = Mul (x, x)  v = ReduceMean (q, t)  a = Add (v, e)  s = Sqrt (a)  n = Div (x, s)  y = Mul (n, w)
    }"""
    assert misses(NAME, parse(text)) == ["the type is not known to be float32 or of half precision"]


WIDENED = "f = Cast <to = 1> (x) q = Pow(f, t) v = ReduceMean(q, axes) a = Add(v, e) s = Sqrt(a) r = Reciprocal(s) "
WIDENED += "n = Mul(f, r) h = Cast <to = 10> (n) "


def widened(last: str, *, extra: str = "", outputs: str = "") -> ir.Model:
    values = {"w": RANDOM.standard_normal(4).astype(np.float16), "axes": np.array([-1])}
    numbers = {"t": np.array(2, np.float32), "e": np.array(1e-5, np.float32)}
    header = '<ir_version: 10, opset_import: ["" : 23]>'
    text = f"{header} agraph (float16[N,3,4] x) => (float16[N,3,4] y{outputs}) {{ {WIDENED} {last} {extra} }}"
    return parse(text, {**values, **numbers})


@pytest.mark.parametrize("last", ["y = Mul(w, h)", "y = Mul(h, w)"])
def test_half_precision_that_is_widened(last: str) -> None:
    (line,) = lines(fires(NAME, widened(last), count=1))
    assert re.fullmatch(r"y = RMSNormalization<axis=-1, epsilon=(1e-05|9.99\d+e-06)>\(x, w\)", line)


def test_the_widened_operand_may_be_read_elsewhere() -> None:
    result = fires(NAME, widened("y = Mul(h, w)", extra="z = Neg(f)", outputs=", float[N,3,4] z"), count=1)
    assert sorted(node.op_type for node in result.graph) == ["Cast", "Neg", "RMSNormalization"]


def test_a_widened_norm_that_is_read_elsewhere() -> None:
    reason = ["an inner result is read elsewhere"]
    assert misses(NAME, widened("y = Mul(h, w)", extra="z = Neg(n)", outputs=", float[N,3,4] z")) == reason
    assert misses(NAME, widened("y = Mul(h, w)", extra="z = Neg(h)", outputs=", float16[N,3,4] z")) == reason


def test_a_widened_norm_without_scale() -> None:
    unchanged(NAME, widened("y = Add(h, w)"))
