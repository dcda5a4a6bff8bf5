"""What the outputs of a model are: scores of classes, probabilities, their logarithms, or other values."""

from __future__ import annotations

from typing import Literal, TypeAlias

import onnx_ir as ir
import torch
from torch import Tensor

__all__ = ["Kind", "kinds", "log_probabilities"]

Kind: TypeAlias = Literal["logits", "probabilities", "log-probabilities", "values"]

_SMALL = 1e-12
_PASSED = frozenset({"Identity", "Cast", "Reshape", "Flatten", "Squeeze"})


def kinds(model: ir.Model) -> list[Kind]:
    """The kind of each output: rank-2 floats with more than one column are classes."""
    return [_kind(value) for value in model.graph.outputs]


def _kind(value: ir.Value) -> Kind:
    node = value.producer()
    while node is not None and node.op_type in _PASSED and node.inputs and node.inputs[0] is not None:
        node = node.inputs[0].producer()
    name = node.op_type if node is not None else ""
    if name == "LogSoftmax":
        return "log-probabilities"
    if name == "Softmax":
        return "probabilities"
    shape = value.shape
    if name in ("Sigmoid", "Tanh") or shape is None or len(shape) != 2 or shape[1] == 1:
        return "values"
    return "logits"


def log_probabilities(output: Tensor, kind: Kind, temperature: float = 1.0) -> Tensor:
    """Logarithms of the probabilities of the classes along the last axis, at a temperature."""
    if kind == "probabilities":
        output = output.clamp(min=_SMALL).log()
        if temperature == 1.0:
            return output
    elif kind == "log-probabilities" and temperature == 1.0:
        return output
    return torch.log_softmax(output / temperature, -1)
