"""Attention as one operator: heads are a factor of the hidden axis, counted by an attribute."""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphopt.analysis.dims import Dim
from graphopt.channels.axes import Axis, leaves
from graphopt.channels.op import Op, Unlinkable, link_vector
from graphopt.channels.rules.rule import Rule, Table

if TYPE_CHECKING:
    from graphopt.channels.fitting import Fit

__all__ = ["TABLE", "headed", "share"]


def headed(op: Op, hidden: Axis, heads: Axis) -> Axis:
    """Splits a hidden axis into heads and lanes of a head.

    Returns:
        The lanes of a head.
    """
    if not (isinstance(hidden.size, int) and isinstance(heads.size, int)) or hidden.size % heads.size:
        raise Unlinkable(f"the heads of {op.node.op_type} do not fit its width")
    lanes = op.new(hidden.size // heads.size)
    op.align([hidden], [heads, lanes])
    for leaf in (heads, *leaves(heads)):
        leaf.role.head = True
    return lanes


def _dot(op: Op, lanes: Axis, zero: bool) -> None:
    """Queries and keys are multiplied and added up along the lanes of a head."""
    if not zero:
        op.freeze(lanes, f"{op.node.op_type} adds up lanes that are not zero when masked")


def _attention(op: Op) -> None:
    """ONNX's own: Q, K, V, mask, past key, past value; each of rank 3 (hidden axis last) or 4 (heads second)."""
    q, k, v = op.axes(0), op.axes(1), op.axes(2)
    if op.has(4) or op.has(5) or len(op.node.inputs) > 6:
        raise Unlinkable("Attention with a cache has no rule")
    if len(q) == 3:
        kv = op.integer("kv_num_heads", 0)
        heads, kv_heads = op.new(op.integer("q_num_heads", 0)), op.new(kv)
        lanes = headed(op, q[2], heads)
        op.unite(lanes, headed(op, k[2], kv_heads))
        v_lanes = headed(op, v[2], kv_heads)
    else:
        heads, kv_heads, lanes, v_lanes = q[1], k[1], q[3], v[3]
        op.unite(k[1], v[1])
        op.unite(k[3], q[3])
        heads.role.head = kv_heads.role.head = True
    share(op, heads, kv_heads)
    _dot(op, lanes, op.is_zero(0, len(q) - 1) or op.is_zero(1, len(k) - 1))
    op.unite(k[-2], v[-2])
    for other in (k[0], v[0]):
        op.unite(q[0], other)
    for axis in (q[-2], k[-2]):
        op.freeze(axis, "Attention looks along it")
    if op.has(3):
        _mask(op, 3, heads)
    own = heads.size == kv_heads.size  # else masking a head leaves what others of its values look at
    if len(q) == 4:
        op.give([q[0], heads, q[2], v_lanes], [False, own and op.is_zero(2, 1), False, op.is_zero(2, 3)])
        return
    assert isinstance(heads.size, int)
    hidden = op.new(heads.size * v_lanes.size)
    op.align([hidden], [heads, v_lanes])
    op.give([q[0], q[1], hidden], [False, False, own and op.is_zero(2, 2)])


def share(op: Op, heads: Axis, kv_heads: Axis) -> None:
    """Consecutive query heads share one head of keys and values."""
    if heads.size == kv_heads.size:
        op.unite(heads, kv_heads)
        return
    if not (isinstance(heads.size, int) and isinstance(kv_heads.size, int)) or heads.size % kv_heads.size:
        raise Unlinkable(f"the heads of {op.node.op_type} do not fit")
    op.align([heads], [kv_heads, op.new(heads.size // kv_heads.size)])


def _mask(op: Op, index: int, heads: Axis) -> None:
    axes = op.axes(index)
    op.keep(index)  # what looks at nothing gives no number
    if len(axes) >= 3 and axes[-3].size != 1:
        op.unite(axes[-3], heads)
    for axis in (*axes[:-3], *axes[-2:]):
        op.freeze(axis, "Attention looks along it")


def _fit_attention(fit: Fit) -> None:
    """Without an explicit scale the operator takes it from the size of a head, which may have shrunk."""
    op = fit.op
    q, k = op.axes(0), op.axes(1)
    if len(q) == 4:
        _keep_scale(fit, q[3].size, fit.static(q[3]), "scale" in op.node.attributes)
        return
    heads = op.integer("q_num_heads", 1)
    left = fit.outer(q[2], heads)
    fit.attribute("q_num_heads", left)
    fit.attribute("kv_num_heads", fit.outer(k[2], op.integer("kv_num_heads", 1)))
    assert isinstance(q[2].size, int)
    _keep_scale(fit, q[2].size // heads, fit.static(q[2]) // left, "scale" in op.node.attributes)


def _keep_scale(fit: Fit, before: Dim, after: int, explicit: bool) -> None:
    if before != after and not explicit:
        assert isinstance(before, int)
        fit.attribute("scale", float(before) ** -0.5)


def _fit_heads(fit: Fit, hidden: Axis) -> None:
    """com.microsoft: the attributes num_heads and scale, which is 0 where it follows the size of a head."""
    heads = fit.op.integer("num_heads", 1)
    left = fit.outer(hidden, heads)
    fit.attribute("num_heads", left)
    assert isinstance(hidden.size, int)
    explicit = fit.op.node.attributes.get_float("scale", 0.0) != 0
    _keep_scale(fit, hidden.size // heads, fit.static(hidden) // left, explicit)


def _multi_head(op: Op) -> None:
    """com.microsoft: query, key, value, bias, key mask, relative bias; all of rank 3."""
    if any(op.has(index) for index in range(6, len(op.node.inputs))):
        raise Unlinkable("MultiHeadAttention with a cache has no rule")
    if any(op.has(index) and len(op.axes(index)) != 3 for index in range(3)) or not op.has(2):
        raise Unlinkable("MultiHeadAttention on packed operands has no rule")
    q, k, v = op.axes(0), op.axes(1), op.axes(2)
    heads = op.new(op.integer("num_heads", 1))
    lanes = headed(op, q[2], heads)
    op.unite(lanes, headed(op, k[2], heads))
    v_lanes = headed(op, v[2], heads)
    zero = op.is_zero(2, 2)
    _dot(op, lanes, (op.is_zero(0, 2) or op.is_zero(1, 2)) and not (op.has(3) and not op.is_zero(3, 0)))
    if op.has(3):
        bias = op.axes(3)[0]
        sizes = [axis.size for axis in (q[2], k[2], v[2])]
        start = 0
        for axis, size in zip((q[2], k[2], v[2]), sizes, strict=True):
            assert isinstance(size, int)
            op.link_range(bias, start, axis, 0, size)
            start += size
        zero = zero and op.is_zero(3, 0)
    if op.has(4):
        for axis in op.axes(4):
            op.freeze(axis, "MultiHeadAttention looks along it")
    if op.has(5):
        _mask(op, 5, heads)
    for other in (k[0], v[0]):
        op.unite(q[0], other)
    for axis in (q[1], k[1], v[1]):
        op.freeze(axis, "MultiHeadAttention looks along it")
    hidden = op.new(v[2].size)
    op.align([hidden], [heads, v_lanes])
    op.give([q[0], q[1], hidden], [False, False, zero])


def _fit_multi_head(fit: Fit) -> None:
    _fit_heads(fit, fit.op.axes(0)[2])


def _packed(op: Op) -> None:
    """com.microsoft Attention: input, weight (C, q + k + v), bias, mask, past, relative bias."""
    if op.has(4) or any(op.has(index) for index in range(6, len(op.node.inputs))):
        raise Unlinkable("Attention with a cache has no rule")
    x, weight = op.axes(0), op.axes(1)
    heads = op.new(op.integer("num_heads", 1))
    size = weight[1].size
    if op.integer("do_rotary", 0):
        raise Unlinkable("Attention that rotates has no rule")
    if "qkv_hidden_sizes" in op.node.attributes or not isinstance(size, int) or size % 3:
        raise Unlinkable("Attention of unequal parts has no rule")
    op.contract(0, 2, 1, 0)
    hidden = op.new(size // 3)
    lanes = headed(op, hidden, heads)
    op.align([weight[1]], [op.new(3, "it counts query, key and value"), hidden])
    zero = op.is_zero(1, 1)
    if op.has(2):
        zero = link_vector(op, 2, weight[1]) and zero
    _dot(op, lanes, zero)
    if op.has(3):
        for axis in op.axes(3):
            op.freeze(axis, "Attention looks along it")
    if op.has(5):
        _mask(op, 5, heads)
    op.freeze(x[1], "Attention looks along it")
    op.channel(hidden)
    op.work(x[0], x[1], weight[0], weight[1])
    op.give([x[0], x[1], hidden], [False, False, zero])


def _fit_packed(fit: Fit) -> None:
    _fit_heads(fit, fit.gives(0)[2])


TABLE: Table = {
    "Attention": Rule(_attention, _fit_attention),
    "com.microsoft::Attention": Rule(_packed, _fit_packed),
    "com.microsoft::MultiHeadAttention": Rule(_multi_head, _fit_multi_head),
}
