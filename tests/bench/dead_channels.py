"""What removing channels that a mask has zeroed is worth: ONNX Runtime's latency before and after ``optimize``.

``python tests/bench/dead_channels.py [size ...]``. The networks have random weights, and zeros for every second
filter, gamma and beta. Exit code 1 if a row misses the target.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

import graphopt
from graphopt import proto

__all__ = ["main", "resnet", "vgg"]

_PASS = "remove-dead-channels"
_TARGET = 1.7  # times as fast as the masked model
_SECONDS = 2.0  # of timed runs of each model, at least


class _Network:
    """Layers in a row; every second channel that a layer gives is zero."""

    def __init__(self, seed: int = 0) -> None:
        self._random = np.random.default_rng(seed)
        self._nodes: list[onnx.NodeProto] = []
        self._weights: list[onnx.TensorProto] = []

    def _weight(self, array: npt.NDArray[np.float64]) -> str:
        name = f"w{len(self._weights)}"
        self._weights.append(numpy_helper.from_array(array.astype(np.float32), name))
        return name

    def _node(self, op_type: str, inputs: Sequence[str], **attributes: Any) -> str:
        name = f"{op_type.lower()}{len(self._nodes)}"
        self._nodes.append(helper.make_node(op_type, inputs, [name], name, **attributes))
        return name

    def conv(self, x: str, inputs: int, outputs: int, kernel: int = 3, stride: int = 1, *, relu: bool = True) -> str:
        """A convolution, normalized."""
        weight = self._random.standard_normal((outputs, inputs, kernel, kernel)) * (2 / inputs / kernel**2) ** 0.5
        weight[1::2] = 0
        pads = [kernel // 2] * 4
        y = self._node("Conv", [x, self._weight(weight)], kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=pads)
        gamma, beta = np.ones(outputs), 0.1 * self._random.standard_normal(outputs)
        gamma[1::2] = beta[1::2] = 0
        statistics = [gamma, beta, 0.1 * self._random.standard_normal(outputs), np.ones(outputs)]
        y = self._node("BatchNormalization", [y, *map(self._weight, statistics)])
        return self.relu(y) if relu else y

    def relu(self, x: str) -> str:
        """A rectifier."""
        return self._node("Relu", [x])

    def add(self, a: str, b: str) -> str:
        """A residual."""
        return self._node("Add", [a, b])

    def pool(self, x: str) -> str:
        """Half the size."""
        return self._node("MaxPool", [x], kernel_shape=[2, 2], strides=[2, 2])

    def classified(self, x: str, features: int, size: int, classes: int = 100) -> onnx.ModelProto:
        """The network with a classifier."""
        flat = self._node("Flatten", [self._node("GlobalAveragePool", [x])])
        weight = self._random.standard_normal((classes, features)) * features**-0.5
        self._nodes.append(helper.make_node("Gemm", [flat, self._weight(weight)], ["y"], "head", transB=1))
        graph = helper.make_graph(
            self._nodes,
            "network",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, size, size])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, classes])],
            self._weights,
        )
        return helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 20)])


def vgg(size: int) -> onnx.ModelProto:
    """A chain of eight convolutions."""
    network, x, inputs = _Network(), "x", 3
    for outputs in (64, 128, 256, 512):
        x = network.pool(network.conv(network.conv(x, inputs, outputs), outputs, outputs))
        inputs = outputs
    return network.classified(x, inputs, size)


def resnet(size: int) -> onnx.ModelProto:
    """The eighteen layers of ResNet-18."""
    network = _Network()
    x, inputs = network.pool(network.conv("x", 3, 64, 7, 2)), 64
    for outputs, stride in ((64, 1), (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), (512, 1)):
        y = network.conv(network.conv(x, inputs, outputs, 3, stride), outputs, outputs, relu=False)
        shortcut = x if (inputs, stride) == (outputs, 1) else network.conv(x, inputs, outputs, 1, stride, relu=False)
        x, inputs = network.relu(network.add(y, shortcut)), outputs
    return network.classified(x, inputs, size)


def main(sizes: Sequence[int] = (64, 128, 224)) -> bool:
    """Prints a line for each network and size: milliseconds before, with all other passes, and after; the ratios.

    Returns:
        Whether all of them meet the target.
    """
    met = True
    networks: Sequence[tuple[str, Callable[[int], onnx.ModelProto]]] = (("vgg", vgg), ("resnet", resnet))
    print("network         masked    others     after   faster than masked   than by the others    target")
    for name, build in networks:
        for size in sizes:
            masked = proto.from_proto(build(size))
            others = graphopt.optimize(masked, skip=[_PASS])
            after, report = graphopt.optimize(masked, with_report=True)
            assert report.status == "proven", report.status
            assert not report.dropped
            table = graphopt.bench([masked, others, after], min_time=_SECONDS)
            before, rest, small = (row.latency.p50 for row in table.rows)
            fast = before / small >= _TARGET
            met = met and fast
            print(
                f"{name:<7} {size:>3}x{size:<3} {before:>7.2f} ms {rest:>6.2f} ms {small:>6.2f} ms "
                f"{before / small:>18.2f}x {rest / small:>15.2f}x    "
                f"{'met' if fast else 'MISSED'}"
            )
    print(f"target: {_TARGET}x as fast as masked, {'met by all' if met else 'missed'}")
    return met


if __name__ == "__main__":
    sys.exit(0 if main([int(size) for size in sys.argv[1:]] or (64, 128, 224)) else 1)
