"""merge-constant-operands."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from harness import fires, lines, misses, parse, unchanged

NAME = "merge-constant-operands"
READ = ["the first result is read elsewhere"]
LARGE = ["a factor is so large or small that one product could overflow and the other not"]
CANCEL = ["the summands cancel, and what was rounded away in between would come back"]


def model(op: str, p: Any, q: Any, *, body: str = "m = {0} (x, p) y = {0} (m, q)", kind: str = "float") -> ir.Model:
    dtype = {"float": np.float32, "double": np.float64, "float16": np.float16, "int64": np.int64}[kind]
    text = f"agraph ({kind}[N,3,4] x) => ({kind}[N,3,4] y) {{ {body.format(op)} }}"
    return parse(text, {"p": np.asarray(p, dtype), "q": np.asarray(q, dtype)})


def constant(result: ir.Model) -> Any:
    (node,) = result.graph
    assert node.inputs[1] is not None
    assert node.inputs[1].const_value is not None
    return node.inputs[1].const_value.numpy()


ORDERS = ["m = {0} (x, p) y = {0} (m, q)", "m = {0} (p, x) y = {0} (m, q)", "m = {0} (p, x) y = {0} (q, m)"]


@pytest.mark.parametrize("body", ORDERS)
@pytest.mark.parametrize("kind", ["float", "double"])
def test_numbers(body: str, kind: str) -> None:
    assert constant(fires(NAME, model("Mul", 3, 0.7, body=body, kind=kind), count=1)) == pytest.approx(2.1)
    assert constant(fires(NAME, model("Add", 3, 0.5, body=body, kind=kind), count=1)) == 3.5


@pytest.mark.parametrize(("p", "q"), [((4,), (1, 4)), ((), (3, 1)), ((3, 4), (4,)), ((1, 1, 1), ())])
def test_tensors(p: tuple[int, ...], q: tuple[int, ...]) -> None:
    random = np.random.default_rng(0)
    for op in ("Mul", "Add"):
        result = fires(NAME, model(op, random.uniform(0.5, 2, p), random.uniform(0.5, 2, q)), count=1)
        assert constant(result).shape == np.broadcast_shapes(p, q)


def test_three_in_a_row() -> None:
    body = "a = Mul (x, p) b = Mul (q, a) y = Mul (b, p)"
    assert constant(fires(NAME, model("", 2, 3, body=body), count=2)) == 12


def test_a_larger_constant() -> None:
    assert misses(NAME, model("Mul", np.ones((3, 1)), np.ones(4))) == ["the constant of both would be larger"]


@pytest.mark.parametrize(
    ("p", "q"), [(1e30, 1e-30), (2, 1e-4), (2000, 1), (np.inf, 1), (np.nan, 1), ([1, 1, 1, 1e5], 1)]
)
def test_factors_far_from_1(p: Any, q: Any) -> None:
    assert misses(NAME, model("Mul", p, q)) == LARGE
    assert misses(NAME, model("Mul", q, p)) == LARGE


def test_a_factor_of_0() -> None:
    assert constant(fires(NAME, model("Mul", 0, -2))) == 0


@pytest.mark.parametrize(("p", "q"), [(1e8, -1e8), (3, -2), (np.nan, 1)])
def test_summands_that_cancel(p: float, q: float) -> None:
    assert misses(NAME, model("Add", p, q)) == CANCEL


@pytest.mark.parametrize(("p", "q"), [(np.inf, 1), (3e38, 3e38)])
def test_sums_that_are_infinite(p: float, q: float) -> None:
    assert misses(NAME, model("Add", p, q)) == ["the constant of both is not finite"]


@pytest.mark.parametrize("kind", ["float16", "int64"])
def test_other_types(kind: str) -> None:
    unchanged(NAME, model("Mul", 3, 2, kind=kind))


def test_two_different_operators() -> None:
    unchanged(NAME, model("", 3, 2, body="m = Mul (x, p) y = Add (m, q)"))


def test_read_elsewhere() -> None:
    text = "agraph (float[N] x) => (float[N] y, float[N] z) { m = Mul (x, p) y = Mul (m, p) z = Neg (m) }"
    assert misses(NAME, parse(text, {"p": np.array(2, np.float32)})) == READ


def test_a_number_of_the_caller() -> None:
    text = "agraph (float[N] x, float q) => (float[N] y) { m = Mul (x, p) y = Mul (m, q) }"
    unchanged(NAME, parse(text, {"p": np.array(2, np.float32)}))


def test_shared_constants_stay_for_others() -> None:
    text = "agraph (float[N] x) => (float[N] y, float[N] z) { m = Mul (x, p) y = Mul (m, p) z = Sub (x, p) }"
    result = fires(NAME, parse(text, {"p": np.array(2, np.float32)}))
    assert lines(result)[1] == "z = Sub(x, p)"
