"""Rows of the table of operators, one small model each: what goes is what is left out of sums exactly, or stays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import harness
import numpy as np
import onnx
import onnx_ir as ir
import pytest
from zoo.checks import choose, distance, feeds, run

from graphopt import channels, proto

RANDOM = np.random.default_rng(0)


def floats(*shape: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return RANDOM.standard_normal(shape).astype(np.float32)


def ints(*numbers: int) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    return np.array(numbers, np.int64)


def sizes(model: ir.Model, seeds: int = 3) -> list[int]:
    """The sizes of the groups; asserts that removal, also of all that may go, equals masking and is a whole model."""
    data = proto.to_proto(model)
    before = data.SerializeToString()
    graph = channels.analyze(data)
    for seed in range(seeds):
        units = choose(graph, seed, 1.0 if seed == 0 else None)
        pruned, masked = channels.remove(graph, units, check=False), channels.mask(graph, units)
        onnx.checker.check_model(pruned, full_check=True)
        expected = run(masked, feeds(data))
        assert all(np.isfinite(array).all() for array in expected)
        assert distance(run(pruned, feeds(data)), expected) <= 2e-5
    assert data.SerializeToString() == before
    return sorted(len(group.units) for group in graph.groups)


def summed(body: str, shape: tuple[int, ...], weights: Mapping[str, Any], opset: int = 21) -> ir.Model:
    """All of what ``body`` makes of ``h``, every axis of which is free, added up: masked lanes must be zero for it."""
    text = f"""<ir_version: 10, opset_import: ["" : {opset}, "com.microsoft" : 1]>
        agraph (float[1] x) => (float y) {{ h = Mul(x, w)  {body}  f = Cast<to=1>(z)  y = ReduceSum<keepdims=0>(f) }}"""
    return harness.parse(text, {"w": floats(*shape), **weights})


VECTORS = {"v": np.abs(floats(4)) + np.float32(0.5)}
QUEUE = {"k": floats(1, 8, 3), "r": floats(1, 8, 2), "lengths": np.array([5, 3], np.int32)}
TWOS = "ConstantOfShape<value = int64[1] {2}>"
DIVISOR = {"c": np.abs(floats(4, 3)) + np.float32(1)}
TILED = {"c": floats(1), "a": ints(5), "d": floats(5)}
IMAGES = {"c": floats(2), "d": floats(2, 3, 3, 3), "e": floats(2, 3, 5, 6)}
REGIONS = {"c": floats(1, 4, 6, 6), "i": ints(0, 0, 0), "e": floats(3, 4, 1, 1)}
PICK = {"a": ints(1), "b": ints(1), "c": ints(0)}


@pytest.mark.parametrize(
    ("opset", "body", "shape", "weights", "groups"),
    [
        # elementwise
        (21, "q = Div(h, x)  z = Acosh(q)", (4, 3), {"w": np.abs(floats(4, 3)) + np.float32(1)}, []),
        (21, "z = Pow(h, p)", (4, 3), {"p": np.array(2, np.float32)}, [3, 4]),
        (21, "q = Pow(h, p)  z = Mul(q, c)", (4, 3), {"p": np.array(-2, np.float32), "c": floats(4, 3)}, []),
        (21, "q = Pow(c, h)  z = Mul(q, c)", (4, 3), DIVISOR, []),
        (21, "q = Relu(h)  z = CastLike(q, h)", (4, 3), {}, [3, 4]),
        # normalizations
        (21, "z = BatchNormalization(h, v, v, v, v)", (2, 4, 3), VECTORS, [4]),
        (7, "z = BatchNormalization(h, v, v, v, v)", (2, 4, 3), VECTORS, [4]),
        (21, "q, z = LayerNormalization(h, v)", (3, 4), VECTORS, []),
        (21, "z = ReduceMean<noop_with_empty_axes=1>(h)", (4, 3), {}, [3, 4]),
        (21, "z = ReduceMean(h, a)", (4, 3), {"a": ints(-1)}, [3, 4]),
        (21, "i = Cast<to=6>(h)  z = ReduceMean(i, a)", (4, 3), {"a": ints(-1)}, [4]),
        (21, "z = ReduceLogSumExp(h, a)", (4, 3), {"a": ints(1)}, []),
        (21, "q = Abs(h)  e = ReduceLogSum(q, a)  z = Mul(e, c)", (4, 3), {"a": ints(1), "c": floats(4, 1)}, []),
        (21, "z = ArgMax<axis=1, select_last_index=1>(h)", (4, 3), {}, []),
        (21, "q, z = MaxPool<kernel_shape=[2, 2]>(h)", (1, 4, 3, 3), {}, []),
        (21, "z = GroupNormalization<num_groups=2>(h, s, s)", (2, 8, 3), {"s": floats(8)}, [4]),
        # pads, cuts, joins
        (21, "z = Pad(h, p, one)", (4, 3), {"p": ints(0, 1, 0, 1), "one": np.array(1, np.float32)}, []),
        (21, 'z = Pad<mode="edge">(h, p)', (4, 3), {"p": ints(0, 1, 0, 1)}, [4]),
        (10, 'z = Pad<pads=[0, 1, 0, 1], value=1.0>(h)', (4, 3), {}, []),
        (21, "q = Slice(h, a, b, c)  z = Concat<axis=0>(q, h)", (4, 3), PICK, [3, 4]),
        (9, "q = Slice<axes=[0], starts=[2], ends=[2]>(h)  z = Concat<axis=0>(q, h)", (4, 3), {}, [3, 4]),
        (21, "q = Gather(h, i)  z = Mul(q, c)", (4, 3), {"i": np.array(-1), "c": floats(3)}, [3, 3]),
        (21, "z = Squeeze(h)", (4, 1, 3), {}, [3, 4]),
        (11, "z = Squeeze(h)", (4, 1, 3), {}, [3, 4]),
        (21, "z = Expand(h, one)", (4, 3), {"one": ints(1)}, [3, 4]),
        (21, "q = Tile(c, a)  z = Mul(q, h)", (6,), {"c": floats(3), "a": ints(2)}, [3]),
        (21, "t = Tile(c, a)  q = ReduceSum(h)  z = Mul(t, q)", (6,), {"c": floats(1), "a": ints(5)}, [6]),
        (21, "t = Tile(c, a)  q = ReduceSum(h)  e = Mul(t, q)  z = Mul(e, d)", (6,), TILED, [5, 6]),
        # looked up
        (16, "z = GridSample(c, h)", (2, 5, 6, 2), {"c": floats(2, 3, 3, 3)}, [3]),
        (16, "q = Mul(h, c)  g = GridSample(d, q)  z = Mul(g, e)", (2, 5, 6, 2), IMAGES, [2, 3]),
        (16, "z = RoiAlign(h, r, i)", (1, 4, 6, 6), {"r": np.abs(floats(3, 4)), "i": ints(0, 0, 0)}, [4]),
        (16, "g = RoiAlign(c, h, i)  z = Mul(g, e)", (3, 4), REGIONS, [3, 4]),
        # recurrence: leaving out a step is not a step of zeros
        (14, "z = LSTM<hidden_size=2>(h, k, r)", (5, 2, 3), QUEUE, [2, 3]),
        (14, "q, z = LSTM<hidden_size=2>(h, k, r, , lengths)", (5, 2, 3), QUEUE, [2, 3]),
        # integers are weights, too
        (21, "q = ReduceSum(h)  k = Cast<to=1>(i)  z = Mul(q, k)", (4,), {"i": ints(3, 2, 1)}, [3, 4]),
        (21, "q = ReduceSum(h)  k = Cast<to=1>(i)  z = Mul(q, k)", (4,), {"i": np.array([True, True, False])}, [3, 4]),
        (21, f"n = {TWOS}(i)  k = Cast<to=1>(n)  q = ReduceSum(h)  z = Mul(q, k)", (4,), {"i": ints(3)}, [3, 4]),
        # a constant that is a divisor here and a weight there
        (21, "q = Div(h, c)  e = Mul(x, c)  z = Add(q, e)", (4, 3), DIVISOR, [3, 4]),
        (21, 'z = Einsum<equation="ab,bc->ac">(h, c)', (4, 3), {"c": floats(1, 5)}, [4, 5]),
        # sizes
        (21, "s = Size(h)  c = Cast<to=1>(s)  z = Div(h, c)", (4, 3), {}, [3, 4]),
    ],
)  # fmt: skip
def test_what_sums_take(
    opset: int, body: str, shape: tuple[int, ...], weights: dict[str, Any], groups: list[int]
) -> None:
    assert sizes(summed(body, shape, weights, opset)) == groups


DOT = {"w": floats(6, 8), "o": floats(8, 5), "s": floats(8)}


@pytest.mark.parametrize(
    ("body", "weights", "groups"),
    [
        # a branch gives a constant of its own
        (
            """h = MatMul(x, w)
            b = If(c) <then_branch = yes () => (float[8] t) { t = Constant<value = float[8] {1,2,3,4,5,6,7,8}>() },
                       else_branch = no () => (float[8] e) { e = Identity(s) }>
            z = Mul(h, b)  y = MatMul(z, o)""",
            {},
            [],
        ),
        # a body gives what has no other use
        (
            """v, q = Scan<num_scan_inputs=1, body = b (float[8] a, float[6] r) => (float[8] e, float[8] t) {
                e = Relu(a)  u = MatMul(r, w)  t = MatMul(u, k) }>(s, x)
            y = MatMul(q, o)""",
            {"k": floats(8, 8)},
            [8],
        ),
        # the size is part of an output of a branch
        (
            """h = MatMul(x, w)
            b = If(c) <then_branch = yes () => (int64[2] t) { t = Shape(h) },
                       else_branch = no () => (int64[2] e) { r = Relu(h)  e = Shape(r) }>
            f = Cast<to=1>(b)  g = ReduceSum<keepdims=0>(f)  z = Mul(h, g)  y = MatMul(z, o)""",
            {},
            [],
        ),
        # what is zero in an integer constant that is moved before it becomes a number
        (
            "t = Transpose(i)  k = DequantizeLinear(t, f, p)  h = MatMul(x, k)  r = Relu(h)  y = MatMul(r, o)",
            {"i": RANDOM.integers(0, 255, (8, 6)).astype(np.uint8), "f": np.array(0.1, np.float32)}
            | {"p": np.array(120, np.uint8)},
            [8],
        ),
        (
            """n = Identity(p)  k = DequantizeLinear(i, f, n)  h = MatMul(x, k)  r = Relu(h)  y = MatMul(r, o)""",
            {"i": RANDOM.integers(0, 255, (6, 8)).astype(np.uint8), "f": np.array(0.1, np.float32)}
            | {"p": np.array(120, np.uint8)},
            [],
        ),
        # the number of copies is computed
        (
            """e = Shape<end=1>(x)  n = Concat<axis=0>(e, eight)  k = Reshape(one, unit)  h = Tile(k, n)
            y = MatMul(h, o)""",
            {"eight": ints(8), "one": floats(1), "unit": ints(1, 1)},
            [],
        ),
    ],
)
def test_what_products_take(body: str, weights: dict[str, Any], groups: list[int]) -> None:
    text = f"agraph (float[N,6] x, bool c) => (float[N,5] y) {{ {body} }}"
    assert sizes(harness.parse(text, DOT | weights)) == groups


@pytest.mark.parametrize(("heads", "groups"), [(4, [4, 6]), (2, [3, 6]), (1, [3, 6])])
def test_a_query_head_that_is_masked_still_gives_values(heads: int, groups: list[int]) -> None:
    """Four heads share so many of values: they can go out of a sum only where each has its own, else lanes of 3 do."""
    width = {name: floats(6, 3 * count) for name, count in (("q", 4), ("k", heads), ("v", heads))}
    body = f"""a = MatMul(h, q)  b = MatMul(h, k)  c = MatMul(h, v)
        z = Attention<q_num_heads=4, kv_num_heads={heads}>(a, b, c)"""
    assert sizes(summed(body, (1, 5, 6), width, 23)) == groups


def test_a_cache_that_is_given_out_stays() -> None:
    width = {name: floats(6, 8) for name in "qkv"}
    body = """a = MatMul(h, q)  b = MatMul(h, k)  c = MatMul(h, v)
        e, d = Attention<q_num_heads=4, kv_num_heads=4>(a, b, c)  g = ReduceSum<keepdims=0>(d)  z = Add(e, g)"""
    assert sizes(summed(body, (1, 5, 6), width, 23)) == [6]


def test_sizes_that_are_given_out_stay() -> None:
    text = "agraph (float[N,6] x) => (float[N,5] y, int64[2] z) { h = MatMul(x, w)  y = MatMul(h, o)  z = Shape(h) }"
    assert sizes(harness.parse(text, DOT)) == []


def test_integer_products() -> None:
    text = "agraph (int32[N,6] x) => (int32[N,5] y) { h = MatMul(x, w)  y = MatMul(h, o) }"
    weights = {"w": RANDOM.integers(-9, 9, (6, 8), np.int32), "o": RANDOM.integers(-9, 9, (8, 5), np.int32)}
    assert sizes(harness.parse(text, weights)) == [8]


def test_the_default_epsilon_is_corrected() -> None:
    """A thousandth of what a lane holds shows which default was taken."""
    weights = {"small": np.array(1e-3, np.float32), "g": floats(8), "o": floats(2, 5, 8)}
    body = "q = Mul(h, small)  n = com.microsoft.SkipSimplifiedLayerNormalization(q, q, g)  z = Mul(n, o)"
    assert 8 in sizes(summed(body, (2, 5, 8), weights))
