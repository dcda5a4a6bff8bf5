"""Networks with an image-sized answer: segmentation, super-resolution, detection, and the blocks these are made of."""

from __future__ import annotations

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn
from torch.nn import functional
from zoo.architecture import Architecture, export
from zoo.blocks import BATCH, Branches, ConvNormAct, Residual, examples, pooled_linear, scaled

__all__ = ["ARCHITECTURES"]

_IMAGE = examples((2, 3, 16, 16))
_LARGE = examples((2, 3, 32, 32))


def _double(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(ConvNormAct(inputs, outputs), ConvNormAct(outputs, outputs))


class _UNet(nn.Module):
    """Two steps down, two steps up, the skips concatenated."""

    def __init__(self, width: float, transpose: bool) -> None:
        super().__init__()
        a, b, c = scaled(width, 8, 16, 32)
        self.down = nn.ModuleList([_double(3, a), _double(a, b)])
        self.bottom = _double(b, c)
        if transpose:
            self.up = nn.ModuleList([nn.ConvTranspose2d(c, b, 2, 2), nn.ConvTranspose2d(b, a, 2, 2)])
            joined = 2 * b, 2 * a
        else:
            self.up = nn.ModuleList(nn.Upsample(scale_factor=2, mode="bilinear") for _ in range(2))
            joined = b + c, a + b
        self.merge = nn.ModuleList([_double(joined[0], b), _double(joined[1], a)])
        self.head = nn.Conv2d(a, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        skips = []
        for down in self.down:
            x = down(x)
            skips.append(x)
            x = functional.max_pool2d(x, 2)
        x = self.bottom(x)
        for up, merge in zip(self.up, self.merge, strict=True):
            x = merge(torch.cat([skips.pop(), up(x)], 1))
        y: Tensor = self.head(x)
        return y


def _pixel_shuffle(width: float) -> nn.Module:
    a, b = scaled(width, 16, 8)
    return nn.Sequential(
        nn.Conv2d(3, a, 5, padding=2),
        nn.PReLU(a),
        nn.Conv2d(a, b * 4, 3, padding=1),
        nn.PixelShuffle(2),
        nn.ReLU(),
        nn.Conv2d(b, 12, 3, padding=1),
        nn.PixelShuffle(2),
    )


def _pixel_unshuffle(width: float) -> nn.Module:
    a, b = scaled(width, 8, 16)
    return nn.Sequential(
        nn.PixelUnshuffle(2), ConvNormAct(12, a), nn.PixelUnshuffle(2), ConvNormAct(4 * a, b), pooled_linear(b)
    )


class _C2f(nn.Module):
    """Keeps what every bottleneck made: half of the input, the other half, and each step of work on it."""

    def __init__(self, inputs: int, half: int, outputs: int, steps: int = 2) -> None:
        super().__init__()
        self.enter = ConvNormAct(inputs, 2 * half, 1, act=nn.SiLU)
        self.steps = nn.ModuleList(_bottleneck(half, half) for _ in range(steps))
        self.leave = ConvNormAct((2 + steps) * half, outputs, 1, act=nn.SiLU)

    def forward(self, x: Tensor) -> Tensor:
        parts = list(self.enter(x).chunk(2, 1))
        for step in self.steps:
            parts.append(step(parts[-1]))
        y: Tensor = self.leave(torch.cat(parts, 1))
        return y


def _bottleneck(channels: int, middle: int) -> nn.Module:
    body = ConvNormAct(channels, middle, act=nn.SiLU), ConvNormAct(middle, channels, act=nn.SiLU)
    return Residual(nn.Sequential(*body))


def _c2f(width: float) -> nn.Module:
    a, half, b = scaled(width, 16, 8, 32)
    blocks = ConvNormAct(3, a, stride=2, act=nn.SiLU), _C2f(a, half, b), _C2f(b, a, b)
    return nn.Sequential(*blocks, pooled_linear(b))


def _csp_block(inputs: int, half: int, middle: int, outputs: int) -> nn.Module:
    """Half of the work skips the bottlenecks; one normalization covers both halves."""
    worked = ConvNormAct(inputs, half, 1), *(_bottleneck(half, middle) for _ in range(2)), nn.Conv2d(half, half, 1)
    joined = Branches(nn.Sequential(*worked), nn.Conv2d(inputs, half, 1))
    return nn.Sequential(joined, nn.BatchNorm2d(2 * half), nn.LeakyReLU(0.1), ConvNormAct(2 * half, outputs, 1))


def _csp(width: float) -> nn.Module:
    a, half, middle, b = scaled(width, 16, 16, 8, 32)
    blocks = ConvNormAct(3, a, stride=2), _csp_block(a, half, middle, b), _csp_block(b, half, middle, b)
    return nn.Sequential(*blocks, pooled_linear(b))


class _Pyramid(nn.Module):
    """A tensor and three rounds of pooling it, concatenated."""

    def __init__(self, inputs: int, middle: int, outputs: int) -> None:
        super().__init__()
        self.enter = ConvNormAct(inputs, middle, 1, act=nn.SiLU)
        self.pool = nn.MaxPool2d(5, 1, 2)
        self.leave = ConvNormAct(4 * middle, outputs, 1, act=nn.SiLU)

    def forward(self, x: Tensor) -> Tensor:
        parts = [self.enter(x)]
        for _ in range(3):
            parts.append(self.pool(parts[-1]))
        y: Tensor = self.leave(torch.cat(parts, 1))
        return y


def _sppf(width: float) -> nn.Module:
    a, middle, b = scaled(width, 16, 8, 32)
    return nn.Sequential(ConvNormAct(3, a, stride=2, act=nn.SiLU), _Pyramid(a, middle, b), pooled_linear(b))


class _Features(nn.Module):
    """Feature maps of three sizes, the smaller ones added to the larger ones."""

    def __init__(self, sizes: tuple[int, ...], outputs: int) -> None:
        super().__init__()
        inputs = 3, *sizes
        self.stages = nn.ModuleList(ConvNormAct(i, o, stride=2) for i, o in zip(inputs, sizes, strict=False))
        self.lateral = nn.ModuleList(nn.Conv2d(size, outputs, 1) for size in sizes)
        self.smooth = nn.ModuleList(nn.Conv2d(outputs, outputs, 3, padding=1) for _ in sizes)

    def forward(self, x: Tensor) -> list[Tensor]:
        maps: list[Tensor] = []
        for stage, lateral in zip(self.stages, self.lateral, strict=True):
            x = stage(x)
            maps.append(lateral(x))
        for index in reversed(range(len(maps) - 1)):
            maps[index] = maps[index] + functional.interpolate(maps[index + 1], scale_factor=2.0, mode="nearest")
        return [smooth(each) for smooth, each in zip(self.smooth, maps, strict=True)]


class _FPN(nn.Module):
    def __init__(self, width: float) -> None:
        super().__init__()
        a, b, c, d = scaled(width, 8, 16, 32, 16)
        self.features = _Features((a, b, c), d)
        self.heads = nn.ModuleList(nn.Conv2d(d, 4, 3, padding=1) for _ in range(3))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(head(each) for head, each in zip(self.heads, self.features(x), strict=True))


class _Detector(nn.Module):
    """Boxes and class scores of every place on every scale, side by side."""

    classes = 3

    def __init__(self, width: float) -> None:
        super().__init__()
        a, b, c, d, e = scaled(width, 8, 16, 32, 16, 8)
        self.features = _Features((a, b, c), d)
        self.boxes = nn.ModuleList(self._head(d, e, 4) for _ in range(3))
        self.scores = nn.ModuleList(self._head(d, d, self.classes) for _ in range(3))

    @staticmethod
    def _head(inputs: int, middle: int, outputs: int) -> nn.Module:
        return nn.Sequential(ConvNormAct(inputs, middle, act=nn.SiLU), nn.Conv2d(middle, outputs, 1))

    def forward(self, x: Tensor) -> Tensor:
        found = []
        for each, box, score in zip(self.features(x), self.boxes, self.scores, strict=True):
            joined = torch.cat([box(each), score(each)], 1)
            found.append(joined.view(x.shape[0], 4 + self.classes, -1))
        boxes, scores = torch.split(torch.cat(found, 2), [4, self.classes], 1)
        return torch.cat([boxes, torch.sigmoid(scores)], 1)


_DETECTOR = Architecture("detector", _Detector, _LARGE, dynamic=BATCH)


def _detector_nms(width: float) -> onnx.ModelProto:
    """The detector, and behind it the choice of boxes, which exporters leave to the one who deploys."""
    model = export(_DETECTOR, "legacy", width)
    graph = model.graph
    found = graph.output[0].name
    graph.initializer.extend(
        numpy_helper.from_array(np.asarray(value, kind), name)
        for name, value, kind in (
            ("nms_split", [4, _Detector.classes], np.int64),
            ("nms_most", [5], np.int64),
            ("nms_overlap", [0.5], np.float32),
            ("nms_score", [0.4], np.float32),
        )
    )
    graph.node.extend(
        [
            helper.make_node("Split", [found, "nms_split"], ["nms_boxes", "nms_scores"], axis=1),
            helper.make_node("Transpose", ["nms_boxes"], ["nms_rows"], perm=[0, 2, 1]),
            helper.make_node(
                "NonMaxSuppression",
                ["nms_rows", "nms_scores", "nms_most", "nms_overlap", "nms_score"],
                ["selected"],
                center_point_box=1,
            ),
        ]
    )
    graph.output.append(helper.make_tensor_value_info("selected", TensorProto.INT64, ["selections", 3]))
    return model


class _SliceFocus(nn.Module):
    """Every other pixel, four ways, concatenated along channels."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x[..., ::2, ::2], x[..., 1::2, ::2], x[..., ::2, 1::2], x[..., 1::2, 1::2]], 1)


def _focus(width: float) -> nn.Module:
    a, b = scaled(width, 8, 16)
    return nn.Sequential(
        _SliceFocus(),
        ConvNormAct(12, a, act=nn.SiLU),
        _SliceFocus(),
        ConvNormAct(4 * a, b, act=nn.SiLU),
        pooled_linear(b),
    )


class _Aspp(nn.Module):
    """Convolutions at several dilations and the mean of the image, then a mask of the input's size."""

    def __init__(self, width: float) -> None:
        super().__init__()
        a, b, c = scaled(width, 16, 8, 32)
        self.stem = nn.Sequential(ConvNormAct(3, a, stride=2), ConvNormAct(a, a, stride=2))
        dilated = (ConvNormAct(a, b, dilation=dilation) for dilation in (1, 2, 4))
        self.local = Branches(ConvNormAct(a, b, 1), *dilated)
        self.overall = nn.Sequential(nn.AdaptiveAvgPool2d(1), ConvNormAct(a, b, 1))
        self.head = nn.Sequential(ConvNormAct(5 * b, c, 1), nn.Dropout(), nn.Conv2d(c, 4, 1))

    def forward(self, x: Tensor) -> Tensor:
        y = self.stem(x)
        overall = functional.interpolate(self.overall(y), y.shape[-2:], mode="bilinear", align_corners=False)
        mask = self.head(torch.cat([self.local(y), overall], 1))
        return functional.interpolate(mask, x.shape[-2:], mode="bilinear", align_corners=False)


def _depth_space(width: float) -> onnx.ModelProto:
    """Space to depth and back by ONNX's own operators, whose order of channels torch cannot express."""
    a, b = scaled(width, 8, 16)
    generator = np.random.default_rng(3)
    nodes, weights = [], []
    shape = 3
    for index, (outputs, move) in enumerate([(a, "SpaceToDepth"), (4 * b, "DepthToSpace"), (5, "")]):
        weight = generator.standard_normal((outputs, shape, 3, 3)) / (shape * 9) ** 0.5
        weights.append(numpy_helper.from_array(weight.astype(np.float32), f"weight{index}"))
        weights.append(numpy_helper.from_array(generator.standard_normal(outputs).astype(np.float32), f"bias{index}"))
        names = [f"map{index}" if index else "x", f"weight{index}", f"bias{index}"]
        nodes.append(helper.make_node("Conv", names, [f"conv{index}" if move else "y"], pads=[1] * 4))
        if move:
            nodes.append(helper.make_node("Relu", [f"conv{index}"], [f"relu{index}"]))
            nodes.append(helper.make_node(move, [f"relu{index}"], [f"map{index + 1}"], blocksize=2))
        shape = {"SpaceToDepth": 4 * outputs, "DepthToSpace": outputs // 4}.get(move, outputs)
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", c, 16, 16]) for n, c in (("x", 3), ("y", 5))]
    graph = helper.make_graph(nodes, "depth_space", ends[:1], ends[1:], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


ARCHITECTURES: tuple[Architecture, ...] = (
    Architecture("unet-transpose", lambda width: _UNet(width, transpose=True), _IMAGE, dynamic=BATCH),
    Architecture("unet-bilinear", lambda width: _UNet(width, transpose=False), _IMAGE, dynamic=BATCH),
    Architecture("pixel-shuffle", _pixel_shuffle, _IMAGE, dynamic={"x": {0: "N", 2: "H", 3: "W"}}),
    Architecture("pixel-unshuffle", _pixel_unshuffle, _IMAGE, dynamic=BATCH),
    Architecture("depth-space", _depth_space, exporters=("onnx",)),
    Architecture("c2f", _c2f, _IMAGE, dynamic=BATCH),
    Architecture("csp", _csp, _IMAGE, dynamic=BATCH),
    Architecture("sppf", _sppf, _IMAGE, dynamic=BATCH),
    Architecture("fpn", _FPN, _LARGE, dynamic=BATCH),
    _DETECTOR,
    Architecture("detector-nms", _detector_nms, exporters=("onnx",)),
    Architecture("focus", _focus, _IMAGE),
    Architecture("aspp", _Aspp, _LARGE, dynamic=BATCH),
)
