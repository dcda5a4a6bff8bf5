"""Normalizations, reductions and softmaxes: operators that look along an axis."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

import onnx_ir as ir

from graphopt.channels.axes import Axis, leaves
from graphopt.channels.op import Op, Unlinkable, link_vector, link_vectors
from graphopt.channels.rules.rule import Rule, Table

if TYPE_CHECKING:
    from graphopt.channels.fitting import Fit

__all__ = ["TABLE"]


def _batchnorm(op: Op) -> None:
    axes = op.axes(0)
    if op.integer("training_mode", 0) or not op.integer("spatial", 1):
        raise Unlinkable("BatchNormalization that trains has no rule")
    channels = axes[1]
    op.channel(channels)
    zero = link_vectors(op, (1, 2), channels)
    link_vectors(op, (3, 4), channels)
    for index in (3, 4):
        op.keep(index)
    op.give(axes, [False, zero, *[False] * (len(axes) - 2)])


def _instance_norm(op: Op) -> None:
    axes = op.axes(0)
    zero = link_vectors(op, (1, 2), axes[1])
    for leaf in (axes[1], *leaves(axes[1])):
        leaf.role.group = True  # GroupNormalization is exported as one over its groups
    _over(op, axes[2:])
    op.give(axes, [False, zero, *[False] * (len(axes) - 2)])


def _over(op: Op, axes: Iterable[Axis]) -> None:
    """Statistics are taken over these axes."""
    for axis in axes:
        op.statistics(axis)


def _group_norm(op: Op) -> None:
    axes, groups = op.axes(0), op.integer("num_groups", 1)
    size = axes[1].size
    if not isinstance(size, int) or size % groups:
        raise Unlinkable("the groups of GroupNormalization do not fit its channels")
    block, inner = op.new(groups), op.new(size // groups)
    block.role.group = True
    op.align([axes[1]], [block, inner])
    op.channel(axes[1])
    zero = True
    for index in (1, 2):
        (vector,) = op.axes(index)
        op.unite(vector, axes[1] if vector.size == size else block)  # before opset 21: one number a group
        zero = zero and vector.size == size and op.is_zero(index, 0)
    for axis in axes[2:]:
        op.freeze(axis, "GroupNormalization takes statistics over it")
    _over(op, [inner])
    op.give(axes, [False, zero, *[False] * (len(axes) - 2)])


def _fit_group_norm(fit: Fit) -> None:
    fit.attribute("num_groups", fit.outer(fit.op.axes(0)[1], fit.op.integer("num_groups", 1)))


def _layer_norm(op: Op) -> None:
    axes, zeros = op.axes(0), list(op.zeros(0))
    first = op.axis(-1, len(axes))
    _over(op, axes[first:])
    zeros = [False] * first + [True] * (len(axes) - first)
    for index in (1, 2):
        if not op.has(index):
            if index == 1:
                zeros = [False] * len(axes)
            continue
        own = op.axes(index)
        for place in range(first, len(axes)):
            at = place - len(axes) + len(own)
            has_it = at >= 0 and own[at].size != 1
            if has_it:
                op.unite(own[at], axes[place])
            zeros[place] = zeros[place] and has_it and op.is_zero(index, at)
    op.channel(*axes[first:])
    op.give(axes, zeros)


def _rms_norm(op: Op) -> None:
    axes, zeros = op.axes(0), op.zeros(0)
    first = op.axis(-1, len(axes))
    _corrected(op, range(first, len(axes)))
    own = op.axes(1)
    for a, b in zip(reversed(own), reversed(axes), strict=False):
        if a.size != 1:
            op.unite(a, b)
    op.channel(*axes[first:])
    op.give(axes, zeros)


def _corrected(op: Op, places: Iterable[int]) -> None:
    """A mean over lanes that are zero is that of the rest, times a factor that the fit puts in."""
    places = list(places)
    dtype = op.linker.shapes.dtype(op.value(0))
    for place in places:
        op.add_up(0, place)
        if dtype is not None and not dtype.is_floating_point():
            op.freeze(op.axes(0)[place], "a mean of integers cannot be corrected for their number")
    op.linker.scaled[op.node] = tuple([op.axes(0)[place] for place in places])


def _fit_rms_norm(fit: Fit) -> None:
    """With ``r = C'/C`` the mean square over what is left is ``1/r`` of the old one."""
    skips = fit.op.node.op_type == "SkipSimplifiedLayerNormalization"
    ratio = fit.ratio(fit.op.linker.scaled[fit.op.node])
    if ratio == 1:
        return
    default = 1e-12 if skips else 1e-5
    fit.attribute("epsilon", fit.op.node.attributes.get_float("epsilon", default) / ratio)
    fit.scale_constant(2 if skips else 1, 1 / math.sqrt(ratio))


def _skip_layer_norm(op: Op) -> None:
    """input, skip, gamma, beta, bias; the fourth output is their sum."""
    simplified = op.node.op_type.startswith("SkipSimplified")
    axes = op.axes(0)
    for a, b in zip(axes, op.axes(1), strict=True):
        op.unite(a, b)
    zero = op.is_zero(0, len(axes) - 1) and op.is_zero(1, len(axes) - 1)
    bias = 3 if simplified else 4
    if op.has(bias):
        zero = link_vector(op, bias, axes[-1]) and zero
    gamma = link_vectors(op, [index for index in ((2,) if simplified else (2, 3)) if op.has(index)], axes[-1])
    if simplified:
        if not zero:
            op.freeze(axes[-1], f"{op.node.op_type} adds up lanes that are not zero when masked")
        op.linker.scaled[op.node] = axes[-1:]
    else:
        _over(op, axes[-1:])
    op.channel(axes[-1])
    op.give(axes, [*[False] * (len(axes) - 1), gamma])
    op.give(axes, [*[False] * (len(axes) - 1), zero], output=3)


def _named_axes(op: Op, rank: int) -> tuple[int, ...]:
    named = op.integers("axes")
    if named is None and op.has(1):
        named = op.ints(1)
        if named is None:
            raise Unlinkable(f"{op.node.op_type} over unknown axes")
    if not named:
        named = () if op.integer("noop_with_empty_axes", 0) else tuple(range(rank))
    return tuple(axis % rank for axis in named)


def _reduced(op: Op, named: tuple[int, ...], *, preserves_zero: bool = True) -> None:
    axes, zeros = op.axes(0), op.zeros(0)
    keep = op.integer("keepdims", 1)
    places = [place for place in range(len(axes)) if keep or place not in named]
    op.give(
        [op.new(1) if place in named else axes[place] for place in places],
        [preserves_zero and place not in named and zeros[place] for place in places],
    )


def _reduce_sum(op: Op) -> None:
    """Sums, and norms, which leave out zeros likewise."""
    named = _named_axes(op, len(op.axes(0)))
    for place in named:
        op.add_up(0, place)
    _reduced(op, named)


def _reduce_mean(op: Op) -> None:
    axes = op.axes(0)
    named = _named_axes(op, len(axes))
    if _is_centred(op.node) or _is_variance(op.node):
        _over(op, [axes[place] for place in named])
    else:
        _corrected(op, named)
    _reduced(op, named)


def _fit_reduce_mean(fit: Fit) -> None:
    if fit.op.node in fit.op.linker.scaled:
        fit.scale_output(fit.ratio(fit.op.linker.scaled[fit.op.node]))


def _is_centred(node: ir.Node) -> bool:
    """Whether the mean is taken off what it is the mean of: the first half of a layer normalization."""
    source = node.inputs[0]
    return any(
        user.op_type == "Sub" and user.inputs[0] is source and user.inputs[1] is node.outputs[0]
        for user in node.outputs[0].consumers()
    )


def _is_variance(node: ir.Node) -> bool:
    """Whether it is the mean of the squares of something centred."""
    source = node.inputs[0]
    square = None if source is None else source.producer()
    if square is None or square.op_type not in ("Pow", "Mul"):
        return False
    centred = square.inputs[0]
    if square.op_type == "Mul" and square.inputs[1] is not centred:
        return False
    producer = None if centred is None else centred.producer()
    while producer is not None and producer.op_type == "Cast":
        producer = None if producer.inputs[0] is None else producer.inputs[0].producer()
    if producer is None or producer.op_type != "Sub":
        return False
    mean = None if producer.inputs[1] is None else producer.inputs[1].producer()
    return mean is not None and mean.op_type == "ReduceMean" and mean.inputs[0] is producer.inputs[0]


def _reduce_other(op: Op) -> None:
    named = _named_axes(op, len(op.axes(0)))
    for place in named:
        op.freeze(op.axes(0)[place], f"{op.node.op_type} looks along it, and zero is not absent")
    _reduced(op, named)


def _reduce_log(op: Op) -> None:
    """ReduceLogSum, ReduceLogSumExp: a lane that is zero gives minus infinity, or the logarithm of how many."""
    axes, named = op.axes(0), _named_axes(op, len(op.axes(0)))
    for place, axis in enumerate(axes):
        if place in named:
            op.freeze(axis, f"{op.node.op_type} looks along it, and zero is not absent")
        elif op.node.op_type == "ReduceLogSum" and op.is_zero(0, place):
            op.freeze(axis, "ReduceLogSum of a masked lane is not finite")
    _reduced(op, named, preserves_zero=False)


def _arg_extremum(op: Op) -> None:
    axis = op.axis(0, len(op.axes(0)))
    op.freeze(op.axes(0)[axis], f"{op.node.op_type} looks along it, and zero is not absent")
    _reduced(op, (axis,), preserves_zero=False)


def _along(default: int) -> Rule:
    """Softmax and the like: the operator looks along one axis; before opset 13 along all from there on."""

    def link(op: Op) -> None:
        axes = op.axes(0)
        first = op.axis(default if op.opset >= 13 else 1, len(axes))
        for axis in axes[first : first + 1] if op.opset >= 13 else axes[first:]:
            op.freeze(axis, f"{op.node.op_type} looks along it, and zero is not absent")
        op.give(axes)

    return Rule(link)


def _top_k(op: Op) -> None:
    axes = list(op.axes(0))
    axis = op.axis(-1, len(axes))
    op.freeze(axes[axis], "TopK looks along it, and zero is not absent")
    for output in range(2):
        own = list(axes)
        own[axis] = op.new(op.shape(output)[axis], "TopK looks along it, and zero is not absent")
        op.give(own, False, output)


def _lp_norm(op: Op) -> None:
    axes, zeros = op.axes(0), op.zeros(0)
    axis = op.axis(-1, len(axes))
    op.add_up(0, axis)
    op.give(axes, zeros)


def _local_response(op: Op) -> None:
    axes = op.axes(0)
    op.freeze(axes[1], "LRN mixes neighbouring channels")
    op.give(axes)


def _mean_variance(op: Op) -> None:
    axes = op.axes(0)
    for place in op.integers("axes") or (0, 2, 3):
        op.statistics(axes[place % len(axes)])
    op.give(axes)


def _pool(op: Op) -> None:
    axes, shape = op.axes(0), op.shape()
    for axis in axes[2:]:
        op.freeze(axis, "positions are mixed with their neighbours")
    result = [axes[0], axes[1], *[op.spatial(size) for size in shape[2:]]]
    if op.uses(1):
        for axis in axes[:2]:
            op.freeze(axis, f"{op.node.op_type} gives positions within the whole tensor")
    op.give(result, [False, op.is_zero(0, 1), *[False] * (len(axes) - 2)])
    op.give(result, False, output=1)


TABLE: Table = {
    **dict.fromkeys(("ReduceSum", "ReduceL1", "ReduceL2", "ReduceSumSquare"), Rule(_reduce_sum)),
    **dict.fromkeys(("ReduceMax", "ReduceMin", "ReduceProd"), Rule(_reduce_other)),
    **dict.fromkeys(("ReduceLogSum", "ReduceLogSumExp"), Rule(_reduce_log)),
    **dict.fromkeys(("ArgMax", "ArgMin"), Rule(_arg_extremum)),
    **dict.fromkeys(("Softmax", "LogSoftmax", "Hardmax"), _along(-1)),
    **dict.fromkeys(
        ("AveragePool", "GlobalAveragePool", "GlobalLpPool", "GlobalMaxPool", "LpPool", "MaxPool"), Rule(_pool)
    ),
    **dict.fromkeys(
        ("RMSNormalization", "SimplifiedLayerNormalization", "com.microsoft::SimplifiedLayerNormalization"),
        Rule(_rms_norm, _fit_rms_norm),
    ),
    "com.microsoft::SkipSimplifiedLayerNormalization": Rule(_skip_layer_norm, _fit_rms_norm),
    "com.microsoft::SkipLayerNormalization": Rule(_skip_layer_norm),
    "BatchNormalization": Rule(_batchnorm),
    "GroupNormalization": Rule(_group_norm, _fit_group_norm),
    "InstanceNormalization": Rule(_instance_norm),
    "LayerNormalization": Rule(_layer_norm),
    "LpNormalization": Rule(_lp_norm),
    "LRN": Rule(_local_response),
    "MeanVarianceNormalization": Rule(_mean_variance),
    "ReduceMean": Rule(_reduce_mean, _fit_reduce_mean),
    "TopK": Rule(_top_k),
}
