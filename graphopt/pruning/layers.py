"""Linear layers: nodes that multiply what they read with a constant matrix, seen as that matrix and its rows.

A convolution is a matrix product too: each position it computes is a row (the window it looks at), and the kernel is
the matrix. So importance, reconstruction and sparsity are written once, for matrices.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from graphopt.analysis import constants
from graphopt.names import label

__all__ = ["OPERATORS", "Layer", "find_layers", "layer_of"]

Array = npt.NDArray[Any]
Indices = npt.NDArray[np.int64]

OPERATORS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.DOUBLE, ir.DataType.BFLOAT16)


@dataclasses.dataclass(frozen=True, eq=False)
class Layer:
    """One node with a constant weight.

    The *matrix* of a layer is ``(groups, outputs, columns)``: ``y[g] = rows[g] @ matrix[g].T + bias[g]``. The columns
    of a convolution run over the window first and over the channels of the group last.

    Attributes:
        node: A Conv, ConvTranspose, Gemm or MatMul.
        weight: Its weight as it lies in the model.
        groups: Groups of channels that do not mix; 1 but for grouped convolutions.
        window: Positions of the window; 1 but for convolutions.
    """

    node: ir.Node
    weight: ir.TensorProtocol
    groups: int
    window: int

    @property
    def name(self) -> str:
        """The node's name."""
        return label(self.node)

    @property
    def input(self) -> ir.Value:
        """What the weight is multiplied with."""
        value = self.node.inputs[0]
        assert value is not None
        return value

    @property
    def output(self) -> ir.Value:
        """The product, bias included where the node adds one."""
        return self.node.outputs[0]

    @property
    def columns(self) -> int:
        """Columns of the matrix of a group."""
        return self._sizes[2]

    @property
    def outputs(self) -> int:
        """Rows of the matrix of a group."""
        return self._sizes[1]

    @property
    def input_axis(self) -> int:
        """The axis of the input that is summed over."""
        return 1 if self._is_convolution else -1

    @property
    def output_axis(self) -> int:
        """The axis of the output that the bias runs along."""
        return 1 if self._is_convolution else -1

    @property
    def weight_axes(self) -> tuple[int, int]:
        """The axes of the weight along which (outputs, inputs) run."""
        if self.node.op_type == "Conv" or self._is_transposed:
            return 0, 1
        return 1, 0

    @property
    def is_float(self) -> bool:
        """Whether the weight can be refitted."""
        return self.weight.dtype in _FLOATS

    @functools.cached_property
    def _is_convolution(self) -> bool:
        return self.node.op_type in ("Conv", "ConvTranspose")

    @functools.cached_property
    def _is_transposed(self) -> bool:
        return self.node.op_type == "Gemm" and bool(self.node.attributes.get_int("transB", 0))

    @functools.cached_property
    def _sizes(self) -> tuple[int, int, int]:
        shape = self.weight.shape.numpy()
        if self.node.op_type == "Conv":
            return self.groups, shape[0] // self.groups, shape[1] * self.window
        if self.node.op_type == "ConvTranspose":
            return self.groups, shape[1], shape[0] // self.groups * self.window
        outputs, inputs = self.weight_axes
        return 1, shape[outputs], shape[inputs]

    @property
    def alpha(self) -> float:
        """What the product is multiplied with before the bias is added."""
        return self.node.attributes.get_float("alpha", 1.0) if self.node.op_type == "Gemm" else 1.0

    @property
    def rows_key(self) -> tuple[object, ...]:
        """The same for layers that read the same rows."""
        if not self._is_convolution:
            return self.input, self.columns
        attributes = ("strides", "pads", "dilations", "auto_pad", "output_padding")
        found = [str(self.node.attributes[name].value) for name in attributes if name in self.node.attributes]
        kernel = tuple(self.weight.shape.numpy()[2:])
        return self.input, self.node.op_type, self.groups, self.columns, kernel, *found

    def read(self) -> Array:
        """The weight, read now, in the machine's byte order."""
        array = self.weight.numpy()
        return np.asarray(array, array.dtype.newbyteorder("="))

    # -- matrices ----------------------------------------------------------------------------------------------------

    def matrix(self, weight: Array | None = None) -> Array:
        """The weight (or another of its shape) as float32 ``(groups, outputs, columns)``."""
        array = np.asarray(self.read() if weight is None else weight)
        if array.dtype != np.float64:
            array = array.astype(np.float32)
        groups, outputs, columns = self._sizes
        if self.node.op_type == "Conv":
            array = array.reshape(groups, outputs, columns // self.window, self.window).transpose(0, 1, 3, 2)
        elif self.node.op_type == "ConvTranspose":
            array = array.reshape(groups, columns // self.window, outputs, self.window).transpose(0, 2, 3, 1)
        elif not self._is_transposed:
            array = array.T
        return np.ascontiguousarray(array.reshape(groups, outputs, columns))

    def from_matrix(self, matrix: Array) -> Array:
        """A matrix as a weight of the layer's shape and dtype."""
        groups, outputs, columns = self._sizes
        channels = columns // self.window
        if self.node.op_type == "Conv":
            array = matrix.reshape(groups, outputs, self.window, channels).transpose(0, 1, 3, 2)
        elif self.node.op_type == "ConvTranspose":
            array = matrix.reshape(groups, outputs, self.window, channels).transpose(0, 3, 1, 2)
        else:
            array = matrix[0] if self._is_transposed else matrix[0].T
        return np.ascontiguousarray(array.reshape(self.weight.shape.numpy()), self.weight.dtype.numpy())

    def columns_of(self, channels: Indices) -> Indices:
        """The columns that belong to channels of the input: ``(len(channels), window)``, within their group."""
        each = self.columns // self.window
        return (channels % each)[:, None] + each * np.arange(self.window)[None, :]

    # -- rows --------------------------------------------------------------------------------------------------------

    def positions(self, output: Sequence[int]) -> int:
        """How many rows an output of this shape holds."""
        axis = self.output_axis % len(output)
        return math.prod(size for place, size in enumerate(output) if place != axis)

    def gives(self, x: Array, output: Sequence[int]) -> bool:
        """Whether an input has as many samples (or tokens) as an output of this shape."""
        if self._is_convolution:
            return bool(x.shape[0] == output[0])
        return bool(x.shape[:-1] == tuple(output[:-1]))

    def rows(self, x: Array, output: Sequence[int], picks: Indices | None = None) -> Array:
        """The rows behind positions of the output: float32 ``(groups, rows, columns)``.

        Args:
            x: The input of the layer.
            output: The shape of what the layer computes from it.
            picks: Positions, counted over the output without its channels; all if ``None``.
        """
        if not self._is_convolution:
            tokens = x.reshape(-1, x.shape[-1])
            return np.asarray(tokens if picks is None else tokens[picks], np.float32)[None]
        batch, channels = x.shape[:2]
        size = math.prod(x.shape[2:])
        sources = self._sources(tuple(x.shape[2:]), tuple(output[2:]))
        each = len(sources)
        picks = np.arange(batch * each) if picks is None else picks
        image, position = picks // each, picks % each
        flat: Array = np.zeros((batch * size + 1, channels), np.float32)
        flat[:-1] = np.moveaxis(x, 1, -1).reshape(-1, channels)
        where: Array = sources[position]
        where = np.where(where < 0, batch * size, where + image[:, None] * size)
        rows: Array = flat[where]  # (rows, window, channels)
        if self.groups == 1:
            return rows.reshape(1, len(picks), -1)
        rows = rows.reshape(len(picks), self.window, self.groups, -1).transpose(2, 0, 1, 3)
        return np.ascontiguousarray(rows).reshape(self.groups, len(picks), -1)

    def results(self, y: Array, picks: Indices | None = None) -> Array:
        """What the layer gives at positions of its output: float32 ``(groups, rows, outputs)``."""
        rows = np.moveaxis(y, self.output_axis, -1).reshape(-1, y.shape[self.output_axis])
        rows = np.asarray(rows if picks is None else rows[picks], np.float32)
        return rows.reshape(len(rows), self.groups, -1).transpose(1, 0, 2)

    @functools.lru_cache(maxsize=4)  # noqa: B019 - layers live as long as the one call that made them
    def _sources(self, inputs: tuple[int, ...], outputs: tuple[int, ...]) -> Indices:
        """For each position of the output and each place of the window the position of the input; -1 outside."""
        rank = len(inputs)
        kernel = self.weight.shape.numpy()[2:]
        attributes = self.node.attributes
        strides = list(attributes.get_ints("strides", [1] * rank))
        dilations = list(attributes.get_ints("dilations", [1] * rank))
        begins = self._begins(inputs, outputs, strides, dilations)
        total: Array = np.zeros((1, 1), np.int64)
        outside: Array = np.zeros((1, 1), bool)
        for axis in range(rank):
            at, tap = np.arange(outputs[axis])[:, None], np.arange(kernel[axis])[None, :]
            place: Array
            if self.node.op_type == "Conv":
                place = at * strides[axis] + tap * dilations[axis] - begins[axis]
                bad = (place < 0) | (place >= inputs[axis])
            else:
                place, left = np.divmod(at + begins[axis] - tap * dilations[axis], strides[axis])
                bad = (left != 0) | (place < 0) | (place >= inputs[axis])
            grid = (len(total), outputs[axis], total.shape[1], kernel[axis])
            total = (total[:, None, :, None] * inputs[axis] + place[None, :, None, :]).reshape(
                grid[0] * grid[1], grid[2] * grid[3]
            )
            outside = (outside[:, None, :, None] | bad[None, :, None, :]).reshape(total.shape)
        return np.where(outside, -1, total)

    def _begins(
        self, inputs: Sequence[int], outputs: Sequence[int], strides: Sequence[int], dilations: Sequence[int]
    ) -> list[int]:
        """The padding before each axis."""
        rank = len(inputs)
        mode = self.node.attributes.get_string("auto_pad", "NOTSET")
        if mode not in ("SAME_UPPER", "SAME_LOWER"):
            return [0] * rank if mode == "VALID" else list(self.node.attributes.get_ints("pads", [0] * 2 * rank))[:rank]
        begins = []
        for axis, kernel in enumerate(self.weight.shape.numpy()[2:]):
            reach = (outputs[axis] - 1) * strides[axis] + (kernel - 1) * dilations[axis] + 1 - inputs[axis]
            begins.append(max(0, reach + (mode == "SAME_LOWER")) // 2)
        return begins


def find_layers(graph: ir.Graph) -> Iterator[Layer]:
    """The linear layers of one graph, in order; nothing of nested graphs."""
    for node in graph:
        layer = layer_of(node)
        if layer is not None:
            yield layer


def layer_of(node: ir.Node) -> Layer | None:
    """The node as a layer; ``None`` if it is none, or one whose rows cannot be told from shapes."""
    if node.domain or node.op_type not in OPERATORS or len(node.inputs) < 2 or node.inputs[0] is None:
        return None
    weight = constants.constant(node.inputs[1])
    if weight is None or constants.constant(node.inputs[0]) is not None:
        return None
    if any(attribute.is_ref() for attribute in node.attributes.values()):
        return None
    shape = weight.shape.numpy()
    attributes = node.attributes
    if node.op_type in ("Gemm", "MatMul"):
        if len(shape) != 2 or attributes.get_int("transA", 0) == 1 or not math.prod(shape):
            return None
        return Layer(node, weight, 1, 1)
    if len(shape) < 3 or not math.prod(shape):
        return None
    if node.op_type == "ConvTranspose" and (
        attributes.get("output_shape") is not None or attributes.get_string("auto_pad", "NOTSET") != "NOTSET"
    ):
        return None
    return Layer(node, weight, attributes.get_int("group", 1), math.prod(shape[2:]))
