"""Makes one convolution of two with nothing in between."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from graphopt.pipeline.base import Context, RulePass, Safety
from graphopt.rewrite.builder import Builder
from graphopt.rewrite.match import Match, Miss
from graphopt_passes._channels import Floats, fits
from graphopt_passes._floats import FLOAT_TYPES

__all__ = ["FuseConvConv"]

_MAX_ELEMENTS: Final = 1 << 22


@dataclasses.dataclass(frozen=True)
class FuseConvConv(RulePass):
    """Makes one convolution of two with nothing in between.

    What it does:
        The product of two linear maps is one. Where one of the two is 1x1 and the product costs no more multiplications
        than both, it takes their place: ``W'[o, i] = sum_m W2[o, m] * W1[m, i]``, ``B' = W2 B1 + B2``. Computed in
        float64, stored in the weight's dtype.

    Before:
        ``c = Conv(x, W1, B1); y = Conv(c, W2, B2)`` with ``W1: [8, 8, 1, 1], W2: [24, 8, 1, 1]``

    After:
        ``y = Conv(x, W', B')`` with ``W': [24, 8, 1, 1]``

    Does not apply when:
        - the first result is read by anything else, or is a graph output;
        - a weight or a bias is not constant, or can be overridden by the caller;
        - there are groups, or neither is 1x1, or one would cost more than two (the narrow middle of a bottleneck);
        - the first is the one that is 1x1 and has a stride, or has a bias where the second pads: to its zeros the bias
          was not added;
        - the new weights would overflow their type, or lose precision in it.

    Safety:
        Numeric: rounding of the new weights, and sums in another order.
    """

    name = "fuse-conv-conv"
    safety = Safety.NUMERIC
    ops = ("Conv",)

    def match(self, node: ir.Node, context: Context) -> Match | Miss | None:
        first = context.producer(node.inputs[0], "Conv")
        if first is None:
            return None
        if first.graph is not node.graph or not context.only_reader(first.outputs[0], node):
            return Miss("the first result is read elsewhere", node)
        one, two = _read(first, context), _read(node, context)
        if isinstance(one, str) or isinstance(two, str):
            return Miss(one if isinstance(one, str) else str(two), node)
        refusal = _refusal(one, two)
        if refusal is not None:
            return Miss(refusal, node)
        weight, bias = _product(one, two)
        if not fits(one.weight, weight) or not np.all(np.isfinite(np.asarray(bias, np.float64))):
            return Miss("the new weights do not fit their type", node)
        return Match(node, build=lambda builder: [_build(builder, one, two, weight, bias)])


class _Conv(NamedTuple):
    """A convolution without groups; ``bias`` is None if it has none."""

    node: ir.Node
    weight: npt.NDArray[Any]
    bias: Floats | None
    strides: Sequence[int]
    pads: Sequence[int]

    @property
    def is_pointwise(self) -> bool:
        return math.prod(self.weight.shape[2:]) == 1 and not any(self.pads)

    @property
    def cost(self) -> int:
        return self.weight.size


def _read(node: ir.Node, context: Context) -> _Conv | str:
    tensor = context.constant(node.inputs[1])
    biases = [context.constant(value) for value in node.inputs[2:] if value is not None]
    if tensor is None or tensor.dtype not in FLOAT_TYPES or None in biases:
        return "the weight or the bias is not a constant of floats"
    if node.attributes.get_int("group", 1) != 1:
        return "there are groups"
    if tensor.size > _MAX_ELEMENTS:
        return "the weight is large"
    axes = len(tensor.shape) - 2
    if node.attributes.get_string("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        return "the padding is not written out"
    strides = node.attributes.get_ints("strides") or [1] * axes
    pads = node.attributes.get_ints("pads") or [0] * (2 * axes)
    bias = np.asarray(biases[0].numpy(), np.float64) if biases and biases[0] is not None else None
    return _Conv(node, tensor.numpy(), bias, strides, pads)


def _refusal(one: _Conv, two: _Conv) -> str | None:
    inputs, outputs = one.weight.shape[1], two.weight.shape[0]
    if one.weight.dtype != two.weight.dtype:
        return "the weights are of different types"
    if not one.is_pointwise and not two.is_pointwise:
        return "neither is 1x1"
    if not two.is_pointwise:
        if any(stride != 1 for stride in one.strides):
            return "the first has a stride"
        if any(two.pads) and one.bias is not None and np.any(one.bias):
            return "the second pads what the first has added a bias to"
    window = max(math.prod(one.weight.shape[2:]), math.prod(two.weight.shape[2:]))
    if outputs * inputs * window > one.cost * math.prod(two.strides) + two.cost:
        return "one convolution would cost more than two"
    return None


def _product(one: _Conv, two: _Conv) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    first, second = (np.asarray(conv.weight, np.float64).reshape(*conv.weight.shape[:2], -1) for conv in (one, two))
    weight = np.einsum("omk,mil->oikl", second, first, optimize=True)
    window = (one if two.is_pointwise else two).weight.shape[2:]
    bias = np.zeros(len(second)) if two.bias is None else two.bias
    if one.bias is not None:
        bias = bias + second.sum(axis=2) @ one.bias
    kind = one.weight.dtype.newbyteorder("=")
    with np.errstate(over="ignore"):
        return weight.reshape(*weight.shape[:2], *window).astype(kind), bias.astype(kind)


def _build(builder: Builder, one: _Conv, two: _Conv, weight: npt.NDArray[Any], bias: npt.NDArray[Any]) -> ir.Value:
    windowed = one if two.is_pointwise else two
    strides = [first * second for first, second in zip(one.strides, two.strides, strict=True)]
    old = two.node.inputs[1]
    inputs = [one.node.inputs[0], builder.constant(weight, old.name if old is not None else None)]
    if one.bias is not None or two.bias is not None:
        inputs.append(builder.constant(bias, f"{two.node.name or 'Conv'}_bias"))
    kept = {name: windowed.node.attributes.get(name) for name in ("pads", "dilations", "kernel_shape", "auto_pad")}
    return builder.like(two.node, inputs, {**kept, "strides": strides})
