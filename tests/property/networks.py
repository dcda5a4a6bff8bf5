"""Random networks in the shape of real ones: stems, blocks that reuse channels in every way there is, and a head."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from hypothesis import strategies
from onnx import TensorProto, helper, numpy_helper

__all__ = ["networks"]

_WIDTHS = (4, 6, 8, 12)
_SIZE = 6
_EPSILON = 0.1  # lanes that hardly vary would otherwise have their rounding magnified


class _Network:
    """A chain of blocks on ``(N, C, H, W)``; every block reads ``self.x`` and leaves its result there."""

    def __init__(self, choose: Callable[[int], int]) -> None:
        self.choose = choose
        self.random = np.random.default_rng(choose(1 << 16))
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.x, self.width = "x", 3
        self.height: int = _SIZE

    def one_of(self, things: tuple[Any, ...]) -> Any:
        return things[self.choose(len(things))]

    def weight(self, contents: npt.NDArray[Any]) -> str:
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(contents, name))
        return name

    def floats(self, *shape: int, around: float = 0.0) -> str:
        scale = 1 / max(1, math.prod(shape[1:])) ** 0.5 if len(shape) > 1 else 0.3
        return self.weight((around + scale * self.random.standard_normal(shape)).astype(np.float32))

    def affine(self, width: int) -> tuple[str, str]:
        return self.floats(width, around=1), self.floats(width)

    def ints(self, *numbers: int) -> str:
        return self.weight(np.array(numbers, np.int64))

    def op(self, op_type: str, *inputs: str, outputs: int = 1, **attributes: Any) -> Any:
        names = [f"v{len(self.nodes)}_{index}" for index in range(outputs)]
        self.nodes.append(helper.make_node(op_type, inputs, names, name=names[0], **attributes))
        return names[0] if outputs == 1 else names

    # -- blocks ------------------------------------------------------------------------------------------------------

    def conv(self, x: str, before: int, after: int, kernel: int = 1, group: int = 1) -> str:
        inputs = [x, self.floats(after, before // group, kernel, kernel)]
        if self.choose(3):
            inputs.append(self.floats(after))
        pads = [kernel // 2] * 4
        y = self.op("Conv", *inputs, pads=pads, kernel_shape=[kernel, kernel], group=group)
        return self.activated(self.normalized(y, after))

    def activated(self, x: str) -> str:
        kind = self.one_of(("Relu", "Sigmoid", "Tanh", "LeakyRelu", "HardSwish", "Softplus", "", "Silu"))
        if kind == "Silu":
            return str(self.op("Mul", x, self.op("Sigmoid", x)))
        return str(self.op(kind, x)) if kind else x

    def normalized(self, x: str, width: int) -> str:
        kind = self.choose(6)
        if kind == 0:
            scale, bias, mean = (self.floats(width, around=one) for one in (1, 0, 0))
            variance = self.weight((0.5 + self.random.random(width)).astype(np.float32))
            return str(self.op("BatchNormalization", x, scale, bias, mean, variance))
        if kind == 1:
            return str(self.op("InstanceNormalization", x, *self.affine(width), epsilon=_EPSILON))
        if kind == 2 and width % 2 == 0:
            return str(self.op("GroupNormalization", x, *self.affine(width), num_groups=2, epsilon=_EPSILON))
        return x

    def wider(self) -> None:
        after = self.one_of(_WIDTHS)
        self.x, self.width = self.conv(self.x, self.width, after, self.one_of((1, 3))), after

    def residual(self) -> None:
        inner = self.one_of(_WIDTHS)
        y = self.conv(self.conv(self.x, self.width, inner, 3), inner, self.width)
        self.x = self.activated(self.op("Add", self.x, y))

    def depthwise(self) -> None:
        times = self.one_of((1, 1, 2))
        self.x = self.conv(self.x, self.width, self.width * times, 3, group=self.width)
        self.width *= times

    def grouped(self) -> None:
        if self.width % 2:
            return self.wider()
        after = self.one_of(_WIDTHS)
        self.x, self.width = self.conv(self.x, self.width, after, 3, group=2), after
        return None

    def joined(self) -> None:
        branches = [(self.x, self.width)] + [
            (self.conv(self.x, self.width, width), width) for width in (self.one_of(_WIDTHS), self.one_of(_WIDTHS))
        ]
        branches = branches[self.choose(2) :]
        self.x = self.op("Concat", *[name for name, _ in branches], axis=1)
        self.width = sum(width for _, width in branches)

    def split(self) -> None:
        first = 1 + self.choose(self.width - 1)
        a, b = self.op("Split", self.x, self.ints(first, self.width - first), outputs=2, axis=1)
        b = self.conv(b, self.width - first, first)
        self.x, self.width = self.op("Concat", b, a, axis=1) if self.choose(2) else self.op("Mul", a, b), first * 2
        if self.nodes[-1].op_type == "Mul":
            self.width = first

    def shuffled(self) -> None:
        if self.width % 2:
            return self.wider()
        apart = self.op("Reshape", self.x, self.ints(0, 2, self.width // 2, self.height, self.height))
        turned = self.op("Transpose", apart, perm=[0, 2, 1, 3, 4])
        self.x = self.op("Reshape", turned, self.ints(0, -1, self.height, self.height))
        return None

    def permuted(self) -> None:
        count = self.one_of((self.width, max(2, self.width - 1), self.width + 2))
        picks = self.random.integers(0, self.width, count)
        self.x, self.width = self.op("Gather", self.x, self.ints(*picks.tolist()), axis=1), count

    def sliced(self) -> None:
        start = self.choose(2)
        step = self.one_of((1, 2))
        self.x = self.op("Slice", self.x, self.ints(start), self.ints(self.width), self.ints(1), self.ints(step))
        self.width = len(range(start, self.width, step))

    def padded(self) -> None:
        before, after = self.choose(3), self.choose(3)
        self.x = self.op("Pad", self.x, self.ints(0, before, 0, 0, 0, after, 0, 0))
        self.width += before + after

    def squeezed(self) -> None:
        inner = self.one_of(_WIDTHS)
        y = self.op("GlobalAveragePool", self.x)
        y = self.op("Sigmoid", self.conv(self.conv(y, self.width, inner), inner, self.width))
        self.x = self.op("Mul", self.x, y)

    def scaled(self) -> None:
        constant = self.floats(1, self.width, 1, 1, around=1)
        self.x = self.op(self.one_of(("Mul", "Add", "Div", "Sub")), self.x, constant)

    def averaged(self) -> None:
        mean = self.op("ReduceMean", self.x, self.ints(1), keepdims=1)
        self.x = self.op(self.one_of(("Sub", "Mul", "Add")), self.x, mean)

    def softmaxed(self) -> None:
        self.x = self.op("Softmax", self.x, axis=1)

    def unshuffled(self) -> None:
        if self.height % 2:
            return self.wider()
        self.x = self.op("SpaceToDepth", self.x, blocksize=2)
        self.width, self.height = self.width * 4, self.height // 2
        self.wider()
        return None

    def layer_norm(self) -> None:
        last = self.op("Transpose", self.x, perm=[0, 2, 3, 1])
        y = self.op("LayerNormalization", last, *self.affine(self.width), axis=-1, epsilon=_EPSILON)
        self.x = self.op("Transpose", y, perm=[0, 3, 1, 2])

    def attended(self) -> None:
        """Two heads over the positions, from one product for query, key and value."""
        lanes = self.one_of((2, 4))
        flat = self.op("Reshape", self.x, self.ints(0, self.width, self.height * self.height))
        rows = self.op("Transpose", flat, perm=[0, 2, 1])
        joint = self.op("MatMul", rows, self.floats(self.width, 6 * lanes))
        order = self.one_of(((3, 2, lanes), (2, 3, lanes)))
        apart = self.op("Reshape", joint, self.ints(0, self.height * self.height, *order))
        turned = self.op("Transpose", apart, perm=[2, 0, 3, 1, 4] if order[0] == 3 else [3, 0, 2, 1, 4])
        q, k, v = (self.op("Gather", turned, self.weight(np.array(index, np.int64)), axis=0) for index in range(3))
        scores = self.op("MatMul", q, self.op("Transpose", k, perm=[0, 1, 3, 2]))
        mixed = self.op("MatMul", self.op("Softmax", scores, axis=-1), v)
        merged = self.op("Reshape", self.op("Transpose", mixed, perm=[0, 2, 1, 3]), self.ints(0, 0, 2 * lanes))
        after = self.one_of(_WIDTHS)
        out = self.op("Transpose", self.op("MatMul", merged, self.floats(2 * lanes, after)), perm=[0, 2, 1])
        self.x = self.op("Reshape", out, self.ints(0, after, self.height, self.height))
        self.width = after

    def recurrent(self) -> None:
        """The rows of the image as steps."""
        hidden, directions = self.one_of((4, 6)), self.one_of((1, 2))
        steps = self.op("Transpose", self.op("ReduceMax", self.x, self.ints(3), keepdims=0), perm=[2, 0, 1])
        w = self.floats(directions, 4 * hidden, self.width)
        r = self.floats(directions, 4 * hidden, hidden)
        b = self.floats(directions, 8 * hidden)
        direction = "bidirectional" if directions == 2 else "forward"
        y = self.op("LSTM", steps, w, r, b, hidden_size=hidden, direction=direction)
        last = self.op("Reshape", self.op("Transpose", y, perm=[2, 1, 3, 0]), self.ints(0, -1, self.height, 1))
        self.x = self.op("Expand", last, self.ints(1, 1, 1, self.height))
        self.width = hidden * directions

    def head(self) -> None:
        if self.choose(2):
            pooled = self.op("Flatten", self.op("GlobalAveragePool", self.x))
            size = self.width
        else:
            pooled, size = self.op("Flatten", self.x), self.width * self.height * self.height
        hidden = self.one_of(_WIDTHS)
        y = self.op("Relu", self.op("Gemm", pooled, self.floats(hidden, size), self.floats(hidden), transB=1))
        self.nodes.append(helper.make_node("MatMul", [y, self.floats(hidden, 5)], ["y"], name="last"))

    def model(self) -> onnx.ModelProto:
        """The finished network."""
        image = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, _SIZE, _SIZE])
        result = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 5])
        graph = helper.make_graph(self.nodes, "network", [image], [result], self.weights)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


_BLOCKS = (
    _Network.wider, _Network.wider, _Network.residual, _Network.residual, _Network.depthwise, _Network.grouped,
    _Network.joined, _Network.split, _Network.shuffled, _Network.permuted, _Network.sliced, _Network.padded,
    _Network.squeezed, _Network.scaled, _Network.averaged, _Network.softmaxed, _Network.unshuffled,
    _Network.layer_norm, _Network.attended, _Network.recurrent,
)  # fmt: skip


@strategies.composite
def networks(draw: strategies.DrawFn, most: int = 7) -> onnx.ModelProto:
    """A network of up to ``most`` blocks."""

    def choose(count: int) -> int:
        return draw(strategies.integers(0, count - 1))

    network = _Network(choose)
    network.wider()
    for _ in range(1 + choose(most)):
        if network.width < 2:
            network.wider()
        _BLOCKS[choose(len(_BLOCKS))](network)
    network.head()
    return network.model()
