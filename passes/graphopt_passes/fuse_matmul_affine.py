"""Folds arithmetic with a constant per column into the matrix product before it."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Final

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from graphopt.pipeline.base import Context, RulePass, Safety
from graphopt.rewrite.builder import Builder
from graphopt.rewrite.match import Match, Miss
from graphopt_passes._channels import Floats, affine_of, batchnorm_affine, channel_vector, fits, scaled
from graphopt_passes._floats import FLOAT_TYPES

__all__ = ["FuseMatMulAffine"]

_SUMS: Final = ("Add", "Sub")


@dataclasses.dataclass(frozen=True)
class FuseMatMulAffine(RulePass):
    """Folds a Mul, Div, Add, Sub or BatchNormalization into the MatMul before it and the bias added to that.

    What it does:
        ``y = (x W + b) * s + t`` with one number a column, or one for all, becomes ``x W' + b'`` with ``W' = W * s``
        and ``b' = b * s + t``. Computed in float64, stored in the weight's dtype. A BatchNormalization may see it
        through a Transpose, as torch's BatchNorm1d does after a Linear over a sequence; the Transpose stays, and with
        the one that follows it goes away.

    Before:
        ``m = MatMul(x, W); a = Add(m, b); t = Transpose<perm=[0, 2, 1]>(a);
        y = BatchNormalization(t, scale, bias, mean, var)``

    After:
        ``m = MatMul(x, W'); a = Add(m, b'); y = Transpose<perm=[0, 2, 1]>(a)``

    Does not apply when:
        - an inner result is read elsewhere, or is a graph output;
        - weight, bias or operand is not constant, or can be overridden by the caller, or the weight is no matrix;
        - the operand varies along another axis than the last, or makes the result larger;
        - the channels of the BatchNormalization are not the columns;
        - it adds to a product that has no bias: the summand is the bias;
        - the folded weights would overflow their type, or lose precision in it.

    Safety:
        Numeric: rounding of the folded weights. Weights shared with other nodes are copied, not changed.
    """

    name = "fuse-matmul-affine"
    safety = Safety.NUMERIC
    ops = ("Mul", "Div", "Add", "Sub", "BatchNormalization")
    reach = 3
    needs = frozenset({"MatMul"})

    def match(self, node: ir.Node, context: Context) -> Match | Miss | None:
        if context.opset(node) < 7:
            return None
        is_norm = node.op_type == "BatchNormalization"
        for position in (0,) if is_norm else (0, 1):
            if not is_norm and context.constant(node.inputs[1 - position]) is None:
                continue
            product = _product(node, node.inputs[position], context)
            if product is None:
                continue
            folded = product if isinstance(product, str) else _fold(node, position, product, context)
            return folded if isinstance(folded, Match | None) else Miss(folded, node)
        return None


@dataclasses.dataclass(frozen=True)
class _Product:
    """A MatMul with a constant matrix on its right.

    Attributes:
        node: The MatMul.
        weight: The matrix.
        rank: How many axes the result has.
        sum: What adds its bias, if anything does.
        bias: The bias, ``(columns,)``; zeros if there is none.
        transpose: The Transpose of the result, if there is one.
    """

    node: ir.Node
    weight: npt.NDArray[np.float32]
    rank: int
    sum: ir.Node | None
    bias: Floats
    transpose: ir.Node | None


def _product(reader: ir.Node, value: ir.Value | None, context: Context) -> _Product | str | None:
    """What ``value`` is; why it is no product that may be changed; ``None`` if it is something else altogether."""
    chain = [reader]
    transpose = None
    if reader.op_type == "BatchNormalization" and (transpose := context.producer(value, "Transpose")) is not None:
        chain.append(transpose)
        value = transpose.inputs[0]
    total = context.producer(value, *_SUMS)
    position = 0
    if total is not None:
        position = 0 if context.producer(total.inputs[0], "MatMul") is not None else 1
        chain.append(total)
        value = total.inputs[position]
    node = context.producer(value, "MatMul")
    tensor = context.constant(node.inputs[1]) if node is not None else None
    if node is None or tensor is None:
        return None
    if tensor.dtype not in FLOAT_TYPES or len(tensor.shape) != 2:
        return "the weight is not a matrix of floats"
    chain.append(node)
    for user, used in itertools.pairwise(chain):
        if used.graph is not reader.graph or not context.only_reader(used.outputs[0], user):
            return "an inner result is read elsewhere"
    rank = context.shapes.rank(node.outputs[0])
    if not rank or rank < 2:
        return "the number of axes is not known"
    bias = _bias(total, position, tensor.shape.numpy()[1], rank, context)
    return bias if isinstance(bias, str) else _Product(node, tensor.numpy(), rank, total, bias, transpose)


def _bias(total: ir.Node | None, position: int, columns: int, rank: int, context: Context) -> Floats | str:
    if total is None:
        return np.zeros(columns)
    tensor = context.constant(total.inputs[1 - position])
    if tensor is None:
        return "the bias is not constant"
    vector = channel_vector(tensor, columns, rank, -1)
    if vector is None or (total.op_type == "Sub" and position == 1):
        return "the bias is not one number a column"
    return vector if total.op_type == "Add" else -vector


def _fold(node: ir.Node, position: int, product: _Product, context: Context) -> Match | str | None:
    affine = _affine(node, position, product, context)
    if affine is None or isinstance(affine, str):
        return affine
    scale, shift = affine
    if not np.all(np.isfinite(scale)) or not np.all(np.isfinite(shift)):
        return "the constant is not finite, or divides by zero"
    old = product.weight
    weight = old if np.all(scale == 1) else scaled(old, scale[None, :])
    with np.errstate(over="ignore"):
        bias = (product.bias * scale + shift).astype(old.dtype.newbyteorder("="))
    if not fits(old, weight) or not np.all(np.isfinite(np.asarray(bias, np.float64))):
        return "the folded weights do not fit their type"
    return Match(node, build=lambda builder: [_build(builder, product, weight, bias)])


def _affine(node: ir.Node, position: int, product: _Product, context: Context) -> tuple[Floats, Floats] | str | None:
    columns = product.weight.shape[1]
    if node.op_type == "BatchNormalization":
        order = product.transpose.attributes.get_ints("perm") if product.transpose is not None else (0, 1)
        if order is None or len(order) != product.rank or order[1] != product.rank - 1:
            return "the channels of the BatchNormalization are not the columns"
        found = batchnorm_affine(node, context)
        return found if isinstance(found, str) or len(found[0]) == columns else "the channels do not fit"
    tensor = context.constant(node.inputs[1 - position])
    if tensor is None or (node.op_type == "Div" and position == 1):
        return None
    if product.sum is None and (node.op_type == "Add" or (node.op_type == "Sub" and position == 0)):
        return None
    vector = channel_vector(tensor, columns, product.rank, -1)
    if vector is None:
        return "the constant varies along another axis than the columns"
    return affine_of(node.op_type, vector, position)


def _build(
    builder: Builder, product: _Product, weight: npt.NDArray[np.float32], bias: npt.NDArray[np.float32]
) -> ir.Value:
    node, old = product.node, product.node.inputs[1]
    assert old is not None
    right = old if weight is product.weight else builder.constant(weight, old.name)
    value = builder.like(node, [node.inputs[0], right])
    if product.sum is not None or np.any(bias):
        origin = product.sum if product.sum is not None else builder.root
        value = builder.op("Add", [value, builder.constant(bias, f"{old.name}_bias")], origin=origin)
    if product.transpose is not None:
        value = builder.like(product.transpose, [value])
    return value
