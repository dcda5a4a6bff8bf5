"""Convolutions and matrix products: what they sum over, what they give, and what stays side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphopt.channels.axes import Axis, find, leaves
from graphopt.channels.op import Op, Unlinkable, link_vector
from graphopt.channels.records import Sum
from graphopt.channels.rules.rule import Rule, Table

if TYPE_CHECKING:
    from graphopt.channels.fitting import Fit

__all__ = ["TABLE", "convolve", "multiply"]


def convolve(op: Op, x: int, weight: int, bias: int | None, *, transposed: bool = False) -> None:
    """A convolution of input ``x`` with ``weight``; channels in groups keep the same places in each group."""
    image, kernel = op.axes(x), op.axes(weight)
    if len(image) != len(kernel) or len(image) < 3:
        raise Unlinkable(f"{op.node.op_type} of unexpected rank")
    group = op.integer("group", 1)
    for axis in kernel[2:]:
        op.freeze(axis, "it is a window")
    for axis in image[2:]:
        op.freeze(axis, "positions are mixed with their neighbours")
    shape = op.shape()
    outer, inner = kernel[0], kernel[1]
    summed, given = (outer, inner) if transposed else (inner, outer)
    if group == 1:
        op.unite(image[1], summed)
        channels = given
    else:
        block = op.new(group)
        find(block).role.group = inner.size != 1  # of a depthwise convolution the groups are the channels
        # The axis of the weight that counts all channels is split into blocks; the other one is within a block.
        joint = [block, op.new(_quotient(op, outer, group))]
        op.align([outer], joint)
        if transposed:
            channels = op.new(shape[1])
            op.align([image[1]], [outer])
            op.align([channels], [block, inner])
        else:
            channels = outer
            op.align([image[1]], [block, inner])
    op.channel(image[1], channels)
    zero = op.is_zero(weight, 1 if transposed else 0)
    if summed.size != 1:
        along = 0 if transposed else 1
        op.linker.sums.append(Sum(op.node, x, 1, weight, along))
        if not (op.is_zero(weight, along) or op.is_zero(x, 1)):
            op.freeze(image[1], f"{op.node.op_type} adds up lanes that are not zero when masked")
    if bias is not None and op.has(bias):
        zero = link_vector(op, bias, channels) and zero
    spatial = [op.spatial(size) for size in shape[2:]]
    outside = (image[1], *image[2:]) if transposed else (channels, *spatial)
    op.work(image[0], inner, *kernel[2:], *outside)
    op.give([image[0], channels, *spatial], [op.is_zero(x, 0) and bias is None, zero, *[False] * len(spatial)])


def _quotient(op: Op, axis: Axis, group: int) -> int:
    if not isinstance(axis.size, int) or axis.size % group:
        raise Unlinkable(f"the groups of {op.node.op_type} do not fit its channels")
    return axis.size // group


def _conv(op: Op) -> None:
    convolve(op, 0, 1, 2)


def _conv_integer(op: Op) -> None:
    op.keep(2)
    op.keep(3)
    op.quantized(1, 3, 0)
    if op.has(3) and op.axes(3) and op.axes(3)[0].size != 1:
        op.unite(op.axes(3)[0], op.axes(1)[0])
    convolve(op, 0, 1, None)


def _conv_transpose(op: Op) -> None:
    convolve(op, 0, 1, 2, transposed=True)


def _fit_group(fit: Fit, weight: int = 1, *, transposed: bool = False) -> None:
    """The number of groups is what the input has more channels than the weight sums over."""
    if fit.op.integer("group", 1) == 1:
        return
    image, kernel = fit.op.axes(0), fit.op.axes(weight)
    if transposed:
        fit.attribute("group", fit.static(fit.gives(0)[1]) // fit.static(kernel[1]))
    else:
        fit.attribute("group", fit.static(image[1]) // fit.static(kernel[1]))


def _fit_transposed(fit: Fit) -> None:
    _fit_group(fit, transposed=True)


def _fit_qlinear(fit: Fit) -> None:
    _fit_group(fit, 3)


def multiply(op: Op, a: int, b: int) -> tuple[list[Axis], list[bool]]:
    """The product of two stacks of matrices.

    Returns:
        The axes of the result, and whether masked lanes along each are zero.
    """
    left, right = op.axes(a), op.axes(b)
    if not left or not right:
        raise Unlinkable(f"{op.node.op_type} of a scalar")
    rows = len(left) - 2 if len(left) > 1 else None
    columns = len(right) - 1 if len(right) > 1 else None
    inner = len(right) - 2 if len(right) > 1 else 0
    op.contract(a, len(left) - 1, b, inner)
    activations = not (op.is_constant(a) or op.is_constant(b))
    axes: list[Axis] = []
    zero: list[bool] = []
    batches = max(len(left), len(right), 2) - 2
    for place in range(batches):
        own = []
        for index, side in ((a, left), (b, right)):
            at = place - batches - 2 + len(side)
            if at >= 0 and side[at].size != 1:
                own.append((index, at, side[at]))
        if not own:
            axes.append(op.new(1))
            zero.append(False)
            continue
        batch = own[0][2]
        for _, _, other in own[1:]:
            if other.size == batch.size:
                op.unite(batch, other)
            else:
                op.freeze(other, "it meets an axis of unknown size")
                op.freeze(batch, "it meets an axis of unknown size")
        if activations:
            for factor in (batch, *leaves(batch)):
                find(factor).role.head = True
        axes.append(batch)
        zero.append(any(op.is_zero(index, at) for index, at, _ in own))
    if rows is not None:
        axes.append(left[rows])
        zero.append(op.is_zero(a, rows))
    if columns is not None:
        axes.append(right[columns])
        zero.append(op.is_zero(b, columns))
        op.channel(right[columns])
    op.work(*axes, left[-1])
    return axes, zero


def _matmul(op: Op) -> None:
    op.give(*multiply(op, 0, 1))


def _matmul_integer(op: Op) -> None:
    op.keep(2)
    op.keep(3)
    op.quantized(1, 3, len(op.axes(1)) - 1)
    if op.has(3) and op.axes(3) and op.axes(3)[-1].size != 1:
        op.unite(op.axes(3)[-1], op.axes(1)[-1])
    op.give(*multiply(op, 0, 1))


def _gemm(op: Op) -> None:
    a, b = op.axes(0), op.axes(1)
    if len(a) != 2 or len(b) != 2:
        raise Unlinkable("Gemm of unexpected rank")
    row, inner = (1, 0) if op.integer("transA", 0) else (0, 1)
    column, other = (0, 1) if op.integer("transB", 0) else (1, 0)
    op.contract(0, inner, 1, other)
    op.channel(b[column])
    zero = [op.is_zero(0, row), op.is_zero(1, column)]
    if op.has(2):
        bias = op.axes(2)
        for place, axis in ((0, a[row]), (1, b[column])):
            own = place - 2 + len(bias)
            if own >= 0 and bias[own].size != 1:
                op.unite(bias[own], axis)
                zero[place] = zero[place] and op.is_zero(2, own)
            else:
                zero[place] = False
    op.work(a[row], b[column], a[inner])
    op.give([a[row], b[column]], zero)


def _einsum(op: Op) -> None:
    equation = op.node.attributes.get_string("equation", "").replace(" ", "")
    left, arrow, right = equation.partition("->")
    terms = left.split(",")
    if "." in equation or not arrow or len(terms) != len(op.node.inputs):
        raise Unlinkable("this form of Einsum has no rule")
    named: dict[str, list[tuple[int, int]]] = {}
    for index, term in enumerate(terms):
        if len(term) != len(op.axes(index)) or len(set(term)) != len(term):
            raise Unlinkable("this form of Einsum has no rule")
        for axis, letter in enumerate(term):
            named.setdefault(letter, []).append((index, axis))
    activations = sum(not op.is_constant(index) for index in range(len(terms))) > 1
    axes: dict[str, Axis] = {}
    zero: dict[str, bool] = {}
    for letter, places in named.items():
        present = [op.axes(index)[axis] for index, axis in places if op.axes(index)[axis].size != 1]
        axes[letter] = present[0] if present else op.new(1)
        zero[letter] = any(op.is_zero(*place) for place in places if op.axes(place[0])[place[1]].size != 1)
        for other in present[1:]:
            op.unite(axes[letter], other)
        if letter not in right:
            op.channel(axes[letter])
            if len(places) > 1:
                op.contract(*places[0], *places[1])
            else:
                op.add_up(*places[0])
        elif activations and len(places) > 1:
            find(axes[letter]).role.head = True
        if any(op.is_constant(index) for index, _ in places):
            op.channel(axes[letter])
    op.work(*axes.values())
    op.give([axes[letter] for letter in right], [zero[letter] for letter in right])


def _qlinear_conv(op: Op) -> None:
    """x, x_scale, x_zero, w, w_scale, w_zero, y_scale, y_zero, B."""
    for index in (1, 2, 4, 5, 6, 7):
        op.keep(index)
    for index in (4, 5):
        if op.has(index) and op.axes(index) and op.axes(index)[0].size != 1:
            op.unite(op.axes(index)[0], op.axes(3)[0])
    op.quantized(3, 5, 0)
    if op.has(8):
        op.quantized(8, None, 0)
    convolve(op, 0, 3, 8)


def _qlinear_matmul(op: Op) -> None:
    """a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero."""
    for index in (1, 2, 4, 5, 6, 7):
        op.keep(index)
    for index in (4, 5):
        if op.axes(index) and op.axes(index)[-1].size != 1:
            op.unite(op.axes(index)[-1], op.axes(3)[-1])
    op.quantized(3, 5, len(op.axes(3)) - 1)
    op.give(*multiply(op, 0, 3))


def _fused_matmul(op: Op) -> None:
    if any(op.integer(name, 0) for name in ("transA", "transB", "transBatchA", "transBatchB")):
        raise Unlinkable("FusedMatMul with transposed operands has no rule")
    op.give(*multiply(op, 0, 1))


TABLE: Table = {
    "Conv": Rule(_conv, _fit_group),
    "ConvInteger": Rule(_conv_integer, _fit_group),
    "ConvTranspose": Rule(_conv_transpose, _fit_transposed),
    "Einsum": Rule(_einsum),
    "Gemm": Rule(_gemm),
    "MatMul": Rule(_matmul),
    "MatMulInteger": Rule(_matmul_integer),
    "QLinearConv": Rule(_qlinear_conv, _fit_qlinear),
    "QLinearMatMul": Rule(_qlinear_matmul),
    "com.microsoft::FusedMatMul": Rule(_fused_matmul),
}
