"""Makes one convolution of several that are added up."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from graphopt.pipeline.base import Context, RulePass, Safety
from graphopt.rewrite.builder import Builder
from graphopt.rewrite.match import Match, Miss
from graphopt_passes._channels import Floats, batchnorm_affine, fits
from graphopt_passes._floats import FLOAT_TYPES

__all__ = ["FuseConvSum"]

_MAX_ELEMENTS: Final = 1 << 22


@dataclasses.dataclass(frozen=True)
class FuseConvSum(RulePass):
    """Makes one convolution of several that are added up.

    What it does:
        Convolutions of the same tensor with the same strides are one convolution whose weight is the sum of theirs, the
        smaller window put in its place in the larger one. The tensor itself counts as a convolution with the identity,
        and so does a BatchNormalization of it. It is how a RepVGG block becomes a single layer (Ding et al.,
        arXiv:2101.03697). Computed in float64, stored in the weight's dtype.

    Before:
        ``a = Conv<pads=[1, 1, 1, 1]>(x, W3); b = Conv(x, W1); s = Add(a, b); y = Add(s, x)``

    After:
        ``y = Conv<pads=[1, 1, 1, 1]>(x, W')`` with ``W'[:, :, 1, 1] = W3[:, :, 1, 1] + W1[:, :, 0, 0] + identity``

    Does not apply when:
        - one of the results is read by anything else, or is a graph output;
        - a weight or a bias is not constant, or can be overridden by the caller;
        - the windows, dilations and pads are such that one window does not lie on the other's grid, or the groups or
          strides differ;
        - the result is of another size than the tensor that is added to it, or not known to be of the same;
        - the new weights would overflow their type, or lose precision in it.

    Safety:
        Numeric: rounding of the new weights, and sums in another order.
    """

    name = "fuse-conv-sum"
    safety = Safety.NUMERIC
    ops = ("Add",)
    reach = 2
    needs = frozenset({"Conv"})

    def match(self, node: ir.Node, context: Context) -> Match | Miss | None:
        first, second = (context.producer(value, "Conv") for value in node.inputs)
        conv = first if first is not None else second
        other = node.inputs[1 if conv is first else 0]
        if conv is None or other is None or conv.inputs[0] is None or context.opset(node) < 7:
            return None
        x = conv.inputs[0]
        if not _is_of(other, x, context):
            return None
        if context.producer(conv.outputs[0], reader=node) is None:
            return Miss("the result of a convolution is read elsewhere", node)
        one = _read(conv, context)
        two = _other(other, node, one, context) if isinstance(one, _Branch) else one
        if isinstance(one, str) or isinstance(two, str):
            return Miss(str(one) if isinstance(one, str) else str(two), node)
        large, small = (one, two) if one.weight.size >= two.weight.size else (two, one)
        summed = _sum(large, small)
        if isinstance(summed, str):
            return Miss(summed, node)
        weight, bias = summed
        return Match(node, build=lambda builder: [_build(builder, large, weight, bias)])


def _is_of(value: ir.Value, x: ir.Value, context: Context) -> bool:
    """Whether ``value`` is ``x``, or a Conv or BatchNormalization of it."""
    producer = context.producer(value, "Conv", "BatchNormalization")
    return value is x or (producer is not None and producer.inputs[0] is x)


class _Branch(NamedTuple):
    """A convolution; ``bias`` is None if it has none. An identity takes the node of what it is added to."""

    node: ir.Node
    weight: npt.NDArray[Any]
    bias: Floats | None
    groups: int
    strides: Sequence[int]
    dilations: Sequence[int]
    pads: Sequence[int]


def _read(node: ir.Node, context: Context) -> _Branch | str:
    tensor = context.constant(node.inputs[1])
    biases = [context.constant(value) for value in node.inputs[2:] if value is not None]
    if tensor is None or tensor.dtype not in FLOAT_TYPES or None in biases:
        return "the weight or the bias is not a constant of floats"
    if tensor.size > _MAX_ELEMENTS:
        return "the weight is large"
    if node.attributes.get_string("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        return "the padding is not written out"
    axes = len(tensor.shape) - 2
    ones, zeros = [1] * axes, [0] * (2 * axes)
    strides, dilations = (node.attributes.get_ints(name) or ones for name in ("strides", "dilations"))
    pads = node.attributes.get_ints("pads") or zeros
    bias = np.asarray(biases[0].numpy(), np.float64) if biases and biases[0] is not None else None
    return _Branch(node, tensor.numpy(), bias, node.attributes.get_int("group", 1), strides, dilations, pads)


def _other(value: ir.Value, node: ir.Node, conv: _Branch, context: Context) -> _Branch | str:
    """What is added to a convolution, as one."""
    producer = value.producer()
    if value is not conv.node.inputs[0] and context.producer(value, reader=node) is None:
        return "the result of a convolution is read elsewhere"
    if producer is not None and producer.op_type == "Conv" and value is not conv.node.inputs[0]:
        return _read(producer, context)
    if not context.shapes.is_same_shape(value, conv.node.outputs[0]):
        return "the result is not known to be of the size of what is added to it"
    outputs, inputs = conv.weight.shape[:2]
    axes = len(conv.strides)
    if any(stride != 1 for stride in conv.strides) or outputs != inputs * conv.groups:
        return "the result is not known to be of the size of what is added to it"
    scale, shift = np.ones(outputs), None
    if value is not conv.node.inputs[0]:
        assert producer is not None
        affine = batchnorm_affine(producer, context)
        if isinstance(affine, str) or len(affine[0]) != outputs:
            return affine if isinstance(affine, str) else "the channels do not fit"
        scale, shift = affine
    weight = np.zeros((outputs, inputs, *[1] * axes), np.float64)
    places = np.arange(outputs)
    weight[places, places % inputs] = scale.reshape(-1, *[1] * axes)
    return _Branch(conv.node, weight, shift, conv.groups, conv.strides, [1] * axes, [0] * (2 * axes))


def _sum(large: _Branch, small: _Branch) -> tuple[npt.NDArray[Any], npt.NDArray[Any] | None] | str:
    if large.weight.shape[:2] != small.weight.shape[:2] or large.groups != small.groups:
        return "the channels or the groups differ"
    if list(large.strides) != list(small.strides):
        return "the strides differ"
    window: list[slice] = []
    for axis, (wide, narrow) in enumerate(zip(large.weight.shape[2:], small.weight.shape[2:], strict=True)):
        step, before = large.dilations[axis], large.pads[axis] - small.pads[axis]
        after = large.pads[axis + len(large.strides)] - small.pads[axis + len(large.strides)]
        if narrow > 1 and small.dilations[axis] != step:
            return "one window does not lie on the grid of the other"
        if before < 0 or before % step or before + after != (wide - narrow) * step or before // step > wide - narrow:
            return "one window does not lie on the grid of the other"
        window.append(slice(before // step, before // step + narrow))
    kind = large.weight.dtype.newbyteorder("=")
    weight = np.asarray(large.weight, np.float64).copy()
    weight[:, :, *window] += np.asarray(small.weight, np.float64)
    biases = [one.bias for one in (large, small) if one.bias is not None]
    with np.errstate(over="ignore"):
        new, bias = weight.astype(kind), np.asarray(sum(biases)).astype(kind) if biases else None
    if not fits(large.weight, new) or (bias is not None and not np.all(np.isfinite(np.asarray(bias, np.float64)))):
        return "the new weights do not fit their type"
    return new, bias


def _build(builder: Builder, large: _Branch, weight: npt.NDArray[Any], bias: npt.NDArray[Any] | None) -> ir.Value:
    node = large.node
    old = node.inputs[1]
    inputs = [node.inputs[0], builder.constant(weight, old.name if old is not None else None)]
    if bias is not None:
        inputs.append(builder.constant(bias, f"{node.name or 'Conv'}_bias"))
    return builder.like(node, inputs)
