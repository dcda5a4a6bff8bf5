"""convert-pow."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from harness import apply, fires, lines, misses, parse, run, unchanged

NAME = "convert-pow"
AFTER = {2: "y = Mul(x, x)", 0.5: "y = Sqrt(x)", -1: "y = Reciprocal(x)"}


def power(exponent: npt.ArrayLike, kind: str = "float", dtype: str = "float32", *, opset: int = 21) -> Any:
    text = f"""<ir_version: 8, opset_import: ["" : {opset}]>
    agraph ({kind}[N,4] x) => ({kind}[N,4] y) {{ y = Pow (x, e) }}"""
    return parse(text, {"e": np.asarray(exponent, dtype)})


@pytest.mark.parametrize("shape", [(), (1,), (1, 1)])
@pytest.mark.parametrize("exponent", [2, 0.5, -1])
def test_cheaper_operator(exponent: float, shape: tuple[int, ...]) -> None:
    fires(NAME, power(np.full(shape, exponent)), [AFTER[exponent]])


@pytest.mark.parametrize("opset", [7, 12, 13, 15, 21])
def test_opsets(opset: int) -> None:
    fires(NAME, power(2, opset=opset), [AFTER[2]])


@pytest.mark.parametrize(("kind", "dtype"), [("double", "float64"), ("float", "int64"), ("float", "int32")])
@pytest.mark.parametrize("exponent", [2, -1])
def test_types_of_base_and_exponent(exponent: int, kind: str, dtype: str) -> None:
    fires(NAME, power(exponent, kind, dtype), [AFTER[exponent]])


@pytest.mark.parametrize("dtype", ["int64", "float32"])
def test_square_of_integers(dtype: str) -> None:
    fires(NAME, power(2, "int64", dtype), [AFTER[2]])


def test_first_power_goes_away() -> None:
    text = "agraph (float[N,4] x) => (float[N,4] y) { r = Relu (x)  p = Pow (r, e)  y = Exp (p) }"
    fires(NAME, parse(text, {"e": np.ones(1, np.float32)}), ["r = Relu(x)", "y = Exp(r)"])


def test_first_power_of_a_graph_input_as_graph_output() -> None:
    assert misses(NAME, power(1)) == ["it computes a graph output that cannot be renamed away"]


def test_signs_and_infinities() -> None:
    """What the docstring promises: NaN for negative bases either way, and the two exceptions."""
    text = "agraph (float[6] x) => (float[6] y) { y = Pow (x, e) }"
    model = parse(text, {"e": np.array(0.5, np.float32)})
    x = np.array([-1, -0.0, 0.0, np.inf, -np.inf, np.nan], np.float32)
    before, after = run(model, {"x": x})[0], run(apply(model, NAME)[0], {"x": x})[0]
    np.testing.assert_array_equal(before, np.array([np.nan, 0, 0, np.inf, np.inf, np.nan], np.float32))
    np.testing.assert_array_equal(after, np.array([np.nan, 0, 0, np.inf, np.nan, np.nan], np.float32))


def test_inside_a_branch_and_a_function() -> None:
    text = """<ir_version: 10, opset_import: ["" : 21, "local" : 1]>
    agraph (float[N,4] x, bool b) => (float[N,4] y) {
        y = If (b) <
            then_branch = left () => (float[N,4] l) { l = Pow (x, e) },
            else_branch = right () => (float[N,4] r) { r = local.square (x) }
        >
    }
    <domain: "local", opset_import: ["" : 21]>
    square (x) => (y) { e = Constant <value_int = 2> ()  y = Pow (x, e) }"""
    result = fires(NAME, parse(text, {"e": np.array(2, np.float32)}), count=2)
    assert lines(result.graph[0].attributes["then_branch"].as_graph()) == ["l = Mul(x, x)"]
    assert lines(next(iter(result.functions.values()))) == ["y = Mul(x, x)"]


@pytest.mark.parametrize("exponent", [3, 0, -2, 0.25, 2.0000002, np.nan])
def test_other_exponents(exponent: float) -> None:
    unchanged(NAME, power(exponent))


@pytest.mark.parametrize("exponent", [0.5, -1])
def test_roots_of_integers(exponent: float) -> None:
    assert misses(NAME, power(exponent, "int64")) == ["the base is not known to be of a floating-point type"]


def test_exponent_that_adds_an_axis() -> None:
    text = "agraph (float[4] x) => (float[1,4] y) { y = Pow (x, e) }"
    weights = {"e": np.full((1, 1), 2, np.float32)}
    assert misses(NAME, parse(text, weights)) == ["the exponent may give the result more axes"]


def test_base_of_unknown_rank() -> None:
    text = "agraph (float[A,B] x) => (float[C,D] y) { r = Squeeze (x)  y = Pow (r, e) }"
    assert misses(NAME, parse(text, {"e": np.full(1, 2, np.float32)})) == ["the exponent may give the result more axes"]
    fires(NAME, parse(text, {"e": np.array(2, np.float32)}), count=1)


def test_exponent_that_varies_or_may_be_overridden() -> None:
    unchanged(NAME, power([2, 2, 2, 2]))
    text = "agraph (float[N,4] x, float e) => (float[N,4] y) { y = Pow (x, e) }"
    unchanged(NAME, parse(text))
    unchanged(NAME, parse(text, {"e": np.array(2, np.float32)}))


def test_square_in_a_normalization() -> None:
    text = """agraph (float[N,4] x) => (float[N,1] y) {
        p = Pow (x, e)
        y = ReduceMean (p, axes)
    }"""
    weights: dict[str, np.ndarray] = {"e": np.array(2, np.float32), "axes": np.array([-1], np.int64)}
    assert misses(NAME, parse(text, weights)) == ["it feeds a mean, and runtimes fuse normalizations by their Pow"]


def test_constant_base_is_left_to_folding() -> None:
    text = "agraph (float[4] x) => (float[4] y) { p = Pow (b, e)  y = Add (x, p) }"
    weights: dict[str, np.ndarray] = {"b": np.ones(4, np.float32), "e": np.array(2, np.float32)}
    unchanged(NAME, parse(text, weights))


def test_before_opset_7() -> None:
    assert misses(NAME, power(2, opset=6)) == ["before opset 7, arithmetic broadcasts by attributes"]
