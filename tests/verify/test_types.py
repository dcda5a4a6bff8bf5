"""Models over types that NumPy does not have are verified too, and sequences and optionals."""

from __future__ import annotations

import pytest
from harness import parse

from graphopt.verify import validate


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "double", "float8e4m3fn", "float8e5m2", "string"])
def test_tensors(dtype: str) -> None:
    model = parse(f"agraph ({dtype}[N,4] x) => ({dtype}[N,4] y) {{ y = Identity(x) }}")
    verdict = validate(model, model)
    assert verdict.identical, verdict
    assert verdict.outputs[0].shape == (1, 4)


@pytest.mark.parametrize(("dtype", "code"), [("int4", 22), ("uint4", 21)])
def test_four_bits(dtype: str, code: int) -> None:
    text = "agraph ({0}[5,7] x) => ({0}[5,7] y) {{ f = Cast<to = 1>(x) g = {1}(f) y = Cast<to = {2}>(g) }}"
    model = parse(text.format(dtype, "Floor", code))
    verdict = validate(model, model)
    assert verdict.identical, verdict
    assert (verdict.outputs[0].dtype, verdict.outputs[0].shape) == (dtype, (5, 7))
    assert validate(model, parse(text.format(dtype, "Sqrt", code))).status == "different"


def test_sequences_and_optionals() -> None:
    model = parse(
        """agraph (seq(float[N]) s, optional(float[3]) o) => (seq(float[N]) t, bool has) {
            t = Identity(s) has = OptionalHasElement(o) }"""
    )
    verdict = validate(model, model)
    assert verdict.identical, verdict
    assert verdict.outputs[0].dtype == "sequence(float32)"
