"""A convolutional network and a transformer written by hand, the latter in single operators or in pieces."""

from __future__ import annotations

import contextlib
import io
import logging
import math
import warnings
from collections.abc import Callable
from typing import Any

import onnx
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

__all__ = ["Encoder", "MeansNorm", "ResNet", "export", "gelu_of_erf", "gelu_of_tanh", "softmax_attention"]


def gelu_of_erf(x: Tensor) -> Tensor:
    """Gelu as exporters without the operator spell it."""
    return 0.5 * x * (1 + torch.erf(x / math.sqrt(2)))


def gelu_of_tanh(x: Tensor) -> Tensor:
    """The approximation that GPT-2 uses."""
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


class MeansNorm(nn.LayerNorm):
    """A layer normalization out of means."""

    def forward(self, x: Tensor) -> Tensor:
        """``(..., size)`` to the same."""
        centred = x - x.mean(-1, keepdim=True)
        spread = centred.pow(2).mean(-1, keepdim=True)
        return centred / torch.sqrt(spread + self.eps) * self.weight + self.bias


def softmax_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention out of products and a Softmax."""
    return torch.softmax(q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1]), -1) @ v


Attend = Callable[[Tensor, Tensor, Tensor], Tensor]


class _Layer(nn.Module):
    def __init__(
        self,
        width: int,
        heads: int,
        gelu: Callable[[Tensor], Tensor],
        norm: Callable[[int], nn.Module],
        attention: Attend,
    ) -> None:
        super().__init__()
        self.gelu, self.attention, self.heads = gelu, attention, heads
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.wide, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.first, self.second = norm(width), norm(width)

    def forward(self, x: Tensor) -> Tensor:
        apart = (*x.shape[:2], self.heads, x.shape[2] // self.heads)
        q, k, v = (one(x).reshape(apart).transpose(1, 2) for one in (self.query, self.key, self.value))
        x = self.first(x + self.out(self.attention(q, k, v).transpose(1, 2).reshape(x.shape)))
        made: Tensor = self.second(x + self.narrow(self.gelu(self.wide(x))))
        return made


class Encoder(nn.Sequential):
    """BERT's layers, ``(batch, length, width)`` to the same.

    Args:
        gelu: The activation.
        norm: The normalization of a width.
        attention: Of queries, keys and values ``(batch, heads, length, size)``.
    """

    def __init__(
        self,
        gelu: Callable[[Tensor], Tensor] = F.gelu,
        norm: Callable[[int], nn.Module] = nn.LayerNorm,
        attention: Attend = F.scaled_dot_product_attention,
        *,
        width: int = 256,
        heads: int = 4,
        layers: int = 4,
    ) -> None:
        super().__init__(*(_Layer(width, heads, gelu, norm, attention) for _ in range(layers)))


class _Block(nn.Module):
    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.main = nn.Sequential(
            nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU(),
            nn.Conv2d(after, after, 3, 1, 1, bias=False), nn.BatchNorm2d(after),
        )  # fmt: skip
        same = stride == 1 and before == after
        self.side = (
            nn.Identity()
            if same
            else nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.main(x) + self.side(x))


class ResNet(nn.Sequential):
    """A ResNet-18 for ``(batch, 3, 64, 64)``, at half its width."""

    def __init__(self) -> None:
        sizes = [(32, 32, 1), (32, 32, 1), (32, 64, 2), (64, 64, 1), (64, 128, 2), (128, 128, 1)]
        sizes += [(128, 256, 2), (256, 256, 1)]
        super().__init__(
            nn.Conv2d(3, 32, 3, 1, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU(),
            *(_Block(*size) for size in sizes), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(256, 10),
        )  # fmt: skip


def export(network: nn.Module, x: Tensor, *, exporter: str = "dynamo", opset: int = 23) -> onnx.ModelProto:
    """The network in ONNX, its batch normalizations as they are; the batch is dynamic."""
    options: dict[str, Any] = {"opset_version": opset, "input_names": ["x"]}
    if exporter == "dynamo":
        options |= {"dynamo": True, "dynamic_shapes": ({0: "N"},), "optimize": False, "verbose": False}
    else:
        keep = torch.onnx.TrainingMode.PRESERVE
        options |= {"dynamo": False, "dynamic_axes": {"x": {0: "N"}}, "training": keep, "do_constant_folding": False}
    stream: Any = io.BytesIO()
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), torch.no_grad():
            warnings.simplefilter("ignore")
            made = torch.onnx.export(network.eval(), (x,), None if exporter == "dynamo" else stream, **options)
    finally:
        logging.disable(level)
    if made is not None and exporter == "dynamo":
        proto: onnx.ModelProto = made.model_proto
        return proto
    return onnx.load_from_string(stream.getvalue())
