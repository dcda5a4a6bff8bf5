"""Makes one fully connected layer of two with nothing in between."""

from __future__ import annotations

import dataclasses
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from graphopt.pipeline.base import Context, RulePass, Safety
from graphopt.rewrite.builder import Builder
from graphopt.rewrite.match import Match, Miss
from graphopt_passes._channels import Floats, channel_vector, fits
from graphopt_passes._floats import FLOAT_TYPES

__all__ = ["FuseMatMulMatMul"]

_MAX_ELEMENTS: Final = 1 << 22


@dataclasses.dataclass(frozen=True)
class FuseMatMulMatMul(RulePass):
    """Makes one fully connected layer of two with nothing in between.

    What it does:
        ``(x W1 + b1) W2 + b2`` is ``x (W1 W2) + (b1 W2 + b2)``, which takes the place of both where it costs no more
        multiplications. The layers are a MatMul, perhaps with an Add behind the first, or a Gemm. Computed in float64,
        stored in the weight's dtype.

    Before:
        ``a = MatMul(x, W1); y = MatMul(a, W2)`` with ``W1: [64, 512], W2: [512, 64]``

    After:
        ``y = MatMul(x, W)`` with ``W: [64, 64]``

    Does not apply when:
        - an inner result is read by anything else, or is a graph output;
        - a weight or the bias of the first is not constant, or can be overridden by the caller;
        - one layer would cost more than two: a factorized layer (LoRA, an embedding through a narrow middle) stays;
        - the new weights would overflow their type, or lose precision in it.

    Safety:
        Numeric: rounding of the new weights, and sums in another order.
    """

    name = "fuse-matmul-matmul"
    safety = Safety.NUMERIC
    ops = ("MatMul", "Gemm")
    reach = 2

    def match(self, node: ir.Node, context: Context) -> Match | Miss | None:
        source = context.producer(node.inputs[0], "MatMul", "Gemm", "Add")
        first = _read(source, context) if source is not None else None
        second = _read(node, context)
        if source is None or first is None or second is None or second.bias is None or first.bias is None:
            return None
        readers = [(source, node), *([(first.node, source)] if first.node is not source else [])]
        if any(context.producer(one.outputs[0], reader=reader) is None for one, reader in readers):
            return Miss("an inner result is read elsewhere", node)
        rows, middle = first.weight.shape
        columns = second.weight.shape[1]
        if rows * columns > middle * (rows + columns):
            return Miss("one layer would cost more than two", node)
        kind = first.weight.dtype.newbyteorder("=")
        wide = np.asarray(second.weight, np.float64)
        with np.errstate(over="ignore"):
            weight = (np.asarray(first.weight, np.float64) @ wide).astype(kind)
            bias = (first.bias @ wide + second.bias).astype(kind)
        if not fits(first.weight, weight) or not np.all(np.isfinite(np.asarray(bias, np.float64))):
            return Miss("the new weights do not fit their type", node)
        x = first.node.inputs[0]
        return Match(node, build=lambda builder: [_build(builder, x, (first, second), weight, bias)])


class _Layer(NamedTuple):
    """``x W + b``: its product, the weight as ``(rows, columns)``, and the bias (``None``: not known, or varies)."""

    node: ir.Node
    weight: npt.NDArray[Any]
    bias: Floats | None


def _read(node: ir.Node, context: Context) -> _Layer | None:
    product = node
    bias: ir.Value | None = None
    if node.op_type == "Add":
        left = context.producer(node.inputs[0], "MatMul")
        found = left if left is not None else context.producer(node.inputs[1], "MatMul")
        if found is None:
            return None
        product, bias = found, node.inputs[1 if left is not None else 0]
    elif node.op_type == "Gemm":
        bias = node.inputs[2] if len(node.inputs) > 2 else None
    tensor = context.constant(product.inputs[1])
    if tensor is None or tensor.dtype not in FLOAT_TYPES or len(tensor.shape) != 2 or tensor.size > _MAX_ELEMENTS:
        return None
    weight, beta = tensor.numpy(), 1.0
    if node.op_type == "Gemm":
        if node.attributes.get_int("transA", 0) or node.attributes.get_float("alpha", 1.0) != 1:
            return None
        weight = weight.T if node.attributes.get_int("transB", 0) else weight
        beta = node.attributes.get_float("beta", 1.0)
    return _Layer(product, weight, _vector(bias, weight.shape[1], beta, context))


def _vector(bias: ir.Value | None, columns: int, beta: float, context: Context) -> Floats | None:
    if bias is None:
        return np.zeros(columns)
    tensor = context.constant(bias)
    vector = channel_vector(tensor, columns, 2, -1) if tensor is not None else None
    return None if vector is None else beta * vector


def _build(
    builder: Builder,
    x: ir.Value | None,
    layers: tuple[_Layer, _Layer],
    weight: npt.NDArray[Any],
    bias: npt.NDArray[Any],
) -> ir.Value:
    node = builder.root
    name = next((value.name for value in node.inputs[1:2] if value is not None), None)
    inputs = [x, builder.constant(weight, name)]
    is_gemm = any(layer.node.op_type == "Gemm" for layer in layers)
    needed = np.any(bias) or (is_gemm and builder.context.opset(node) < 11)
    added = [builder.constant(bias, f"{name}_bias")] if needed else []
    if is_gemm:
        return builder.op("Gemm", [*inputs, *added])
    product = builder.op("MatMul", inputs)
    return builder.op("Add", [product, *added]) if added else product
