"""Shapes of convolutions, poolings, resizing and sampling."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from graphopt.analysis.dims import Dim, ceildiv, floordiv, minimum
from graphopt.analysis.shape_rules.call import Call, Shape, ShapeRule, TypeRule, Undetermined
from graphopt.analysis.shape_rules.elementwise import fixed, same

__all__ = ["RULES", "convolved"]


def _window(
    call: Call, extent: Dim, kernel: Dim, stride: int, dilation: int, pads: tuple[int, int], auto_pad: str, ceil: bool
) -> Dim:
    """The number of places a window can take along one axis."""
    reach = dilation * (kernel - 1) + 1
    if auto_pad.startswith("SAME"):
        # with a dilated pooling window ONNX Runtime pads for the undilated one
        return ceildiv(extent, stride)
    head, tail = (0, 0) if auto_pad == "VALID" else pads
    room = extent + head + tail - reach
    if isinstance(room, int) and room < 0:
        return call.fresh()  # the window does not fit: runtimes refuse, or round towards zero
    if not ceil:
        return floordiv(room, stride) + 1
    # a window that would start in the tail padding is dropped (onnx/onnx#5741)
    return minimum(ceildiv(room, stride) + 1, floordiv(extent + head - 1, stride) + 1)


def convolved(call: Call, extents: Shape, kernel: Shape, *, ceil: bool = False) -> Shape:
    """Spatial extents after sliding ``kernel`` over ``extents`` with the node's strides, pads and dilations."""
    rank = len(extents)
    if len(kernel) != rank:
        raise Undetermined
    strides = call.integers("strides") or (1,) * rank
    dilations = call.integers("dilations") or (1,) * rank
    pads = call.integers("pads") or (0,) * (2 * rank)
    auto_pad = call.text("auto_pad", "NOTSET")
    return tuple(
        [
            _window(call, extents[i], kernel[i], strides[i], dilations[i], (pads[i], pads[i + rank]), auto_pad, ceil)
            for i in range(rank)
        ]
    )


def _kernel(call: Call, weight: Shape) -> Shape:
    return call.integers("kernel_shape") or weight[2:]


def _conv_of(data: int, weight: int) -> ShapeRule:
    def rule(call: Call) -> Shape:
        x, w = call.shape(data), call.shape(weight)
        return (x[0], w[0], *convolved(call, x[2:], _kernel(call, w)))

    return rule


def _deform_conv(call: Call) -> Shape:
    x, w, offset = call.shape(0), call.shape(1), call.shape(2)
    return (x[0], w[0], *offset[2:])


def _conv_transpose(call: Call) -> Shape:
    x, w = call.shape(0), call.shape(1)
    rank = len(x) - 2
    channels = w[1] * call.integer("group", 1)
    wanted = call.integers("output_shape")
    if wanted is not None:
        return (x[0], channels, *wanted[-rank:])
    kernel = _kernel(call, w)
    strides = call.integers("strides") or (1,) * rank
    dilations = call.integers("dilations") or (1,) * rank
    extra = call.integers("output_padding") or (0,) * rank
    pads = call.integers("pads") or (0,) * (2 * rank)
    auto_pad = call.text("auto_pad", "NOTSET")
    dims: list[Dim] = [x[0], channels]
    for i in range(rank):
        reach = (kernel[i] - 1) * dilations[i] + 1
        whole = strides[i] * (x[2 + i] - 1) + extra[i] + reach
        if auto_pad.startswith("SAME"):
            exact = isinstance(reach, int) and reach + extra[i] >= strides[i]
            dims.append(x[2 + i] * strides[i] if exact else call.fresh())
        else:
            dims.append(whole if auto_pad == "VALID" else whole - pads[i] - pads[i + rank])
    return tuple(dims)


def _pool(call: Call) -> list[Shape | None]:
    x = call.shape(0)
    kernel = call.integers("kernel_shape")
    if kernel is None:
        raise Undetermined
    dilated = any(dilation != 1 for dilation in call.integers("dilations") or ())
    if dilated and call.text("auto_pad", "NOTSET").startswith("SAME"):
        shape = (*x[:2], *[call.fresh() for _ in x[2:]])
    else:
        shape = (*x[:2], *convolved(call, x[2:], kernel, ceil=call.integer("ceil_mode", 0) == 1))
    return [shape] * len(call.node.outputs)


def _pool_type(call: Call) -> list[ir.DataType | None]:
    return [call.dtype(0), ir.DataType.INT64]


def _global_pool(call: Call) -> Shape:
    x = call.shape(0)
    return (*x[:2], *[1] * (len(x) - 2))


def _scaled(call: Call, extent: Dim, scale: float) -> Dim:
    if scale == 1.0:
        return extent
    if isinstance(extent, int):
        # the runtime multiplies in single precision; where that could matter, do not say
        rough = math.floor(float(np.float32(extent) * np.float32(scale)))
        exact = math.floor(extent * float(np.float32(scale)))
        return exact if rough == exact else call.fresh()
    if scale == math.floor(scale):
        return extent * int(scale)
    inverse = 1.0 / scale
    if inverse in (2.0, 4.0, 8.0, 16.0, 32.0, 64.0):
        return floordiv(extent, int(inverse))
    return call.fresh()


def _rescaled(call: Call, dims: Shape, axes: Sequence[int], scales: Sequence[float]) -> Shape:
    result = list(dims)
    for axis, scale in zip(axes, scales, strict=True):
        result[axis] = _scaled(call, dims[axis], scale)
    return tuple(result)


def _resize(call: Call) -> Shape:
    x = call.shape(0)
    scales_at = 1 if len(call.node.inputs) == 2 else 2  # opset 10 has no region of interest
    axes = call.integers("axes")
    axes = tuple(range(len(x))) if axes is None else tuple([axis % len(x) for axis in axes])
    sizes = call.data(3)
    if call.has(3) and call.maybe_shape(3) != (0,):
        if sizes is None or call.text("keep_aspect_ratio_policy", "stretch") != "stretch":
            return tuple([call.fresh() if axis in axes else dim for axis, dim in enumerate(x)])
        dims = list(x)
        for axis, size in zip(axes, sizes, strict=True):
            dims[axis] = size
        return tuple(dims)
    scales = call.array(scales_at)
    cropped = call.text("coordinate_transformation_mode", "half_pixel") == "tf_crop_and_resize"
    if scales is None or scales.size != len(axes) or cropped:
        return tuple([call.fresh() if axis in axes else dim for axis, dim in enumerate(x)])
    return _rescaled(call, x, axes, [float(scale) for scale in scales])


def _upsample(call: Call) -> Shape:
    x = call.shape(0)
    scales = call.attr("scales")
    if scales is None:
        constant = call.array(1)
        scales = None if constant is None else constant.tolist()
    if scales is None or len(scales) != len(x):
        return tuple([call.fresh() for _ in x])
    return _rescaled(call, x, range(len(x)), scales)


def _grid_sample(call: Call) -> Shape:
    x, grid = call.shape(0), call.shape(1)
    return (*x[:2], *grid[1:-1])


def _affine_grid(call: Call) -> Shape:
    size = call.data(1)
    if size is None:
        raise Undetermined
    return (size[0], *size[2:], len(size) - 2)


def _roi_align(call: Call) -> Shape:
    x, rois = call.shape(0), call.shape(1)
    return rois[0], x[1], call.integer("output_height", 1), call.integer("output_width", 1)


def _max_roi_pool(call: Call) -> Shape:
    x, rois = call.shape(0), call.shape(1)
    return (rois[0], x[1], *(call.integers("pooled_shape") or ()))


def _boxes(call: Call) -> Shape:
    return call.fresh(), 3


RULES: dict[str, tuple[TypeRule, ShapeRule]] = {
    "AffineGrid": (same(0), _affine_grid),
    "AveragePool": (same(0), _pool),
    "Conv": (same(0), _conv_of(0, 1)),
    "ConvInteger": (fixed(ir.DataType.INT32), _conv_of(0, 1)),
    "ConvTranspose": (same(0), _conv_transpose),
    "DeformConv": (same(0), _deform_conv),
    "GlobalAveragePool": (same(0), _global_pool),
    "GlobalLpPool": (same(0), _global_pool),
    "GlobalMaxPool": (same(0), _global_pool),
    "GridSample": (same(0), _grid_sample),
    "LpPool": (same(0), _pool),
    "MaxPool": (_pool_type, _pool),
    "MaxRoiPool": (same(0), _max_roi_pool),
    "NonMaxSuppression": (fixed(ir.DataType.INT64), _boxes),
    "QLinearConv": (same(7), _conv_of(0, 3)),
    "Resize": (same(0), _resize),
    "RoiAlign": (same(0), _roi_align),
    "Upsample": (same(0), _upsample),
}
