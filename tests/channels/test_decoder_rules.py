"""Rotary positions and attention with caches."""

from __future__ import annotations

import harness
import numpy as np
import onnx_ir as ir
import pytest
from zoo.checks import choose, distance, run

from graphopt import channels, proto

RANDOM = np.random.default_rng(1)
HEADER = '<ir_version: 10, opset_import: ["" : 23, "com.microsoft" : 1]>\n'


def floats(*shape: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return (0.5 * RANDOM.standard_normal(shape)).astype(np.float32)


def check(model: ir.Model, inputs: dict[str, np.ndarray], granularity: str = "heads") -> channels.ChannelGraph:
    graph = channels.analyze(model, granularity=granularity)
    for seed in range(3):
        units = choose(graph, seed, 0.5)
        pruned, masked = channels.remove(graph, units, check=False), channels.mask(graph, units)
        assert distance(run(proto.to_proto(pruned), inputs), run(proto.to_proto(masked), inputs)) <= 1e-5
    return graph


@pytest.mark.parametrize("rotated", [0, 1])
@pytest.mark.parametrize("kv", [4, 2])
def test_group_query_attention(kv: int, rotated: int) -> None:
    caches = ", cos, sin" if rotated else ""
    model = harness.parse(
        HEADER
        + f"""agraph (float[N,S,6] x, int32[N] lengths, int32[1] total) => (float[N,S,5] y) {{
            q = MatMul(x, wq)  k = MatMul(x, wk)  v = MatMul(x, wv)
            a, pk, pv = com.microsoft.GroupQueryAttention<num_heads=4, kv_num_heads={kv}, do_rotary={rotated}>
                (q, k, v, , , lengths, total{caches})
            y = MatMul(a, wo) }}""",
        {"wq": floats(6, 64), "wk": floats(6, 16 * kv), "wv": floats(6, 16 * kv), "wo": floats(64, 5)}
        | ({"cos": floats(16, 8), "sin": floats(16, 8)} if rotated else {}),
    )
    inputs = {"x": floats(2, 3, 6), "lengths": np.array([2, 2], np.int32), "total": np.array([3], np.int32)}
    graph = check(model, inputs)
    assert [(len(group.units), group.heads) for group in graph.groups] == [(kv, True)]
    assert len(check(model, inputs, "head-dim").units) == kv, "lanes stay, so heads are what can go"


@pytest.mark.parametrize("domain", ["", "com.microsoft"])
@pytest.mark.parametrize("rank", [3, 4])
def test_rotary_embedding(domain: str, rank: int) -> None:
    operands = "h, cos, sin, at" if not domain else "h, at, cos, sin"
    name = f"{domain}.RotaryEmbedding" if domain else "RotaryEmbedding"
    apart = "p = Reshape(q, four)  h = Transpose<perm=[0,2,1,3]>(p)" if rank == 4 else "h = Identity(q)"
    joined = "t = Transpose<perm=[0,2,1,3]>(r)  j = Reshape(t, three)" if rank == 4 else "j = Identity(r)"
    model = harness.parse(
        HEADER
        + f"""agraph (float[N,3,6] x, int64[N,3] at) => (float[N,3,5] y) {{
            q = MatMul(x, wq)  {apart}  r = {name}<num_heads=4>({operands})  {joined}  y = MatMul(j, wo) }}""",
        {
            "wq": floats(6, 32),
            "wo": floats(32, 5),
            "cos": floats(16, 4),
            "sin": floats(16, 4),
            "four": np.array([0, 0, 4, 8]),
            "three": np.array([0, 0, 32]),
        },
    )
    graph = check(model, {"x": floats(2, 3, 6), "at": np.array([[0, 1, 2], [3, 4, 5]])})
    assert [len(group.units) for group in graph.groups] == [4]
    assert "RotaryEmbedding turns its lanes in pairs" in {one.reason for one in graph.frozen}
