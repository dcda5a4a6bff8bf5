"""fuse-matmul-affine."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import pytest
from harness import apply, fires, lines, misses, parse, unchanged

NAME = "fuse-matmul-affine"
Array = npt.NDArray[Any]


def weight(*shape: int, dtype: str = "float32", seed: int = 7) -> Array:
    return np.asarray(np.random.default_rng(seed).standard_normal(shape)).astype(dtype)


STATISTICS = {"g": weight(6, seed=1), "h": weight(6, seed=2), "m": weight(6, seed=3), "v": np.abs(weight(6, seed=4))}
ALL = {"w": weight(4, 6), "b": weight(6), "s": weight(6, seed=8), "one": np.array(0.7, np.float32), **STATISTICS}


def model(body: str, *, x: str = "[N,S,4]", y: str = "[N,S,6]", kind: str = "float", **values: Any) -> ir.Model:
    words = body.replace("(", " ").replace(")", " ").replace(",", " ").split()
    dtype = {"float": "float32", "double": "float64", "float16": "float16"}[kind]
    used = {name: np.asarray(array, dtype) for name, array in {**ALL, **values}.items() if name in words}
    return parse(f"agraph ({kind}{x} x) => ({kind}{y} y) {{ {body} }}", used)


SCALES = {
    "mul": "p = MatMul (x, w) y = Mul (p, s)",
    "turned": "p = MatMul (x, w) y = Mul (s, p)",
    "div": "p = MatMul (x, w) y = Div (p, s)",
    "scalar": "p = MatMul (x, w) y = Mul (p, one)",
}


@pytest.mark.parametrize("body", SCALES.values(), ids=SCALES)
def test_scale_needs_no_bias(body: str) -> None:
    fires(NAME, model(body), ["y = MatMul(x, w_1)"], count=1)


BIASED = {
    "mul": "p = MatMul (x, w) a = Add (p, b) y = Mul (a, s)",
    "turned": "p = MatMul (x, w) a = Add (b, p) y = Mul (s, a)",
    "div": "p = MatMul (x, w) a = Sub (p, b) y = Div (a, s)",
    "from": "p = MatMul (x, w) a = Add (p, b) y = Sub (s, a)",
    "from the product": "p = MatMul (x, w) y = Sub (s, p)",
}


@pytest.mark.parametrize("body", BIASED.values(), ids=BIASED)
def test_bias_is_scaled_too(body: str) -> None:
    product, total = lines(fires(NAME, model(body), count=1))
    assert product.endswith(" = MatMul(x, w_1)")
    assert total.startswith("y = Add(")


@pytest.mark.parametrize("body", ["y = Add (a, s)", "y = Sub (a, one)", "y = Add (s, a)"])
def test_second_bias_leaves_the_weight_alone(body: str) -> None:
    product, total = lines(fires(NAME, model(f"p = MatMul (x, w) a = Add (p, b) {body}"), count=1))
    assert product.endswith(" = MatMul(x, w)")
    assert total.startswith("y = Add(")


@pytest.mark.parametrize("bias", ["", "a = Add (p, b)", "a = Sub (p, b)"])
def test_normalization_of_rows(bias: str) -> None:
    body = f"p = MatMul (x, w) {bias} y = BatchNormalization ({'a' if bias else 'p'}, g, h, m, v)"
    fires(NAME, model(body, x="[N,4]", y="[N,6]"), count=1)
    found, _, _ = apply(model(body, x="[N,4]", y="[N,6]"), NAME, "fuse-matmul-add", "fuse-conv-batchnorm")
    assert [node.op_type for node in found.graph] == ["Gemm"]


@pytest.mark.parametrize("bias", [False, True])
def test_normalization_of_a_sequence(bias: bool) -> None:
    body = f"""p = MatMul (x, w) {"a = Add (p, b)" if bias else ""}
        t = Transpose <perm = [0,2,1]> ({"a" if bias else "p"})
        n = BatchNormalization (t, g, h, m, v)
        y = Transpose <perm = [0,2,1]> (n)"""
    fires(NAME, model(body), count=1)
    found, _, _ = apply(model(body), NAME, "merge-transposes")
    assert [node.op_type for node in found.graph] == ["MatMul", "Add"]


def test_chain() -> None:
    body = "p = MatMul (x, w) a = Mul (p, s) c = Add (a, b) d = Sub (one, c) y = Div (d, s)"
    found = fires(NAME, model(body))
    assert [node.op_type for node in found.graph] == ["MatMul", "Add"]


@pytest.mark.parametrize("kind", ["double", "float16"])
def test_other_types(kind: str) -> None:
    fires(NAME, model(BIASED["mul"], kind=kind), count=1)


def test_weights_that_would_not_fit() -> None:
    for factor in (6e4, 1e-7):
        assert misses(NAME, model(SCALES["scalar"], kind="float16", one=factor)) == [
            "the folded weights do not fit their type"
        ]


def test_shared_weight_is_copied_and_metadata_survives() -> None:
    text = """agraph (float[N,4] x) => (float[N,6] y, float[N,6] z) {
        p = MatMul (x, w)
        y = Mul (p, s)
        z = MatMul (x, w)
    }"""
    before = parse(text, {"w": ALL["w"], "s": ALL["s"]})
    before.graph[0].doc_string = "kept"
    after = fires(NAME, before, ["y = MatMul(x, w_1)", "z = MatMul(x, w)"])
    assert after.graph[0].doc_string == "kept"


COLUMNS = ["the constant varies along another axis than the columns"]


@pytest.mark.parametrize("shape", [(6, 1), (6, 6), (1, 6, 1), (2, 6, 6), (1, 1, 1, 6)])
def test_constant_along_another_axis(shape: tuple[int, ...]) -> None:
    body = "p = MatMul (x, w) y = Mul (p, s)"
    y = "[K,N,6,6]" if len(shape) == 4 else "[2,6,6]"
    assert misses(NAME, model(body, x="[2,6,4]", y=y, s=weight(*shape))) == COLUMNS


def test_one_column_that_would_become_many() -> None:
    assert misses(NAME, model(SCALES["mul"], w=weight(4, 1))) == COLUMNS


def test_normalization_over_another_axis() -> None:
    reason = ["the channels of the BatchNormalization are not the columns"]
    body = "p = MatMul (x, w) y = BatchNormalization (p, g, h, m, v)"
    assert misses(NAME, model(body, x="[N,6,4]", y="[N,6,6]")) == reason
    body = "p = MatMul (x, w) t = Transpose <perm = [2,1,0]> (p) y = BatchNormalization (t, g, h, m, v)"
    assert misses(NAME, model(body, x="[6,6,4]", y="[6,6,6]")) == reason


def test_first_bias_is_none_of_its_business() -> None:
    unchanged(NAME, model("p = MatMul (x, w) y = Add (p, b)"))
    unchanged(NAME, model("p = MatMul (x, w) y = Div (s, p)"))


def test_division_by_zero() -> None:
    body = "p = MatMul (x, w) y = Div (p, s)"
    assert misses(NAME, model(body, s=np.array([1, 2, 0, 4, 5, 6]))) == [
        "the constant is not finite, or divides by zero"
    ]


def test_inner_result_read_elsewhere_or_put_out() -> None:
    reason = ["an inner result is read elsewhere"]
    weights = {name: ALL[name] for name in "wbs"}
    text = "agraph (float[N,4] x) => (float[N,6] y, float[N,6] OUT) { BODY }"
    for inner in "pa":
        body = f"{BIASED['mul']} z = Relu ({inner})"
        assert misses(NAME, parse(text.replace("BODY", body).replace("OUT", "z"), weights)) == reason
        assert misses(NAME, parse(text.replace("BODY", BIASED["mul"]).replace("OUT", inner), weights)) == reason


def test_inside_a_branch_and_across_it() -> None:
    text = """agraph (float[N,4] x, bool c) => (float[N,6] y) {
        OUTER y = If (c) <then_branch = g1 () => (float[N,6] l) { INNER l = Mul (p, s) },
                    else_branch = g2 () => (float[N,6] r) { r = MatMul (x, w) }>
    }"""
    weights = {"w": ALL["w"], "s": ALL["s"]}
    inside = parse(text.replace("OUTER", "").replace("INNER", "p = MatMul (x, w)"), weights)
    result = fires(NAME, inside, count=1)
    assert lines(result.graph[0].attributes["then_branch"].as_graph()) == ["l = MatMul(x, w_1)"]
    across = parse(text.replace("INNER", "").replace("OUTER", "p = MatMul (x, w)"), weights)
    assert misses(NAME, across) == ["an inner result is read elsewhere"]


def test_inside_a_function_the_shapes_are_not_known() -> None:
    text = """<ir_version: 10, opset_import: ["" : 21, "local" : 1]>
    agraph (float[N,4] x) => (float[N,2] y) { y = local.block (x) }
    <domain: "local", opset_import: ["" : 21]>
    block (x) => (y) {
        w = Constant <value = float[4,2] {1,2,3,4,5,6,7,8}> ()
        s = Constant <value_float = 0.5> ()
        p = MatMul (x, w)
        y = Mul (p, s)
    }"""
    assert misses(NAME, parse(text)) == ["the number of axes is not known"]


def test_weight_or_operand_of_the_caller_and_integers() -> None:
    text = "agraph (float[N,4] x, float[4,6] w) => (float[N,6] y) { p = MatMul (x, w)  y = Mul (p, s) }"
    weights = {"w": ALL["w"], "s": ALL["s"]}
    unchanged(NAME, parse(text, weights))
    unchanged(NAME, parse(text.replace("float[4,6] w", "float[6] s"), weights))
    text = "agraph (int32[3,4] x) => (int32[3,6] y) { p = MatMul (x, w)  y = Mul (p, s) }"
    numbers = {"w": np.ones((4, 6), np.int32), "s": np.ones(6, np.int32)}
    assert misses(NAME, parse(text, numbers)) == ["the weight is not a matrix of floats"]
