"""Image classifiers: residual, dense, grouped, depthwise, shuffled and gated, under every usual normalization."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from zoo.architecture import Architecture
from zoo.blocks import BATCH, Branches, ConvNormAct, Residual, SqueezeExcite, examples, pooled_linear, scaled

__all__ = ["ARCHITECTURES"]

_IMAGE = examples((2, 3, 16, 16))


def _basic(inputs: int, outputs: int, stride: int = 1, gate: nn.Module | None = None) -> Residual:
    """Two 3x3 convolutions, and a projection where the shape changes."""
    body: list[nn.Module] = [
        ConvNormAct(inputs, outputs, stride=stride),
        ConvNormAct(outputs, outputs, act=nn.Identity),
    ]
    if gate:
        body.append(gate)
    return Residual(nn.Sequential(*body), _projection(inputs, outputs, stride), nn.ReLU())


def _projection(inputs: int, outputs: int, stride: int) -> nn.Module | None:
    return None if inputs == outputs and stride == 1 else ConvNormAct(inputs, outputs, 1, stride, act=nn.Identity)


def _bottleneck(
    inputs: int, middle: int, outputs: int, stride: int = 1, groups: int = 1, gate: nn.Module | None = None
) -> Residual:
    """A 3x3 convolution, possibly grouped and gated, between two 1x1 convolutions."""
    body = nn.Sequential(
        ConvNormAct(inputs, middle, 1),
        ConvNormAct(middle, middle, 3, stride, groups),
        gate or nn.Identity(),
        ConvNormAct(middle, outputs, 1, act=nn.Identity),
    )
    return Residual(body, _projection(inputs, outputs, stride), nn.ReLU())


def _resnet_basic(width: float) -> nn.Module:
    a, b = scaled(width, 8, 16)
    blocks = [_basic(a, a), _basic(a, a), _basic(a, b, 2), _basic(b, b)]
    return nn.Sequential(ConvNormAct(3, a), nn.MaxPool2d(3, 2, 1), *blocks, pooled_linear(b))


def _resnet_bottleneck(width: float) -> nn.Module:
    a, m, b, n, c = scaled(width, 16, 8, 32, 16, 64)
    blocks = [_bottleneck(a, m, b), _bottleneck(b, m, b), _bottleneck(b, n, c, 2), _bottleneck(c, n, c)]
    return nn.Sequential(ConvNormAct(3, a), *blocks, pooled_linear(c))


def _resnext(width: float) -> nn.Module:
    a, m, b, c = scaled(width, 16, 16, 32, 64)
    blocks = [_bottleneck(a, m, b, groups=4), _bottleneck(b, m, b, groups=4), _bottleneck(b, b, c, 2, groups=4)]
    return nn.Sequential(ConvNormAct(3, a), *blocks, pooled_linear(c))


def _regnet(width: float) -> nn.Module:
    a, b, squeezed = scaled(width, 16, 32, 4)

    def block(inputs: int, outputs: int, stride: int) -> nn.Module:
        return _bottleneck(inputs, outputs, outputs, stride, 2, SqueezeExcite(outputs, squeezed))

    return nn.Sequential(ConvNormAct(3, a), block(a, b, 2), block(b, b, 1), pooled_linear(b))


class _LinearSqueezeExcite(nn.Module):
    """Channels scaled by gates computed from their means with two linear layers."""

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        layers = nn.Linear(channels, squeezed), nn.ReLU(), nn.Linear(squeezed, channels), nn.Sigmoid()
        self.gates = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x * self.gates(x.mean((2, 3))).view(x.shape[0], x.shape[1], 1, 1)
        return y


def _excited(gate: Callable[[int, int], nn.Module]) -> Callable[[float], nn.Module]:
    def build(width: float) -> nn.Module:
        a, b, squeezed = scaled(width, 16, 32, 8)
        blocks = [_basic(a, a, gate=gate(a, squeezed)), _basic(a, b, 2, gate(b, squeezed))]
        return nn.Sequential(ConvNormAct(3, a), *blocks, pooled_linear(b))

    return build


def _dense_layer(inputs: int, middle: int, growth: int) -> nn.Module:
    """Appends to its input what normalization before convolution makes of it."""
    first = nn.BatchNorm2d(inputs), nn.ReLU(), nn.Conv2d(inputs, middle, 1, bias=False)
    second = nn.BatchNorm2d(middle), nn.ReLU(), nn.Conv2d(middle, growth, 3, padding=1, bias=False)
    return Branches(nn.Identity(), nn.Sequential(*first, *second))


def _densenet(width: float) -> nn.Module:
    a, middle, growth = scaled(width, 16, 32, 8)
    layers: list[nn.Module] = [nn.Conv2d(3, a, 3, padding=1, bias=False)]
    for block in range(2):
        layers += [_dense_layer(a + growth * index, middle, growth) for index in range(3)]
        a += 3 * growth
        layers += [nn.BatchNorm2d(a), nn.ReLU()]
        if block == 0:
            layers += [nn.Conv2d(a, a // 2, 1, bias=False), nn.AvgPool2d(2)]
            a //= 2
    return nn.Sequential(*layers, pooled_linear(a))


def _inception(width: float) -> nn.Module:
    stem, a, b, c = scaled(width, 16, 8, 16, 8)

    def block(inputs: int) -> nn.Module:
        return Branches(
            ConvNormAct(inputs, a, 1),
            nn.Sequential(ConvNormAct(inputs, a, 1), ConvNormAct(a, b)),
            nn.Sequential(ConvNormAct(inputs, a, 1), ConvNormAct(a, c), ConvNormAct(c, c)),
            nn.Sequential(nn.MaxPool2d(3, 1, 1), ConvNormAct(inputs, c, 1)),
        )

    outputs = a + b + 2 * c
    return nn.Sequential(ConvNormAct(3, stem), block(stem), nn.MaxPool2d(2), block(outputs), pooled_linear(outputs))


def _inverted(
    inputs: int,
    middle: int,
    outputs: int,
    stride: int = 1,
    act: Callable[[], nn.Module] = nn.ReLU6,
    gate: nn.Module | None = None,
) -> nn.Module:
    """Expands, convolves each channel on its own, and projects without activation."""
    body = nn.Sequential(
        ConvNormAct(inputs, middle, 1, act=act) if inputs != middle else nn.Identity(),
        ConvNormAct(middle, middle, 3, stride, groups=middle, act=act),
        gate or nn.Identity(),
        ConvNormAct(middle, outputs, 1, act=nn.Identity),
    )
    return Residual(body) if inputs == outputs and stride == 1 else body


def _mobilenet_v2(width: float) -> nn.Module:
    a, b, c, m, n = scaled(width, 8, 16, 32, 48, 64)
    blocks = [_inverted(a, a, b), _inverted(b, m, b), _inverted(b, m, c, 2), _inverted(c, n, c)]
    return nn.Sequential(ConvNormAct(3, a, act=nn.ReLU6), *blocks, ConvNormAct(c, n, 1, act=nn.ReLU6), pooled_linear(n))


def _mobilenet_v3(width: float) -> nn.Module:
    a, b, m, squeezed, c = scaled(width, 8, 16, 32, 8, 32)

    def block(inputs: int, outputs: int, stride: int) -> nn.Module:
        gate = SqueezeExcite(m, squeezed, gate=nn.Hardsigmoid)
        return _inverted(inputs, m, outputs, stride, nn.Hardswish, gate)

    head = pooled_linear(m, c), nn.Hardswish(), nn.Linear(c, 10)
    return nn.Sequential(
        ConvNormAct(3, a, act=nn.Hardswish),
        block(a, a, 1),
        block(a, b, 2),
        block(b, b, 1),
        ConvNormAct(b, m, 1, act=nn.Hardswish),
        *head,
    )


def _efficientnet(width: float) -> nn.Module:
    a, b, c, m, n, squeezed = scaled(width, 8, 16, 64, 32, 48, 4)

    def block(inputs: int, middle: int, outputs: int, stride: int) -> nn.Module:
        return _inverted(inputs, middle, outputs, stride, nn.SiLU, SqueezeExcite(middle, squeezed, nn.SiLU))

    blocks = [block(a, m, a, 1), block(a, m, b, 2), block(b, n, b, 1)]
    return nn.Sequential(ConvNormAct(3, a, act=nn.SiLU), *blocks, ConvNormAct(b, c, 1, act=nn.SiLU), pooled_linear(c))


class _Shuffle(nn.Module):
    """Deals the channels of each group out to all groups."""

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.groups = groups

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        split = x.view(batch, self.groups, channels // self.groups, height, width)
        return split.transpose(1, 2).reshape(batch, channels, height, width)


def _shufflenet_v1(groups: int) -> Callable[[float], nn.Module]:
    def build(width: float) -> nn.Module:
        a, middle = scaled(width, 32, 32)

        def body(inputs: int, outputs: int, stride: int) -> nn.Module:
            return nn.Sequential(
                ConvNormAct(inputs, middle, 1, groups=groups),
                _Shuffle(groups),
                ConvNormAct(middle, middle, 3, stride, groups=middle, act=nn.Identity),
                ConvNormAct(middle, outputs, 1, groups=groups, act=nn.Identity),
            )

        shrink = nn.Sequential(Branches(nn.AvgPool2d(3, 2, 1), body(a, a, 2)), nn.ReLU())
        blocks = [Residual(body(size, size, 1), act=nn.ReLU()) for size in (a, 2 * a, 2 * a)]
        return nn.Sequential(ConvNormAct(3, a), blocks[0], shrink, *blocks[1:], pooled_linear(2 * a))

    return build


class _ShuffleV2(nn.Module):
    """Passes half of the channels through, works on the others, and shuffles the two."""

    def __init__(self, half: int) -> None:
        super().__init__()
        self.body = _shuffle_body(half, half, 1)
        self.shuffle = _Shuffle(2)

    def forward(self, x: Tensor) -> Tensor:
        kept, worked = x.chunk(2, 1)
        y: Tensor = self.shuffle(torch.cat([kept, self.body(worked)], 1))
        return y


def _shuffle_body(inputs: int, outputs: int, stride: int) -> nn.Module:
    return nn.Sequential(
        ConvNormAct(inputs, outputs, 1),
        ConvNormAct(outputs, outputs, 3, stride, groups=outputs, act=nn.Identity),
        ConvNormAct(outputs, outputs, 1),
    )


def _shufflenet_v2(width: float) -> nn.Module:
    a, half, c = scaled(width, 8, 16, 64)
    left = nn.Sequential(ConvNormAct(a, a, 3, 2, groups=a, act=nn.Identity), ConvNormAct(a, half, 1))
    shrink = nn.Sequential(Branches(left, _shuffle_body(a, half, 2)), _Shuffle(2))
    head = ConvNormAct(2 * half, c, 1), pooled_linear(c)
    return nn.Sequential(ConvNormAct(3, a), shrink, _ShuffleV2(half), _ShuffleV2(half), *head)


class _ChannelNorm(nn.Module):
    """Layer normalization over axis 1 in elementary operations."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        centred = x - x.mean(1, keepdim=True)
        normal = centred / torch.sqrt(centred.pow(2).mean(1, keepdim=True) + 1e-6)
        return self.weight[:, None, None] * normal + self.bias[:, None, None]


class _ConvNeXtBlock(nn.Module):
    """A depthwise convolution, then a channels-last MLP scaled by gamma."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.spatial = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.mlp = nn.Sequential(
            nn.LayerNorm(channels), nn.Linear(channels, hidden), nn.GELU(), nn.Linear(hidden, channels)
        )
        self.gamma = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.gamma * self.mlp(self.spatial(x).permute(0, 2, 3, 1))
        return x + y.permute(0, 3, 1, 2)


def _convnext(width: float) -> nn.Module:
    a, b, m, n = scaled(width, 16, 32, 64, 128)
    return nn.Sequential(
        nn.Conv2d(3, a, 2, 2),
        _ChannelNorm(a),
        _ConvNeXtBlock(a, m),
        _ConvNeXtBlock(a, m),
        _ChannelNorm(a),
        nn.Conv2d(a, b, 2, 2),
        _ConvNeXtBlock(b, n),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.LayerNorm(b),
        nn.Linear(b, 10),
    )


def _normalized(norm: Callable[[int], nn.Module]) -> Callable[[float], nn.Module]:
    """A chain with one residual block under a normalization."""

    def build(width: float) -> nn.Module:
        a, b = scaled(width, 16, 32)
        body = nn.Sequential(ConvNormAct(b, b, norm=norm), ConvNormAct(b, b, norm=norm, act=nn.Identity))
        return nn.Sequential(
            ConvNormAct(3, a, norm=norm),
            ConvNormAct(a, b, stride=2, norm=norm, act=nn.SiLU),
            Residual(body, act=nn.ReLU()),
            pooled_linear(b),
        )

    return build


_groupnorm = _normalized(lambda channels: nn.GroupNorm(4, channels))
_instancenorm = _normalized(lambda channels: nn.InstanceNorm2d(channels, affine=True))

ARCHITECTURES: tuple[Architecture, ...] = (
    Architecture("resnet-basic", _resnet_basic, examples((2, 3, 32, 32)), dynamic=BATCH),
    Architecture("resnet-bottleneck", _resnet_bottleneck, _IMAGE, dynamic=BATCH),
    Architecture("densenet", _densenet, _IMAGE, dynamic=BATCH),
    Architecture("inception", _inception, _IMAGE, dynamic=BATCH),
    Architecture("mobilenet-v2", _mobilenet_v2, _IMAGE, dynamic=BATCH),
    Architecture("mobilenet-v3", _mobilenet_v3, _IMAGE, dynamic=BATCH),
    Architecture("resnext", _resnext, _IMAGE, dynamic=BATCH),
    Architecture("shufflenet-v1-2-groups", _shufflenet_v1(2), _IMAGE),
    Architecture("shufflenet-v1-4-groups", _shufflenet_v1(4), _IMAGE, dynamic=BATCH),
    Architecture("shufflenet-v2", _shufflenet_v2, _IMAGE, dynamic=BATCH),
    Architecture("se-linear", _excited(_LinearSqueezeExcite), _IMAGE, dynamic=BATCH),
    Architecture("se-conv", _excited(SqueezeExcite), _IMAGE, dynamic=BATCH),
    Architecture("efficientnet", _efficientnet, _IMAGE, dynamic=BATCH),
    Architecture("regnet", _regnet, _IMAGE, dynamic=BATCH),
    Architecture("convnext", _convnext, _IMAGE, dynamic=BATCH, norms=True),
    # Below operator set 21, GroupNormalization is exported as reshapes around InstanceNormalization.
    Architecture("groupnorm", _groupnorm, _IMAGE, dynamic=BATCH, norms=True, opsets={"legacy": 17, "dynamo": 21}),
    Architecture("channel-layernorm", _normalized(_ChannelNorm), _IMAGE, dynamic=BATCH, norms=True),
    Architecture("instancenorm", _instancenorm, _IMAGE, dynamic=BATCH),
)
