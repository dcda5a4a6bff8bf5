"""How much memory one run of a model takes at its peak, from shapes alone.

What is counted: the most bytes of tensors, weights apart, that exist at one time while the nodes run one after the
other in the order in which the model holds them, for inputs of stated shapes.

- What a node reads and what it computes exist at the same time. An input of the model exists throughout, an output from
  its node to the end, any other tensor from its node to the last one that reads it, control flow included.
- These take no memory of their own: views (Reshape, Squeeze, ...); the result of an elementwise operator that can
  overwrite an operand of as many bytes which nothing reads later; and floats around an operator that runtimes compute
  in 8 bits, for which it stands between DequantizeLinear and QuantizeLinear only.
- The nodes of an If, Loop or Scan run where it stands, a body once; both branches of an If are there, one at a time.
- What runs once at load counts as the weights that it is made from.

Not covered: what a runtime rounds up, keeps or cannot reuse in its arena; scratch space of kernels (unfolded
convolutions); weights copied into another layout; other orders of execution and fusions beyond those above; types that
the hardware computes in wider ones; strings, sequences and tensors of unknown shape, which count as nothing; and the
runtime itself. So it serves to compare a model with what becomes of it. Of eight real models in floats ONNX Runtime's
CPU provider took 0.8 to 1.5 times as much, of one in int8 1.7 times, with the arena off; with it, and with its session,
two to four times as much as these tensors and the weights.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from graphopt import walk
from graphopt.analysis.cost import InputShapes, Meter, metered

if TYPE_CHECKING:
    import onnx_ir as ir

    from graphopt.analysis.shapes import Shapes

__all__ = ["Buffer", "Schedule", "peak_bytes", "schedule"]

_VIEWS: Final = frozenset({"Dropout", "Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze"})
_OVERWRITING: Final = frozenset(
    {
        "Abs", "Add", "BatchNormalization", "Ceil", "Clip", "Div", "Elu", "Erf", "Exp", "Floor", "Gelu", "HardSigmoid",
        "HardSwish", "LeakyRelu", "Log", "Mish", "Mul", "Neg", "PRelu", "Reciprocal", "Relu", "Round", "Selu",
        "Sigmoid", "Softmax", "Softplus", "Softsign", "Sqrt", "Sub", "Swish", "Tanh", "ThresholdedRelu",
    }
)  # fmt: skip
"""Operators whose result can take the place of an operand."""
_EIGHT_BIT: Final = frozenset(
    {
        "Add", "AveragePool", "Concat", "Conv", "Flatten", "Gather", "Gemm", "GlobalAveragePool", "LeakyRelu", "MatMul",
        "MaxPool", "Mul", "Reshape", "Resize", "Sigmoid", "Slice", "Softmax", "Split", "Squeeze", "Transpose",
        "Unsqueeze",
    }
)  # fmt: skip
"""Operators that ONNX Runtime's CPU provider computes on quantized tensors, or that only move them."""
_WEIGHTED: Final = frozenset({"Add", "Conv", "Gemm", "MatMul", "Mul"})
_ABSORBED: Final = frozenset({"Clip", "Relu"})
"""Operators that the rounding of what is before them does as well."""


@dataclasses.dataclass(slots=True, eq=False)
class Buffer:
    """A stretch of memory and its time.

    Attributes:
        value: The value whose bytes it takes.
        born: The step from which on it exists.
        dies: The last step at which it does; beyond the last one of all for what the caller keeps.
    """

    value: ir.Value
    born: int
    dies: int


@dataclasses.dataclass(frozen=True, eq=False)
class Schedule:
    """When each tensor of a model exists.

    Attributes:
        steps: The node of each step; one that holds graphs has a step before and one after them.
        buffers: Memory for all tensors but constants.
    """

    steps: Sequence[ir.Node]
    buffers: Sequence[Buffer]

    def over_time(self, sizes: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """The bytes that exist at each step (in a model without nodes: at the only one).

        Args:
            sizes: Bytes of each buffer, ``[buffers]``.
        """
        count, (born, gone) = self._count, self._times
        sizes = np.asarray(sizes, np.float64)
        change = np.bincount(born, sizes, count + 1) - np.bincount(gone, sizes, count + 1)
        found: npt.NDArray[np.float64] = change.cumsum()[:count]
        return found

    @property
    def _count(self) -> int:
        return max(1, len(self.steps))

    @functools.cached_property
    def _times(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """When each buffer comes, and when it is no longer there."""
        born = np.array([one.born for one in self.buffers], np.int64)
        dies = np.array([one.dies for one in self.buffers], np.int64)
        return born, np.minimum(dies + 1, self._count)


def peak_bytes(model: ir.Model, shapes: Shapes | None = None, *, input_shapes: InputShapes | None = None) -> int:
    """The most bytes of tensors other than weights that exist at one time in a run; see the module's page.

    Args:
        model: The model, left as it is.
        shapes: Its shapes, if the caller has them already.
        input_shapes: Extents by input name, for symbolic dimensions; those of no input count as 1.

    Raises:
        UsageError: ``input_shapes`` names no input or contradicts the model.
        ModelError: A function calls itself, or is called with too many operands.
        LimitReached: Inlined, the model is too large.
    """
    model, meter = metered(model, shapes, input_shapes)
    found = schedule(model, meter)
    return int(found.over_time([meter.bytes_of(one.value) for one in found.buffers]).max())


def schedule(model: ir.Model, meter: Meter) -> Schedule:
    """When each tensor of ``model`` exists; calls of functions count as single nodes.

    Args:
        model: The model.
        meter: Of that model.
    """
    return _Scheduler(model, meter).run()


class _Scheduler:
    """Lays out time first, then memory."""

    def __init__(self, model: ir.Model, meter: Meter) -> None:
        self._graph = model.graph
        self._meter = meter
        self._steps: list[ir.Node] = []
        self._done: list[tuple[int, ir.Node]] = []  # nodes, and the step at which their outputs are there
        self._born: dict[ir.Value, int] = dict.fromkeys(model.graph.inputs, 0)
        self._dies: dict[ir.Value, int] = {}
        self._buffers: dict[ir.Value, Buffer] = {}
        self._fused: dict[ir.Node, bool] = {}

    def run(self) -> Schedule:
        self._walk(self._graph)
        self._read((*self._graph.inputs, *self._graph.outputs), len(self._steps))
        for value in [value for value in self._born if value.producer() is None]:
            self._own(value)
        for step, node in self._done:
            for index, value in enumerate(node.outputs):
                shared = self._shared(step, node) if index == 0 and not node.domain else None
                if shared is None:
                    self._own(value)
                else:
                    self._join(value, shared)
        return Schedule(self._steps, list(dict.fromkeys(self._buffers.values())))

    # -- time --------------------------------------------------------------------------------------------------------

    def _walk(self, graph: ir.Graph) -> None:
        for node in graph:
            self._steps.append(node)
            read = list(node.inputs)
            bodies = walk.subgraphs(node)
            for body in bodies:
                self._born.update(dict.fromkeys(body.inputs, len(self._steps) - 1))
                self._walk(body)
                self._read(body.outputs, len(self._steps) - 1)
                read += walk.captures(body)
            if bodies:
                self._steps.append(node)
            now = len(self._steps) - 1
            self._read(read, now)
            self._born.update(dict.fromkeys(node.outputs, now))
            self._done.append((now, node))

    def _read(self, values: Iterable[ir.Value | None], step: int) -> None:
        for value in values:
            if value is not None:
                self._dies[value] = max(step, self._dies.get(value, step))

    # -- memory ------------------------------------------------------------------------------------------------------

    def _own(self, value: ir.Value) -> None:
        if value not in self._meter.constants:
            born = self._born[value]
            self._buffers[value] = Buffer(value, born, self._dies.get(value, born))

    def _join(self, value: ir.Value, shared: Buffer) -> None:
        self._buffers[value] = shared
        shared.dies = max(shared.dies, self._dies.get(value, shared.dies))
        node = value.producer()
        if node is not None and node.op_type == "QuantizeLinear":
            shared.value = value

    def _shared(self, step: int, node: ir.Node) -> Buffer | None:
        """The memory of an operand that the first output of a node takes, if it takes one."""
        operands = [self._buffers[value] for value in node.inputs if value is not None and value in self._buffers]
        first = operands[0] if operands and node.inputs[0] in self._buffers else None
        if node.op_type in _VIEWS:
            return first
        if node.op_type == "DequantizeLinear":
            return first if all(map(self._is_fused, _readers(node.outputs[0]))) else None
        if node.op_type == "QuantizeLinear":
            source = node.inputs[0].producer() if node.inputs[0] is not None else None
            if source is not None and source.op_type in _ABSORBED and source.inputs[0] is not None:
                source = source.inputs[0].producer()
            return first if self._is_fused(source) else None
        if node.op_type not in _OVERWRITING:
            return None
        size = self._meter.bytes_of(node.outputs[0])
        free = [one for one in operands if one.dies == step and self._meter.bytes_of(one.value) == size]
        return free[0] if free else None

    def _is_fused(self, node: ir.Node | None) -> bool:
        """Whether a node is computed in 8 bits: all that it reads is dequantized, and all that reads it quantizes."""
        if node is None or node.domain or node.op_type not in _EIGHT_BIT:
            return False
        if node not in self._fused:
            self._fused[node] = self._reads_quantized(node) and _is_quantized(node.outputs)
        return self._fused[node]

    def _reads_quantized(self, node: ir.Node) -> bool:
        held = [
            value
            for place, value in enumerate(node.inputs)
            if value is not None
            and (value not in self._meter.constants or place == 0 or (place == 1 and node.op_type in _WEIGHTED))
        ]
        sources = [value.producer() for value in held]
        return all(node is not None and node.op_type == "DequantizeLinear" for node in sources)


def _readers(value: ir.Value) -> list[ir.Node | None]:
    """The nodes that read a value; None for the caller."""
    return [*(use.node for use in value.uses()), *([None] if value.is_graph_output() else [])]


def _is_quantized(values: Iterable[ir.Value]) -> bool:
    """Whether all that reads values rounds them."""
    for value in values:
        readers = _readers(value)
        if len(readers) == 1 and readers[0] is not None and readers[0].op_type in _ABSORBED:
            readers = _readers(readers[0].outputs[0])
        if not readers or any(node is None or node.op_type != "QuantizeLinear" for node in readers):
            return False
    return True
