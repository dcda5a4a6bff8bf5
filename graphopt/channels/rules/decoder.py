"""What decoders use: rotary positions, and attention whose keys and values come from a cache."""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphopt.channels.axes import Axis
from graphopt.channels.op import Op, Unlinkable
from graphopt.channels.rules.attention import headed, share
from graphopt.channels.rules.rule import Rule, Table

if TYPE_CHECKING:
    from graphopt.channels.fitting import Fit

__all__ = ["TABLE"]


def _rotary(op: Op) -> None:
    """Lanes of a head are turned in pairs, so they stay; heads are turned alike.

    The first input is (N, heads, S, lanes) or (N, S, heads * lanes). ONNX has the caches next, com.microsoft positions.
    """
    x, zeros = op.axes(0), op.zeros(0)
    lanes = x[3] if len(x) == 4 else headed(op, x[2], op.new(_rotary_heads(op)))
    op.freeze(lanes, "RotaryEmbedding turns its lanes in pairs")
    for index in range(1, len(op.node.inputs)):
        if op.has(index):
            for axis in op.axes(index):
                op.freeze(axis, "RotaryEmbedding reads it as a whole")
            op.keep(index)
    op.give(x, zeros)


def _rotary_heads(op: Op) -> int:
    heads = op.integer("num_heads", 0)
    hidden = op.axes(0)[2].size
    if heads == 0 and op.node.domain and isinstance(hidden, int):
        half = op.axes(2)[-1].size  # com.microsoft takes it from the cache, which has half the lanes
        heads = hidden // (2 * half) if isinstance(half, int) and half else 0
    if not heads or not isinstance(hidden, int) or hidden % heads:
        raise Unlinkable("RotaryEmbedding with an unknown number of heads has no rule")
    return heads


def _fit_rotary(fit: Fit) -> None:
    heads = fit.op.integer("num_heads", 0)
    if heads and len(fit.op.axes(0)) == 3:
        fit.attribute("num_heads", fit.outer(fit.op.axes(0)[2], heads))


def _group_query(op: Op) -> None:
    """com.microsoft: query, key, value, past key, past value, lengths, total length, caches of a rotation, ..."""
    if not (op.has(1) and op.has(2)):
        raise Unlinkable("GroupQueryAttention on packed operands has no rule")
    q, k, v = op.axes(0), op.axes(1), op.axes(2)
    heads, kv_heads = op.new(op.integer("num_heads", 1)), op.new(op.integer("kv_num_heads", 1))
    lanes = headed(op, q[2], heads)
    op.unite(lanes, headed(op, k[2], kv_heads))
    v_lanes = headed(op, v[2], kv_heads)
    share(op, heads, kv_heads)
    for one in (lanes, v_lanes):  # kernels want multiples of 8 or 16, and rotations pairs
        op.freeze(one, "GroupQueryAttention takes few sizes of a head")
    for index, own in ((3, lanes), (4, v_lanes)):
        if op.has(index):
            past = op.axes(index)
            op.unite(past[1], kv_heads)
            op.unite(past[3], own)
    for index in range(5, len(op.node.inputs)):
        if op.has(index):
            for axis in op.axes(index):
                op.freeze(axis, "GroupQueryAttention reads it as a whole")
            op.keep(index)
    for axis in (q[1], k[1], v[1]):
        op.freeze(axis, "GroupQueryAttention looks along it")
    _give_cached(op, q, kv_heads, lanes, v_lanes, heads)


def _give_cached(op: Op, q: tuple[Axis, ...], kv_heads: Axis, lanes: Axis, v_lanes: Axis, heads: Axis) -> None:
    assert isinstance(heads.size, int)
    assert isinstance(v_lanes.size, int)
    hidden = op.new(heads.size * v_lanes.size)
    op.align([hidden], [heads, v_lanes])
    cached = op.has(3) and not op.is_zero(4, 1)
    op.give([q[0], q[1], hidden], [False, False, op.is_zero(2, 2) and not cached])
    for output, own in ((1, lanes), (2, v_lanes)):
        if output < len(op.node.outputs) and (
            op.node.outputs[output].uses() or op.node.outputs[output].is_graph_output()
        ):
            steps = op.new(op.shape(output)[2], "GroupQueryAttention looks along it")
            op.give([q[0], kv_heads, steps, own], False, output)


def _fit_group_query(fit: Fit) -> None:
    op = fit.op
    for index, name in ((0, "num_heads"), (1, "kv_num_heads")):
        fit.attribute(name, fit.outer(op.axes(index)[2], op.integer(name, 1)))


TABLE: Table = {
    "RotaryEmbedding": Rule(_rotary, _fit_rotary),
    "com.microsoft::GroupQueryAttention": Rule(_group_query, _fit_group_query),
    "com.microsoft::RotaryEmbedding": Rule(_rotary, _fit_rotary),
}
