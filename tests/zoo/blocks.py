"""Small modules and example inputs that several entries of the zoo are made of."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

__all__ = [
    "BATCH",
    "Branches",
    "ConvNormAct",
    "Residual",
    "SqueezeExcite",
    "examples",
    "pooled_linear",
    "scaled",
]

BATCH = {"x": {0: "N"}}
"""The dynamic axes of most entries."""


def scaled(width: float, *sizes: int) -> tuple[int, ...]:
    """The sizes at a width; raises ValueError if one does not come out whole."""
    result = tuple(int(size * width) for size in sizes)
    if any(size * width != whole for size, whole in zip(sizes, result, strict=True)):
        raise ValueError(f"{sizes} times {width} are not whole numbers")
    return result


def examples(*shapes: tuple[int, ...]) -> Callable[[], list[Tensor]]:
    """Makes seeded inputs of these shapes, the batch included."""

    def make() -> list[Tensor]:
        generator = torch.Generator().manual_seed(7)
        return [torch.randn(shape, generator=generator) for shape in shapes]

    return make


class ConvNormAct(nn.Sequential):
    """A convolution that pads to keep the size, a normalization, an activation."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int = 3,
        stride: int = 1,
        groups: int = 1,
        dilation: int = 1,
        norm: Callable[[int], nn.Module] = nn.BatchNorm2d,
        act: Callable[[], nn.Module] = nn.ReLU,
    ) -> None:
        padding = (kernel - 1) // 2 * dilation
        conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, dilation, groups, bias=False)
        super().__init__(conv, norm(outputs), act())


class Residual(nn.Module):
    """An activation of the sum of a body and a shortcut."""

    def __init__(self, body: nn.Module, shortcut: nn.Module | None = None, act: nn.Module | None = None) -> None:
        super().__init__()
        self.body = body
        self.shortcut = shortcut or nn.Identity()
        self.act = act or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.act(self.body(x) + self.shortcut(x))
        return y


class Branches(nn.Module):
    """What several modules make of one input, concatenated along channels."""

    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.branches], 1)


class SqueezeExcite(nn.Module):
    """Channels scaled by gates computed from their means with two 1x1 convolutions."""

    def __init__(
        self,
        channels: int,
        squeezed: int,
        act: Callable[[], nn.Module] = nn.ReLU,
        gate: Callable[[], nn.Module] = nn.Sigmoid,
    ) -> None:
        super().__init__()
        self.gates = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, squeezed, 1), act(), nn.Conv2d(squeezed, channels, 1), gate()
        )

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x * self.gates(x)
        return y


def pooled_linear(channels: int, outputs: int = 10) -> nn.Sequential:
    """A classifier on the mean over the image."""
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, outputs))
