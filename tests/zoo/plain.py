"""Chains of convolutions and linear layers: flattening, sharing, several inputs and outputs, 1d and 3d, generators."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from zoo.architecture import Architecture
from zoo.blocks import BATCH, ConvNormAct, Residual, examples, pooled_linear, scaled

__all__ = ["ARCHITECTURES"]

_IMAGE = examples((2, 3, 16, 16))


def _conv_chain(width: float) -> nn.Module:
    a, b, c = scaled(width, 16, 32, 16)
    return nn.Sequential(ConvNormAct(3, a), ConvNormAct(a, b, stride=2), ConvNormAct(b, c), pooled_linear(c))


def _vgg(width: float) -> nn.Module:
    a, b, c = scaled(width, 8, 16, 32)

    def stage(inputs: int, outputs: int) -> list[nn.Module]:
        first, second = nn.Conv2d(inputs, outputs, 3, padding=1), nn.Conv2d(outputs, outputs, 3, padding=1)
        return [first, nn.ReLU(), second, nn.ReLU(), nn.MaxPool2d(2)]

    head = [nn.Flatten(), nn.Linear(b * 16, c), nn.ReLU(), nn.Dropout(), nn.Linear(c, 10)]
    return nn.Sequential(*stage(3, a), *stage(a, b), *head)


def _conv1d(width: float) -> nn.Module:
    a, b = scaled(width, 16, 32)
    return nn.Sequential(
        nn.Conv1d(4, a, 5, padding=2),
        nn.BatchNorm1d(a),
        nn.ReLU(),
        nn.MaxPool1d(2),
        nn.Conv1d(a, b, 3, padding=1),
        nn.LeakyReLU(0.1),
        nn.Flatten(),
        nn.Linear(b * 8, 5),
    )


class _Chomp(nn.Module):
    """Cuts off the end, which saw the future."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :, : -self.size]


class _LastStep(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x[:, :, -1]


def _tcn(width: float) -> nn.Module:
    a, b = scaled(width, 16, 24)

    def block(inputs: int, outputs: int, dilation: int) -> nn.Module:
        padding = 2 * dilation
        layers: list[nn.Module] = []
        for channels in (inputs, outputs):
            conv = nn.Conv1d(channels, outputs, 3, padding=padding, dilation=dilation)
            layers += [conv, _Chomp(padding), nn.ReLU(), nn.Dropout()]
        shortcut = None if inputs == outputs else nn.Conv1d(inputs, outputs, 1)
        return Residual(nn.Sequential(*layers), shortcut, nn.ReLU())

    return nn.Sequential(block(4, a, 1), block(a, a, 2), block(a, b, 4), _LastStep(), nn.Linear(b, 5))


def _conv3d(width: float) -> nn.Module:
    a, b = scaled(width, 8, 16)
    return nn.Sequential(
        nn.Conv3d(2, a, 3, padding=1),
        nn.BatchNorm3d(a),
        nn.ReLU(),
        nn.MaxPool3d(2),
        nn.Conv3d(a, b, 3, padding=1),
        nn.BatchNorm3d(b),
        nn.ReLU(),
        nn.AdaptiveAvgPool3d(1),
        nn.Flatten(),
        nn.Linear(b, 5),
    )


def _mlp(width: float) -> nn.Module:
    a, b, c = scaled(width, 32, 64, 16)
    layers: list[nn.Module] = []
    for inputs, outputs in ((12, a), (a, b), (b, c)):
        layers += [nn.Linear(inputs, outputs), nn.GELU()]
    return nn.Sequential(*layers, nn.Linear(c, 3))


class _Siamese(nn.Module):
    def __init__(self, width: float) -> None:
        super().__init__()
        a, b, c = scaled(width, 8, 16, 32)
        self.encoder = nn.Sequential(ConvNormAct(3, a, stride=2), ConvNormAct(a, b, stride=2), pooled_linear(b, c))
        self.head = nn.Linear(c, 1)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return torch.sigmoid(self.head(torch.abs(self.encoder(x) - self.encoder(y))))


class _MultiInput(nn.Module):
    def __init__(self, width: float) -> None:
        super().__init__()
        a, b, c, d = scaled(width, 8, 16, 8, 32)
        self.image = nn.Sequential(ConvNormAct(3, a, stride=2), ConvNormAct(a, b), nn.AdaptiveAvgPool2d(1))
        self.vector = nn.Sequential(nn.Linear(6, c), nn.ReLU())
        self.head = nn.Sequential(nn.Linear(b + c, d), nn.ReLU(), nn.Linear(d, 5))

    def forward(self, x: Tensor, vector: Tensor) -> Tensor:
        y: Tensor = self.head(torch.cat([self.image(x).flatten(1), self.vector(vector)], -1))
        return y


class _MultiOutput(nn.Module):
    def __init__(self, width: float) -> None:
        super().__init__()
        a, b, c, d = scaled(width, 8, 16, 8, 16)
        self.trunk = nn.Sequential(ConvNormAct(3, a), ConvNormAct(a, b, stride=2))
        self.mask = nn.Sequential(ConvNormAct(b, c), nn.Conv2d(c, 2, 1))
        self.label = nn.Sequential(pooled_linear(b, d), nn.ReLU(), nn.Linear(d, 10))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.trunk(x)
        return self.mask(y), self.label(y)


class _SharedConv(nn.Module):
    """One convolution, called twice in sequence: what goes in and what comes out are one group."""

    def __init__(self, width: float) -> None:
        super().__init__()
        (a,) = scaled(width, 16)
        self.stem = ConvNormAct(3, a)
        self.shared = nn.Conv2d(a, a, 3, padding=1)
        self.head = pooled_linear(a)

    def forward(self, x: Tensor) -> Tensor:
        y = self.stem(x)
        for _ in range(2):
            y = torch.relu(self.shared(y))
        z: Tensor = self.head(y)
        return z


class _SelfConcat(nn.Module):
    """Both halves of a concatenation are one tensor, and a residual ties the next convolution's halves too."""

    def __init__(self, width: float) -> None:
        super().__init__()
        (a,) = scaled(width, 16)
        self.stem = ConvNormAct(3, a)
        self.conv = nn.Conv2d(2 * a, 2 * a, 3, padding=1)
        self.head = pooled_linear(2 * a)

    def forward(self, x: Tensor) -> Tensor:
        y = self.stem(x)
        y = torch.cat([y, y], 1)
        z: Tensor = self.head(torch.relu(y + self.conv(y)))
        return z


def _up(inputs: int, outputs: int) -> list[nn.Module]:
    return [nn.ConvTranspose2d(inputs, outputs, 4, 2, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]


class _Generator(nn.Module):
    def __init__(self, width: float) -> None:
        super().__init__()
        a, b, c = scaled(width, 32, 16, 8)
        self.channels = a
        self.project = nn.Linear(10, a * 16)
        self.body = nn.Sequential(nn.BatchNorm2d(a), nn.ReLU(), *_up(a, b), *_up(b, c))
        self.image = nn.Sequential(nn.ConvTranspose2d(c, 3, 4, 2, 1), nn.Tanh())

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.image(self.body(self.project(x).view(-1, self.channels, 4, 4)))
        return y


def _autoencoder(width: float) -> nn.Module:
    a, b, c = scaled(width, 16, 32, 8)
    encoder = [ConvNormAct(3, a, stride=2), ConvNormAct(a, b, stride=2), ConvNormAct(b, c)]
    return nn.Sequential(*encoder, *_up(c, b), *_up(b, a), nn.Conv2d(a, 3, 3, padding=1), nn.Sigmoid())


class _MultiScale(nn.Module):
    """Feature maps of three sizes, flattened side by side."""

    def __init__(self, width: float) -> None:
        super().__init__()
        a, b, c, d = scaled(width, 8, 16, 16, 32)
        self.stages = nn.ModuleList(ConvNormAct(i, o, stride=2) for i, o in ((3, a), (a, b), (b, c)))
        self.head = nn.Sequential(nn.Linear(a * 64 + b * 16 + c * 4, d), nn.ReLU(), nn.Linear(d, 10))

    def forward(self, x: Tensor) -> Tensor:
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x.flatten(1))
        y: Tensor = self.head(torch.cat(maps, 1))
        return y


_PAIR = examples((2, 3, 16, 16), (2, 3, 16, 16))
_IMAGE_AND_VECTOR = examples((2, 3, 16, 16), (2, 6))

ARCHITECTURES: tuple[Architecture, ...] = (
    Architecture("conv-chain", _conv_chain, _IMAGE, dynamic=BATCH),
    Architecture("vgg", _vgg, _IMAGE, dynamic=BATCH),
    Architecture("conv1d", _conv1d, examples((2, 4, 16)), dynamic=BATCH),
    Architecture("tcn", _tcn, examples((2, 4, 16)), dynamic=BATCH),
    Architecture("conv3d", _conv3d, examples((1, 2, 8, 8, 8))),
    Architecture("mlp", _mlp, examples((2, 12)), dynamic=BATCH),
    Architecture("siamese", _Siamese, _PAIR, ("x", "y"), {"x": {0: "N"}, "y": {0: "N"}}),
    Architecture("multi-input", _MultiInput, _IMAGE_AND_VECTOR, ("x", "vector"), {"x": {0: "N"}, "vector": {0: "N"}}),
    Architecture("multi-output", _MultiOutput, _IMAGE, dynamic=BATCH),
    Architecture("shared-conv", _SharedConv, _IMAGE, dynamic=BATCH),
    Architecture("self-concat", _SelfConcat, _IMAGE),
    Architecture("gan-generator", _Generator, examples((2, 10)), dynamic=BATCH),
    Architecture("autoencoder", _autoencoder, _IMAGE, dynamic=BATCH),
    Architecture("multi-scale-flatten", _MultiScale, _IMAGE, dynamic=BATCH),
)
