"""Writes fitted weights and biases into the pruned model."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from graphopt.analysis import constants
from graphopt.channels.workpiece import Workpiece
from graphopt.pruning.moments import Fit
from graphopt.pruning.reconstruction.biases import beta, bias_of, bias_sum
from graphopt.pruning.reconstruction.tasks import Task
from graphopt.rewrite import edit

__all__ = ["write"]

Array = npt.NDArray[Any]


def write(task: Task, fit: Fit, workpiece: Workpiece) -> None:
    layer, leader = task.pruned, task.leader
    if leader is not None:
        layer.node.replace_input_with(1, leader.pruned.node.inputs[1])
    elif fit.ridge is not None:
        _set(layer.node, 1, layer.from_matrix(fit.weight / layer.alpha), workpiece, task.ties)
    if fit.bias is None:
        return
    where = bias_sum(layer.node) if layer.node.op_type == "MatMul" else (layer.node, 2)
    assert where is not None
    node, index = where
    if leader is not None and bias_of(layer) is not None:
        node.replace_input_with(index, bias_of(leader.pruned))
        return
    bias: Array = fit.bias.reshape(-1)
    if node is layer.node:
        bias = (bias / beta(node)).astype(layer.weight.dtype.numpy())
    else:
        old = constants.constant(node.inputs[index])
        assert old is not None
        array = old.numpy()
        # Targets are taken before the Add, so the fitted bias comes on top.
        bias = (array.astype(np.float64) + bias.reshape(array.shape)).astype(array.dtype)
    _set(node, index, bias, workpiece, task.ties)


def _set(node: ir.Node, index: int, contents: Array, workpiece: Workpiece, ties: int) -> None:
    """Lets a copied node, and those ``ties`` alone that share its constant, read a new one; theirs keeps the name."""
    old = node.inputs[index] if index < len(node.inputs) else None
    if old is not None and old.is_initializer() and len(list(old.uses())) == ties and not old.is_graph_output():
        old.const_value = constants.tensor(contents, old.name)
        return
    name = old.name if old is not None else f"{node.name or node.op_type}_bias"
    new = workpiece.constant(node, contents, name)
    if index >= len(node.inputs):
        node.resize_inputs(index + 1)
    node.replace_input_with(index, new)
    producer = None if old is None else old.producer()
    if producer is not None and producer.op_type == "Constant" and edit.is_dead(producer):
        edit.erase(producer)
