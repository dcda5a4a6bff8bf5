"""Where the bias of a layer lies, and how it moves: the mean of what a layer lost costs nothing to give back."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from graphopt.analysis import constants
from graphopt.names import Names
from graphopt.pruning.layers import Layer
from graphopt.rewrite import edit

__all__ = ["Bias", "bias_of"]

Array = npt.NDArray[Any]


@dataclasses.dataclass(frozen=True, eq=False)
class Bias:
    """A constant with one number for each output of a layer.

    Attributes:
        node: Who adds it.
        index: The number of its input that holds it.
        factor: What the node multiplies it with.
    """

    node: ir.Node
    index: int
    factor: float

    def shift(self, amount: Array, model: ir.Model) -> Array:
        """Adds to it, for this node alone, and says what was added after rounding; ``(groups * outputs,)`` each."""
        value = self.node.inputs[self.index]
        old = constants.array(value)
        assert value is not None
        assert old is not None
        wide = old.astype(np.float64)
        new = (wide + amount.reshape(old.shape) / self.factor).astype(old.dtype)
        self._write(value, new, model)
        added: Array = (new.astype(np.float64) - wide).reshape(-1) * self.factor
        return added

    def _write(self, value: ir.Value, contents: Array, model: ir.Model) -> None:
        alone = len(value.uses()) == 1 and not value.is_graph_output()
        if alone and value.is_initializer():
            value.const_value = constants.tensor(contents, value.name)
            return
        name = Names(model).fresh(value.name)
        new = edit.constant_value(name, constants.tensor(contents, name))
        model.graph.register_initializer(new)
        self.node.replace_input_with(self.index, new)
        producer = value.producer()
        if producer is not None:
            edit.erase_if_dead([producer])


def bias_of(layer: Layer) -> Bias | None:
    """The bias of a layer of the main graph; of a MatMul the constant that an Add brings right after it."""
    node, factor, index = layer.node, 1.0, 2
    if node.op_type == "MatMul":
        uses = list(layer.output.uses())
        if len(uses) != 1 or layer.output.is_graph_output() or uses[0].node.graph is not node.graph:
            return None
        node, index = uses[0].node, 1 - uses[0].idx
        if node.op_type != "Add" or node.domain:
            return None
    elif node.op_type == "Gemm":
        factor = node.attributes.get_float("beta", 1.0)
    tensor = constants.constant(node.inputs[index]) if index < len(node.inputs) else None
    if tensor is None or not factor or tensor.dtype != layer.weight.dtype:
        return None
    shape = tensor.shape.numpy()
    outputs = layer.groups * layer.outputs
    is_vector = bool(shape) and shape[-1] == outputs == tensor.size
    return Bias(node, index, factor) if is_vector else None
