"""Two linear layers in a row become one, where that is less work."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from harness import feeds, lines, parse, run

from graphopt import proto
from graphopt.pruning.depth.merging import merge_linears

RANDOM = np.random.default_rng(0)


def weights(**shapes: tuple[int, ...]) -> dict[str, Any]:
    return {name: (RANDOM.standard_normal(shape) / 4).astype(np.float32) for name, shape in shapes.items()}


def merged(model: ir.Model, count: int) -> ir.Model:
    copy = proto.from_proto(proto.to_proto(model))
    assert merge_linears(copy) == count
    inputs = feeds(model)
    for one, other in zip(run(model, inputs), run(copy, inputs), strict=True):
        assert one.shape == other.shape
        np.testing.assert_allclose(other, one, rtol=2e-5, atol=2e-6)
    assert all(value.uses() for value in copy.graph.initializers.values())
    return copy


@pytest.mark.parametrize(
    ("body", "after"),
    [
        ("h = MatMul (x, a)  y = MatMul (h, b)", ["MatMul"]),
        ("h = MatMul (x, a)  i = Add (h, p)  y = MatMul (i, b)", ["MatMul", "Add"]),
        ("h = MatMul (x, a)  i = Add (p, h)  j = MatMul (i, b)  y = Add (j, q)", ["MatMul", "Add"]),
        ("h = MatMul (x, a)  y = Gemm<alpha=2.0, beta=0.5> (h, b, q)", ["Gemm"]),
        ("h = Gemm<beta=3.0> (x, a, p)  y = MatMul (h, b)", ["Gemm"]),
        ("h = Gemm<transB=1> (x, at, p)  y = Gemm (h, b)", ["Gemm"]),
        ("h = MatMul (x, a)  i = MatMul (h, m)  y = MatMul (i, b)", ["MatMul"]),
    ],
)
def test_matrices(body: str, after: list[str]) -> None:
    held = weights(a=(8, 16), at=(16, 8), m=(16, 16), b=(16, 4), p=(16,), q=(4,))
    model = parse(f"agraph (float[N,8] x) => (float[N,4] y) {{ {body} }}", held)
    for name in [name for name, value in model.graph.initializers.items() if not value.uses()]:
        del model.graph.initializers[name]
    result = merged(model, 2 if "(h, m)" in body else 1)
    assert [node.op_type for node in result.graph] == after
    assert result.graph.outputs[0].name == "y"


@pytest.mark.parametrize("steps", [(1, 1), (2, 1), (1, 2), (2, 3)])
def test_convolutions(steps: tuple[int, int]) -> None:
    model = parse(
        f"""agraph (float[2,3,17,17] x) => (float[2,4,H,W] y) {{
        h = Conv<pads=[1,1,1,1], strides=[{steps[0]},{steps[0]}]> (x, a, p)
        y = Conv<strides=[{steps[1]},{steps[1]}]> (h, b, q) }}""",
        weights(a=(16, 3, 3, 3), p=(16,), b=(4, 16, 1, 1), q=(4,)),
    )
    (node,) = merged(model, 1).graph
    assert list(node.attributes.get_ints("strides", [])) == [steps[0] * steps[1]] * 2


@pytest.mark.parametrize(
    "body",
    [
        "h = MatMul (x, down)  y = MatMul (h, up)",  # a bottleneck does less
        "h = MatMul (x, a)  y = MatMul (h, b)  z = Relu (h)",  # read elsewhere
        "h = MatMul (x, a)  t = Tanh (h)  y = MatMul (t, b)",
        "h = MatMul (x, a)  k = MatMul (x, a)  s = Add (h, k)  y = MatMul (s, b)",  # a shared weight
        "h = MatMul (x, a)  y = MatMul (h, w)",  # a weight that is an input
    ],
)
def test_what_stays(body: str) -> None:
    second = ", float[N,16] z" if "z =" in body else ""
    model = parse(
        f"agraph (float[N,8] x, float[16,8] w) => (float[N,8] y{second}) {{ {body} }}",
        weights(a=(8, 16), b=(16, 8), down=(8, 2), up=(2, 8)),
    )
    before = lines(model)
    assert merge_linears(model) == 0
    assert lines(model) == before


def test_convolutions_that_stay() -> None:
    for attributes, shape in (("kernel_shape=[3,3]", (4, 16, 3, 3)), ("pads=[1,1,1,1]", (4, 16, 1, 1))):
        text = f"""agraph (float[2,3,9,9] x) => (float[2,4,H,W] y) {{
            h = Conv (x, a)  y = Conv<{attributes}> (h, b) }}"""
        assert merge_linears(parse(text, weights(a=(16, 3, 1, 1), b=shape))) == 0
    grouped = "agraph (float[2,4,9,9] x) => (float[2,4,9,9] y) { h = Conv<group=4> (x, a)  y = Conv (h, b) }"
    assert merge_linears(parse(grouped, weights(a=(4, 1, 1, 1), b=(4, 4, 1, 1)))) == 0
