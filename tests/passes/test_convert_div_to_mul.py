"""convert-div-to-mul."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from harness import apply, feeds, fires, lines, misses, parse, run, unchanged

NAME = "convert-div-to-mul"
NOT_FINITE = ["the divisor has a zero, an infinity or a NaN"]
NOT_NORMAL = ["the reciprocal is not a normal number"]


def division(divisor: npt.ArrayLike, kind: str = "float", dtype: str = "float32", *, opset: int = 21) -> Any:
    text = f"""<ir_version: 8, opset_import: ["" : {opset}]>
    agraph ({kind}[N,4] x) => ({kind}[N,4] y) {{ y = Div (x, d) }}"""
    return parse(text, {"d": np.asarray(divisor, dtype)})


@pytest.mark.parametrize("divisor", [3, -0.7, [3], [[1, 2, 3, 4]], [1, -2, 0.5, 1e30]])
def test_reciprocal(divisor: npt.ArrayLike) -> None:
    fires(NAME, division(divisor), ["y = Mul(x, d_1)"])


@pytest.mark.parametrize("opset", [7, 13, 14, 21])
def test_opsets(opset: int) -> None:
    fires(NAME, division(3, opset=opset), ["y = Mul(x, d_1)"])


def test_double() -> None:
    fires(NAME, division(3, "double", "float64"), ["y = Mul(x, d_1)"])


@pytest.mark.parametrize(("kind", "dtype"), [("float", "float32"), ("float16", "float16")])
def test_powers_of_two_are_exact(kind: str, dtype: str) -> None:
    model = division([0.25, -8, 1024, 2], kind, dtype)
    result = fires(NAME, model, ["y = Mul(x, d_1)"])
    for seed in range(3):
        inputs = {name: array * 3 for name, array in feeds(model, seed, {"N": 100}).items()}
        np.testing.assert_array_equal(run(model, inputs)[0], run(result, inputs)[0])


def test_shared_divisor_is_copied() -> None:
    text = "agraph (float[N,4] x) => (float[N,4] y, float[N,4] z) { y = Div (x, d)  z = Add (x, d) }"
    result = fires(NAME, parse(text, {"d": np.array(3, np.float32)}), ["y = Mul(x, d_1)", "z = Add(x, d)"])
    assert result.graph.initializers["d"].const_value is not None
    np.testing.assert_array_equal(result.graph.initializers["d"].const_value.numpy(), np.float32(3))


def test_inside_a_branch_and_a_function() -> None:
    text = """<ir_version: 10, opset_import: ["" : 21, "local" : 1]>
    agraph (float[N,4] x, bool b) => (float[N,4] y) {
        y = If (b) <
            then_branch = left () => (float[N,4] l) { l = Div (x, d) },
            else_branch = right () => (float[N,4] r) { r = local.third (x) }
        >
    }
    <domain: "local", opset_import: ["" : 21]>
    third (x) => (y) { d = Constant <value_float = 3.0> ()  y = Div (x, d) }"""
    result = fires(NAME, parse(text, {"d": np.array(3, np.float32)}), count=2)
    assert lines(result.graph[0].attributes["then_branch"].as_graph()) == ["l = Mul(x, d_1)"]
    assert lines(next(iter(result.functions.values()))) == ["d_2 = Constant()", "y = Mul(x, d_2)"]


@pytest.mark.parametrize("divisor", [0, -0.0, np.inf, -np.inf, np.nan, [1, 2, 0, 3]])
def test_divisor_without_a_reciprocal(divisor: npt.ArrayLike) -> None:
    assert misses(NAME, division(divisor)) == NOT_FINITE


@pytest.mark.parametrize("divisor", [1e-45, 1e-39, 1.5e38, 3e38])
def test_reciprocal_that_is_not_normal(divisor: float) -> None:
    assert misses(NAME, division(divisor)) == NOT_NORMAL


def test_half_precision() -> None:
    reason = ["the divisor is of half precision and no power of two"]
    assert misses(NAME, division(3, "float16", "float16")) == reason
    assert misses(NAME, division([1, 2, 4, 5], "float16", "float16")) == reason
    assert misses(NAME, division(32768, "float16", "float16")) == NOT_NORMAL


@pytest.mark.parametrize("dtype", ["int64", "int32", "uint8"])
def test_integers(dtype: str) -> None:
    unchanged(NAME, division(2, dtype, dtype))


def test_gelu_is_left_for_the_runtime() -> None:
    text = "agraph (float[N,4] x) => (float[N,4] y) { d = Div (x, r)  y = Erf (d) }"
    assert misses(NAME, parse(text, {"r": np.array(2**0.5, np.float32)})) == [
        "it feeds an Erf, and runtimes fuse a Gelu by its Div"
    ]


@pytest.mark.parametrize("reader", ["Floor (d)", "Ceil (d)", "Round (d)", "Cast <to = 7> (d)", "Mod <fmod = 1> (d, x)"])
def test_quotient_that_is_rounded(reader: str) -> None:
    kind = "int64" if "Cast" in reader else "float"
    text = f"agraph (float[N] x) => ({kind}[N] y) {{ d = Div (x, c)  y = {reader} }}"
    model = parse(text, {"c": np.array(41, np.float32)})
    assert misses(NAME, model) == ["the quotient is rounded to an integer"]
    fires(NAME, parse(text, {"c": np.array(32, np.float32)}), count=1)


def test_quotient_that_is_cast_to_another_float() -> None:
    text = "agraph (float[N] x) => (float16[N] y) { d = Div (x, c)  y = Cast <to = 10> (d) }"
    fires(NAME, parse(text, {"c": np.array(41, np.float32)}), count=1)


def test_divisor_not_constant_or_on_the_wrong_side() -> None:
    text = "agraph (float[N,4] x, float[4] d) => (float[N,4] y) { y = Div (x, d) }"
    unchanged(NAME, parse(text))
    unchanged(NAME, parse(text, {"d": np.full(4, 3, np.float32)}))
    text = "agraph (float[N,4] x) => (float[N,4] y) { y = Div (d, x) }"
    unchanged(NAME, parse(text, {"d": np.full(4, 3, np.float32)}))


def test_two_constants_are_left_to_folding() -> None:
    text = "agraph (float[4] x) => (float[4] y) { q = Div (n, d)  y = Add (x, q) }"
    unchanged(NAME, parse(text, {"n": np.ones(4, np.float32), "d": np.full(4, 3, np.float32)}))


def test_large_divisor() -> None:
    text = "agraph (float[70000] x) => (float[70000] y) { y = Div (x, d) }"
    assert misses(NAME, parse(text, {"d": np.full(70000, 3, np.float32)})) == ["the divisor is large"]


def test_before_opset_7() -> None:
    model = division(3, opset=6)
    assert not apply(model, NAME)[1].counts
