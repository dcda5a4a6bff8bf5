"""Well-known networks in their published shapes, with random weights: what latency and work depend on is all there.

Inference form, as exporters give it: normalizations are folded into convolutions, so that each has a bias. The batch is
the symbolic dim ``N``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

__all__ = ["bert_base", "mobilenet_v2", "resnet50", "vgg16"]

_OPSET = 17


class _Builder:
    """Nodes and weights in a row; every method gives the name of its output."""

    def __init__(self, seed: int) -> None:
        self._random = np.random.default_rng(seed)
        self._nodes: list[onnx.NodeProto] = []
        self._weights: list[onnx.TensorProto] = []

    def node(self, op_type: str, *inputs: str, **attributes: Any) -> str:
        name = f"{op_type.lower()}{len(self._nodes)}"
        self._nodes.append(helper.make_node(op_type, inputs, [name], name, **attributes))
        return name

    def constant(self, array: npt.NDArray[Any]) -> str:
        name = f"w{len(self._weights)}"
        self._weights.append(numpy_helper.from_array(array, name))
        return name

    def weight(self, *shape: int, scale: float) -> str:
        return self.constant(self._random.standard_normal(shape, np.float32) * np.float32(scale))

    def conv(
        self, x: str, inputs: int, outputs: int, kernel: int, stride: int = 1, group: int = 1, gain: float = 2.0
    ) -> str:
        fan_in = inputs // group * kernel**2
        weight = self.weight(outputs, inputs // group, kernel, kernel, scale=(gain / fan_in) ** 0.5)
        bias = self.weight(outputs, scale=0.1)
        shape = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": [kernel // 2] * 4}
        return self.node("Conv", x, weight, bias, **shape, group=group)

    def relu(self, x: str) -> str:
        return self.node("Relu", x)

    def pool(self, x: str, kernel: int, stride: int, pad: int = 0) -> str:
        return self.node("MaxPool", x, kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=[pad] * 4)

    def gemm(self, x: str, inputs: int, outputs: int) -> str:
        weight = self.weight(outputs, inputs, scale=inputs**-0.5)
        return self.node("Gemm", x, weight, self.weight(outputs, scale=0.1), transB=1)

    def linear(self, x: str, inputs: int, outputs: int) -> str:
        """A dense layer over the last axis of a stack."""
        product = self.node("MatMul", x, self.weight(inputs, outputs, scale=inputs**-0.5))
        return self.node("Add", self.weight(outputs, scale=0.02), product)

    def layer_norm(self, x: str, width: int) -> str:
        scale = self.constant(np.ones(width, np.float32))
        return self.node("LayerNormalization", x, scale, self.weight(width, scale=0.02), axis=-1, epsilon=1e-12)

    def gelu(self, x: str) -> str:
        half = self.node("Erf", self.node("Div", x, self.constant(np.array(2**0.5, np.float32))))
        whole = self.node("Add", half, self.constant(np.array(1, np.float32)))
        return self.node("Mul", self.node("Mul", x, whole), self.constant(np.array(0.5, np.float32)))

    def model(self, name: str, inputs: Sequence[onnx.ValueInfoProto], y: str, shape: Sequence[Any]) -> onnx.ModelProto:
        self._nodes[-1].output[0] = "y"
        assert y == self._nodes[-1].name
        output = helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)
        graph = helper.make_graph(self._nodes, name, inputs, [output], self._weights)
        return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", _OPSET)])

    def classifier(self, name: str, x: str, features: int, size: int, classes: int) -> onnx.ModelProto:
        """The mean over all positions, and one dense layer; the input is an image."""
        flat = self.node("Flatten", self.node("GlobalAveragePool", x))
        return self.model(name, [_image(size)], self.gemm(flat, features, classes), ["N", classes])


def _image(size: int) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, size, size])


def resnet50(size: int = 224, *, classes: int = 1000, seed: int = 0) -> onnx.ModelProto:
    """ResNet-50 (arXiv:1512.03385) with the stride on the 3x3 convolution: 4.09 GMACs at 224, 25.5 M parameters."""
    net = _Builder(seed)
    x, inputs = net.pool(net.relu(net.conv("x", 3, 64, 7, 2)), 3, 2, 1), 64
    for stage, (width, blocks) in enumerate(((64, 3), (128, 4), (256, 6), (512, 3))):
        for block in range(blocks):
            stride = 2 if block == 0 and stage > 0 else 1
            y = net.relu(net.conv(x, inputs, width, 1))
            # residuals that grow little, as those of trained networks do
            y = net.conv(net.relu(net.conv(y, width, width, 3, stride)), width, 4 * width, 1, gain=0.2)
            if block == 0:
                x = net.conv(x, inputs, 4 * width, 1, stride, gain=1.0)
            x, inputs = net.relu(net.node("Add", y, x)), 4 * width
    return net.classifier("resnet50", x, inputs, size, classes)


def vgg16(size: int = 224, *, classes: int = 1000, seed: int = 0) -> onnx.ModelProto:
    """VGG-16 (arXiv:1409.1556): 15.5 GMACs at 224, 138 M parameters, most of them in the first dense layer.

    ``size`` is a multiple of 32.
    """
    net, x, inputs = _Builder(seed), "x", 3
    for width, convolutions in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for _ in range(convolutions):
            x, inputs = net.relu(net.conv(x, inputs, width, 3)), width
        x = net.pool(x, 2, 2)
    x = net.relu(net.gemm(net.node("Flatten", x), inputs * (size // 32) ** 2, 4096))
    x = net.gemm(net.relu(net.gemm(x, 4096, 4096)), 4096, classes)
    return net.model("vgg16", [_image(size)], x, ["N", classes])


def mobilenet_v2(size: int = 224, *, classes: int = 1000, seed: int = 0) -> onnx.ModelProto:
    """MobileNetV2 (arXiv:1801.04381): 0.30 GMACs at 224, 3.5 M parameters."""
    net = _Builder(seed)
    low, high = net.constant(np.array(0, np.float32)), net.constant(np.array(6, np.float32))

    def relu6(x: str) -> str:
        return net.node("Clip", x, low, high)

    x, inputs = relu6(net.conv("x", 3, 32, 3, 2)), 32
    layers = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
    for factor, outputs, blocks, first in layers:
        for block in range(blocks):
            stride, inner = first if block == 0 else 1, inputs * factor
            y = x if factor == 1 else relu6(net.conv(x, inputs, inner, 1))
            y = net.conv(relu6(net.conv(y, inner, inner, 3, stride, group=inner)), inner, outputs, 1)
            x = net.node("Add", x, y) if block else y
            inputs = outputs
    return net.classifier("mobilenet_v2", relu6(net.conv(x, inputs, 1280, 1)), 1280, size, classes)


def bert_base(tokens: int = 128, *, layers: int = 12, seed: int = 0) -> onnx.ModelProto:
    """BERT-base (arXiv:1810.04805) without its pooler: 11.2 GMACs at 128 tokens, 109 M parameters.

    Inputs are ``input_ids``, ``attention_mask`` and ``token_type_ids`` of ``(N, tokens)``; the output is the last
    hidden state.
    """
    net, hidden, heads, inner = _Builder(seed), 768, 12, 3072
    lanes = hidden // heads
    apart = net.constant(np.array([0, 0, heads, lanes], np.int64))
    joined = net.constant(np.array([0, 0, hidden], np.int64))
    mask = _mask(net)

    def split(x: str, perm: Sequence[int]) -> str:
        return net.node("Transpose", net.node("Reshape", x, apart), perm=perm)

    x = _embedded(net, hidden, tokens)
    for _ in range(layers):
        q = split(net.linear(x, hidden, hidden), (0, 2, 1, 3))
        k = split(net.linear(x, hidden, hidden), (0, 2, 3, 1))
        v = split(net.linear(x, hidden, hidden), (0, 2, 1, 3))
        scores = net.node("Div", net.node("MatMul", q, k), net.constant(np.array(lanes**0.5, np.float32)))
        shares = net.node("Softmax", net.node("Add", scores, mask), axis=-1)
        mixed = net.node("Transpose", net.node("MatMul", shares, v), perm=(0, 2, 1, 3))
        attended = net.linear(net.node("Reshape", mixed, joined), hidden, hidden)
        x = net.layer_norm(net.node("Add", attended, x), hidden)
        dense = net.linear(net.gelu(net.linear(x, hidden, inner)), inner, hidden)
        x = net.layer_norm(net.node("Add", dense, x), hidden)
    names = ("input_ids", "attention_mask", "token_type_ids")
    inputs = [helper.make_tensor_value_info(name, TensorProto.INT64, ["N", tokens]) for name in names]
    return net.model("bert_base", inputs, x, ["N", tokens, hidden])


def _mask(net: _Builder) -> str:
    """0 where to look and -10000 where not, of shape (N, 1, 1, tokens)."""
    wide = net.node("Unsqueeze", "attention_mask", net.constant(np.array([1, 2], np.int64)))
    away = net.node("Sub", net.constant(np.array(1, np.float32)), net.node("Cast", wide, to=TensorProto.FLOAT))
    return net.node("Mul", away, net.constant(np.array(-10000, np.float32)))


def _embedded(net: _Builder, hidden: int, tokens: int) -> str:
    words = net.node("Gather", net.weight(30522, hidden, scale=0.02), "input_ids")
    kinds = net.node("Gather", net.weight(2, hidden, scale=0.02), "token_type_ids")
    # the table has 512 rows in print; only those of a fixed number of tokens are left after folding
    places = net.weight(1, tokens, hidden, scale=0.02)
    return net.layer_norm(net.node("Add", net.node("Add", words, kinds), places), hidden)
