"""Convolutions (ONNX: Conv, ConvTranspose; com.microsoft: FusedConv)."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from graphopt.torch.node import OpNode
from graphopt.torch.registry import builds

__all__ = ["convolve", "padded", "same_pads"]

_CONV: tuple[Callable[..., Tensor], ...] = (F.conv1d, F.conv2d, F.conv3d)
_TRANSPOSED: tuple[Callable[..., Tensor], ...] = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)


def same_pads(
    sizes: Sequence[int], kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int], *, upper: bool
) -> list[int]:
    """Pads ``begin... end...`` with which the output has ``ceil(size / stride)`` places (auto_pad SAME_*)."""
    begins, ends = [], []
    for size, width, stride, dilation in zip(sizes, kernel, strides, dilations, strict=True):
        places = -(-size // stride)
        total = max(0, (places - 1) * stride + (width - 1) * dilation + 1 - size)
        small, large = total // 2, total - total // 2
        begins.append(small if upper else large)
        ends.append(large if upper else small)
    return [*begins, *ends]


def padded(x: Tensor, pads: Sequence[int], value: float = 0.0) -> Tensor:
    """``x`` with its last dimensions padded by ``begin... end...``."""
    if not any(pads):
        return x
    half = len(pads) // 2
    flat = [pads[axis + half * end] for axis in reversed(range(half)) for end in (0, 1)]
    return F.pad(x, flat, value=value)


def convolve(
    x: Tensor,
    w: Tensor,
    b: Tensor | None,
    *,
    strides: Sequence[int],
    dilations: Sequence[int],
    pads: Sequence[int],
    group: int,
    auto_pad: str,
) -> Tensor:
    """A convolution over however many spatial axes ``w`` has; empty attributes take ONNX's defaults."""
    rank = w.ndim - 2
    strides, dilations = strides or [1] * rank, dilations or [1] * rank
    if auto_pad.startswith("SAME"):
        pads = same_pads(x.shape[2:], w.shape[2:], strides, dilations, upper=auto_pad == "SAME_UPPER")
    elif auto_pad == "VALID" or not pads:
        pads = [0] * (2 * rank)
    begins, ends = tuple(pads[:rank]), tuple(pads[rank:])
    if begins != ends or any(pad < 0 for pad in begins):
        x, begins = padded(x, pads), (0,) * rank
    return _CONV[rank - 1](x, w, b, tuple(strides), begins, tuple(dilations), group)


def _settings(node: OpNode) -> dict[str, Any]:
    return {
        "strides": node.attribute("strides", ()),
        "dilations": node.attribute("dilations", ()),
        "pads": node.attribute("pads", ()),
        "group": node.attribute("group", 1),
        "auto_pad": node.attribute("auto_pad", "NOTSET"),
    }


@builds("Conv")
def conv(node: OpNode) -> Callable[..., Tensor]:
    settings = _settings(node)
    pads, rank = settings["pads"], len(settings["pads"]) // 2
    if settings["auto_pad"] == "NOTSET" and rank in (1, 2, 3) and pads[:rank] == pads[rank:] and min(pads) >= 0:
        return functools.partial(
            _plain,
            inner=_CONV[rank - 1],
            stride=settings["strides"] or (1,) * rank,
            padding=pads[:rank],
            dilation=settings["dilations"] or (1,) * rank,
            groups=settings["group"],
        )
    return functools.partial(_conv, **settings)


def _plain(x: Tensor, w: Tensor, b: Tensor | None = None, *, inner: Callable[..., Tensor], **settings: Any) -> Tensor:
    return inner(x, w, b, **settings)


def _conv(x: Tensor, w: Tensor, b: Tensor | None = None, **settings: Any) -> Tensor:
    return convolve(x, w, b, **settings)


@builds("ConvTranspose")
def conv_transpose(node: OpNode) -> Callable[..., Tensor]:
    settings = _settings(node)
    settings["output_padding"] = node.attribute("output_padding", ())
    settings["output_shape"] = node.attribute("output_shape", ())
    return functools.partial(_conv_transpose, **settings)


def _conv_transpose(
    x: Tensor,
    w: Tensor,
    b: Tensor | None = None,
    *,
    strides: Sequence[int],
    dilations: Sequence[int],
    pads: Sequence[int],
    group: int,
    auto_pad: str,
    output_padding: Sequence[int],
    output_shape: Sequence[int],
) -> Tensor:
    rank = w.ndim - 2
    strides, dilations = strides or [1] * rank, dilations or [1] * rank
    extra = list(output_padding or [0] * rank)
    pads = list(pads or [0] * (2 * rank))
    if output_shape or auto_pad.startswith("SAME"):
        wanted = output_shape[-rank:] if output_shape else [n * s for n, s in zip(x.shape[2:], strides, strict=True)]
        for axis in range(rank):
            full = strides[axis] * (x.shape[2 + axis] - 1) + extra[axis] + (w.shape[2 + axis] - 1) * dilations[axis] + 1
            total = full - wanted[axis]
            if total < 0:
                extra[axis] -= total
                total = 0
            small = total // 2
            pads[axis] = small if auto_pad == "SAME_UPPER" else total - small
            pads[axis + rank] = total - pads[axis]
    begins, ends = pads[:rank], pads[rank:]
    function = _TRANSPOSED[rank - 1]
    if begins == ends and min(begins) >= 0 and all(e < max(s, d) for e, s, d in zip(extra, strides, dilations)):  # noqa: B905
        return function(x, w, b, tuple(strides), tuple(begins), tuple(extra), group, tuple(dilations))
    y = function(x, w, None, tuple(strides), 0, 0, group, tuple(dilations))
    y = padded(y, [0] * rank + extra)
    y = padded(y, [-pad for pad in pads])
    return y if b is None else y + b.reshape(-1, *[1] * rank)


@builds("FusedConv", domain="com.microsoft")
def fused_conv(node: OpNode) -> Callable[..., Tensor]:
    activation = node.attribute("activation", "")
    if activation not in _ACTIVATIONS:
        raise node.refuse(f"the activation '{activation}' is not known")
    return functools.partial(
        _fused, inner=conv(node), activation=activation, parameters=node.attribute("activation_params", ())
    )


def _fused(
    x: Tensor,
    w: Tensor,
    b: Tensor | None = None,
    z: Tensor | None = None,
    *,
    inner: Callable[..., Tensor],
    activation: str,
    parameters: Sequence[float],
) -> Tensor:
    y = inner(x, w, b)
    return _ACTIVATIONS[activation](y if z is None else y + z, *parameters)


def _hard_sigmoid(x: Tensor, alpha: float = 0.2, beta: float = 0.5) -> Tensor:
    return torch.clamp(x * alpha + beta, 0, 1)


_ACTIVATIONS: dict[str, Callable[..., Tensor]] = {
    "": lambda x: x,
    "Relu": torch.relu,
    "Tanh": torch.tanh,
    "Sigmoid": torch.sigmoid,
    "LeakyRelu": F.leaky_relu,
    "Clip": torch.clamp,
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": F.hardswish,
}
