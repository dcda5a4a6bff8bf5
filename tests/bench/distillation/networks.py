"""Networks that teach and learn: VGG-16, the three convolutions of the classic case, and the same with two heads."""

from __future__ import annotations

import collections
from typing import Final

from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - as everybody writes it

__all__ = ["Heads", "Student", "Vgg16"]

_VGG16: Final = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))
"""Channels and convolutions of each block; a pooling follows it."""

_PADDING: Final = 2  # 28x28 to 32x32, which five poolings halve to 1x1


class Vgg16(nn.Module):
    """VGG-16's 13 convolutions with batch normalizations, for 28x28 images, and one dense layer.

    Source: Simonyan, Zisserman, arXiv 1409.1556, configuration D; the two dense layers of 4,096 are left out, as usual
    for small images.

    Args:
        width: What the numbers of channels are multiplied by.
        background: What images are padded with to 32x32.
    """

    def __init__(self, width: float = 1.0, background: float = 0.0, classes: int = 10) -> None:
        super().__init__()
        self.background = background
        blocks: collections.OrderedDict[str, nn.Module] = collections.OrderedDict()
        inputs = 1
        for number, (channels, depth) in enumerate(_VGG16, 1):
            layers: list[nn.Module] = []
            for _ in range(depth):
                outputs = round(channels * width)
                layers += [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
                inputs = outputs
            blocks[f"block{number}"] = nn.Sequential(*layers, nn.MaxPool2d(2))
        self.blocks = nn.Sequential(blocks)
        self.head = nn.Linear(inputs, classes)

    def forward(self, images: Tensor) -> Tensor:
        padded = F.pad(images, [_PADDING] * 4, value=self.background)
        logits: Tensor = self.head(self.blocks(padded).flatten(1))
        return logits


class Student(nn.Module):
    """Three convolutions that halve the image each (28x28 to 4x4), and one dense layer."""

    def __init__(self, channels: tuple[int, int, int] = (32, 64, 128), classes: int = 10) -> None:
        super().__init__()
        first, second, third = channels
        self.layer1 = _layer(1, first, 5)
        self.layer2 = _layer(first, second, 3)
        self.layer3 = _layer(second, third, 3)
        self.head = nn.Linear(third * 16, classes)

    def forward(self, images: Tensor) -> Tensor:
        features = self.layer3(self.layer2(self.layer1(images)))
        logits: Tensor = self.head(features.flatten(1))
        return logits


class Heads(nn.Module):
    """The same with small layers and a head for each task: the digit, and whether it is odd.

    Args:
        tasks: Classes of each task.
    """

    def __init__(self, channels: tuple[int, int, int], tasks: tuple[int, ...] = (10, 2)) -> None:
        super().__init__()
        first, second, third = channels
        self.body = nn.Sequential(_layer(1, first, 5), _layer(first, second, 3), _layer(second, third, 3))
        self.heads = nn.ModuleList(nn.Linear(third * 16, classes) for classes in tasks)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        features = self.body(images).flatten(1)
        return tuple(head(features) for head in self.heads)


def _layer(inputs: int, outputs: int, size: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(inputs, outputs, size, 2, size // 2, bias=False), nn.BatchNorm2d(outputs), nn.ReLU())
