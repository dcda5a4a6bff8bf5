"""Folds padding into the convolution or pooling after it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import onnx_ir as ir

from graphopt.pipeline.base import Context, RulePass, Safety
from graphopt.rewrite.builder import Builder
from graphopt.rewrite.match import Match, Miss

__all__ = ["FusePadConv"]

_NOT_NEGATIVE: Final = ("Relu", "Sigmoid", "HardSigmoid", "Abs", "Exp", "Softplus", "Softmax")


@dataclasses.dataclass(frozen=True)
class FusePadConv(RulePass):
    """Folds a Pad into the ``pads`` of the Conv, AveragePool or MaxPool after it.

    What it does:
        The node reads what the Pad reads, and pads itself. An AveragePool then counts its padding, as it did when the
        zeros were ordinary elements. A MaxPool pads with nothing that counts: with the lowest number, or with zeros
        where all there is comes from a Relu or the like. The Pad stays for its other readers, if it has any.

    Before:
        ``p = Pad(x, pads); y = Conv<pads = a>(p, W)``

    After:
        ``y = Conv<pads = a + pads>(x, W)``

    Does not apply when:
        - the Pad fills with anything but zeros (before a MaxPool of what may be negative, with anything but the lowest
          number), its pads are not constant, or one is negative;
        - it pads the batch or the channels;
        - the node pads to keep the size (``auto_pad``);
        - the pooling rounds its size up, would pad by as much as its window, or leaves padding of its own out of the
          average;
        - the MaxPool has dilations, or says where it found the largest.

    Safety:
        Numeric: runtimes may pick another kernel for another padding.
    """

    name = "fuse-pad-conv"
    safety = Safety.NUMERIC
    ops = ("Conv", "AveragePool", "MaxPool")
    reach = 2
    needs = frozenset({"Pad"})

    def match(self, node: ir.Node, context: Context) -> Match | Miss | None:
        pad = context.producer(node.inputs[0], "Pad")
        if pad is None:
            return None
        padding = _padding(pad, node, context)
        if isinstance(padding, str):
            return Miss(padding, node)
        rank = len(padding) // 2
        spatial = [*padding[2:rank], *padding[rank + 2 :]]
        if any(padding[axis] for axis in (0, 1, rank, rank + 1)):
            return Miss("the Pad pads the batch or the channels", node)
        if not any(spatial):
            return None
        attributes = _padded(node, spatial, context)
        if isinstance(attributes, str):
            return Miss(attributes, node)

        def build(builder: Builder) -> list[ir.Value | None]:
            return [builder.like(node, [pad.inputs[0], *node.inputs[1:]], attributes)]

        return Match(node, build=build)


def _padding(pad: ir.Node, node: ir.Node, context: Context) -> list[int] | str:
    """Zeros added before each axis, then after each axis; or why they are not known, or not zeros."""
    opset = context.opset(pad)
    if opset < 2:
        return "the Pad is older than opset 2"
    if pad.attributes.get_string("mode", "constant") != "constant":
        return "the Pad does not fill with a constant"
    optional = [*pad.inputs[2:], None, None]
    if opset < 11:
        pads: Sequence[int] | None = pad.attributes.get_ints("pads")
        fill: float | None = pad.attributes.get_float("value", 0.0)
    else:
        pads = context.ints(pad.inputs[1])
        fill = 0.0 if optional[0] is None else context.scalar(optional[0])
    if not _counts_for_nothing(fill, pad, node, context):
        return "the Pad fills with what counts"
    if pads is None:
        return "the pads are not constant"
    if any(size < 0 for size in pads):
        return "the Pad cuts elements off"
    if opset < 18 or optional[1] is None:
        return list(pads)
    return _on_all_axes(pads, context.ints(optional[1]), _rank(node, pad, context))


def _counts_for_nothing(fill: float | None, pad: ir.Node, node: ir.Node, context: Context) -> bool:
    """Whether the node pads with what counts as much as ``fill``."""
    if node.op_type != "MaxPool":
        return fill == 0
    if fill is None or fill == -np.inf:
        return fill is not None
    source = context.producer(pad.inputs[0], *_NOT_NEGATIVE, "Clip")
    if fill != 0 or source is None or source.op_type in _NOT_NEGATIVE:
        return fill == 0 and source is not None
    low = source.attributes.get("min") if context.opset(source) < 11 else None
    bound = low.as_float() if low is not None else context.scalar(source.inputs[1] if source.inputs[1:] else None)
    return bound is not None and bound >= 0


def _rank(node: ir.Node, pad: ir.Node, context: Context) -> int | None:
    kernel = node.attributes.get_ints("kernel_shape")
    if kernel:
        return len(kernel) + 2
    return context.shapes.rank(pad.inputs[0]) if pad.inputs[0] is not None else None


def _on_all_axes(pads: Sequence[int], axes: Sequence[int] | None, rank: int | None) -> list[int] | str:
    if not axes or not rank or len(pads) != 2 * len(axes):
        return "the padded axes are not known"
    full = [0] * (2 * rank)
    for position, axis in enumerate(axes):
        full[axis % rank] += pads[position]
        full[rank + axis % rank] += pads[len(axes) + position]
    return full


def _padded(node: ir.Node, spatial: Sequence[int], context: Context) -> dict[str, Any] | str:
    """The attributes with which ``node`` pads by ``spatial`` itself; or why it cannot."""
    auto_pad = node.attributes.get_string("auto_pad", "NOTSET")
    if auto_pad not in ("NOTSET", "VALID"):
        return "the node pads to keep the size"
    own = node.attributes.get_ints("pads") if auto_pad == "NOTSET" else None
    own = own or [0] * len(spatial)
    if len(own) != len(spatial):
        return "the pads of the two differ in rank"
    pads = [before + added for before, added in zip(own, spatial, strict=True)]
    attributes: dict[str, Any] = {"pads": pads, "auto_pad": None}
    if node.op_type == "Conv":
        return attributes
    if node.attributes.get_int("ceil_mode", 0):
        return "the pooling rounds its size up"
    if node.op_type == "AveragePool" and context.opset(node) < 7:
        return "AveragePool cannot count its padding before opset 7"
    if node.op_type == "AveragePool" and any(own) and not node.attributes.get_int("count_include_pad", 0):
        return "the AveragePool leaves its own padding out"
    if len(node.outputs) > 1 or any(step != 1 for step in node.attributes.get_ints("dilations", ())):
        return "the pooling has dilations, or says where it found the largest"
    window = node.attributes.get_ints("kernel_shape") or ()
    if len(pads) != 2 * len(window) or any(size >= limit for size, limit in zip(pads, [*window, *window], strict=True)):
        return "the padding is as large as the window"
    return {**attributes, "count_include_pad": 1} if node.op_type == "AveragePool" else attributes
