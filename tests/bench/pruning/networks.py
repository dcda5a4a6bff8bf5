"""The networks that the scoreboard prunes: small for their tasks, so that nothing can be taken away for free."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import torch
from torch import Tensor, nn

__all__ = ["NETWORKS"]


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions, normalized, around a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if (inputs, stride) != (outputs, 1):
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.norm1(self.conv1(x)))
        return torch.relu(self.norm2(self.conv2(y)) + self.shortcut(x))


class ResNet8(nn.Module):
    """A stem and three residual blocks of 16, 32 and 64 channels: 78 thousand parameters."""

    def __init__(self, stride: int = 1, classes: int = 10) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 16, 3, stride, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
        self.stages = nn.Sequential(ResidualBlock(16, 16, 1), ResidualBlock(16, 32, 2), ResidualBlock(32, 64, 2))
        self.head = nn.Linear(64, classes)

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = self.stages(self.stem(x)).mean((2, 3))
        logits: Tensor = self.head(features)
        return logits


class LeNet5(nn.Module):
    """Two 5x5 convolutions and three dense layers, for 28x28 images: 62 thousand parameters."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2)
        )
        self.classifier = nn.Sequential(
            nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, classes)
        )

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.features(x).flatten(1))
        return logits


class Attention(nn.Module):
    """Self-attention of several heads; padded tokens are not attended to."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.size = heads, width // heads
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.output = nn.Linear(width, width)

    def forward(self, x: Tensor, padded: Tensor) -> Tensor:
        q, k, v = (self._parted(layer(x)) for layer in (self.query, self.key, self.value))
        scores = q @ k.transpose(-1, -2) * self.size**-0.5
        weights = scores.masked_fill(padded, -1e4).softmax(-1)
        mixed: Tensor = self.output((weights @ v).transpose(1, 2).flatten(2))
        return mixed

    def _parted(self, x: Tensor) -> Tensor:
        return x.reshape(x.shape[0], x.shape[1], self.heads, self.size).transpose(1, 2)


class Layer(nn.Module):
    """Attention and a feed-forward network, each after a LayerNorm and around a shortcut."""

    def __init__(self, width: int, heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.feed_forward = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, padded: Tensor) -> Tensor:
        x = x + self.dropout(self.attention(self.norm1(x), padded))
        y: Tensor = self.dropout(self.feed_forward(self.norm2(x)))
        return x + y


class TextClassifier(nn.Module):
    """A transformer encoder over token ids, of which 0 pads; the class from the mean over the others."""

    def __init__(self, vocabulary: int = 4096, length: int = 128, layers: int = 4) -> None:
        super().__init__()
        width, heads, hidden, dropout = 128, 4, 512, 0.1
        self.tokens = nn.Embedding(vocabulary, width)
        self.positions = nn.Parameter(torch.randn(length, width) * 0.02)
        nn.init.normal_(self.tokens.weight, std=0.02)
        self.dropout = nn.Dropout(dropout)
        self.layers = nn.ModuleList(Layer(width, heads, hidden, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 2)

    def forward(self, ids: Tensor) -> Tensor:
        padded = ids == 0
        x = self.dropout(self.tokens(ids) + self.positions)
        for layer in self.layers:
            x = layer(x, padded[:, None, None, :])
        there = (~padded).to(x.dtype)[..., None]
        pooled = (self.norm(x) * there).sum(1) / there.sum(1).clamp(min=1)
        logits: Tensor = self.head(pooled)
        return logits


NETWORKS: Final[Mapping[str, Callable[[], nn.Module]]] = {
    "lenet5": LeNet5,
    "resnet8": ResNet8,
    "resnet8-strided": lambda: ResNet8(stride=2),
    "transformer": TextClassifier,
}
