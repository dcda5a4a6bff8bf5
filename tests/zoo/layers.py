"""Small modules and inputs that several files of the zoo share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["HEAD_DIM", "VOCABULARY", "Block", "Head", "Mlp", "Patches", "floats", "scaled", "tokens"]

HEAD_DIM = 8
VOCABULARY = 50


def scaled(size: int, width: float) -> int:
    """A prunable size at a width."""
    return round(size * width)


def floats(*shapes: Sequence[int]) -> Callable[[], tuple[Tensor, ...]]:
    """Makes one normal input a shape."""
    return lambda: tuple(torch.randn(*shape) for shape in shapes)


def tokens(*shapes: Sequence[int]) -> Callable[[], tuple[Tensor, ...]]:
    """Makes one input of token numbers a shape."""
    return lambda: tuple(torch.randint(0, VOCABULARY, tuple(shape)) for shape in shapes)


class Mlp(nn.Module):
    """Linear, GELU, Linear."""

    def __init__(self, size: int, hidden: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(size, hidden), nn.Linear(hidden, size)

    def forward(self, x: Tensor) -> Any:
        return self.fc2(nn.functional.gelu(self.fc1(x)))


class Block(nn.Module):
    """Two branches, each normalized first and added to the residual stream: attention and an MLP, mostly."""

    def __init__(self, size: int, mixer: nn.Module, mlp: nn.Module, norm: Callable[[int], nn.Module] = nn.LayerNorm):
        super().__init__()
        self.norm1, self.mixer, self.norm2, self.mlp = norm(size), mixer, norm(size), mlp

    def forward(self, x: Tensor) -> Any:
        x = x + self.mixer(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Patches(nn.Module):
    """Image to tokens ``[N, S, size]`` with learned positions."""

    def __init__(self, size: int, patch: int = 4, image: int = 16) -> None:
        super().__init__()
        self.projection = nn.Conv2d(3, size, patch, patch)
        self.positions = nn.Parameter(torch.zeros(1, (image // patch) ** 2, size))

    def forward(self, x: Tensor) -> Any:
        return self.projection(x).flatten(2).transpose(1, 2) + self.positions


class Head(nn.Module):
    """Normalized tokens, averaged and classified."""

    def __init__(self, size: int, classes: int = 10) -> None:
        super().__init__()
        self.norm, self.classifier = nn.LayerNorm(size), nn.Linear(size, classes)

    def forward(self, x: Tensor) -> Any:
        return self.classifier(self.norm(x).mean(1))
