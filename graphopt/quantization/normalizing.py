"""Layers in the one form that all schemes know: constants in initializers, Gemm without factors, vectors for biases."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from onnx_ir.passes.common import LiftConstantsToInitializersPass

from graphopt.analysis import constants
from graphopt.names import Names
from graphopt.pruning.layers import Layer, find_layers
from graphopt.rewrite import edit

__all__ = ["normalize"]


def normalize(model: ir.Model) -> None:
    """Rewrites the layers of the main graph, in place: names of their own, and each its own bias.

    ``alpha`` goes into the weight and ``beta`` into the bias; a bias that is no vector of constants is added after the
    product. Weights that layers read along different axes are parted, since they need different scales.
    """
    LiftConstantsToInitializersPass(lift_all_constants=True)(model)
    names = Names(model)
    _name_nodes(model, names)
    axes: dict[ir.Value, tuple[int, int]] = {}
    for layer in list(find_layers(model.graph)):
        if not layer.is_float:
            continue
        if layer.node.op_type == "Gemm":
            _part_bias(model, layer, names)
        elif len(layer.node.inputs) > 2 and layer.node.inputs[2] is not None:
            _own_bias(model, layer, names)
        weight = layer.node.inputs[1]
        assert weight is not None
        if axes.setdefault(weight, layer.weight_axes) != layer.weight_axes:
            layer.node.replace_input_with(1, _constant(model, layer.read(), weight.name, names))
    for name, value in list(model.graph.initializers.items()):
        if not value.uses() and not value.is_graph_output() and not value.is_graph_input():
            del model.graph.initializers[name]


def _name_nodes(model: ir.Model, names: Names) -> None:
    seen: set[str] = set()
    for node in model.graph:
        if not node.name or node.name in seen:
            output = next((value.name for value in node.outputs if value.name), None)
            node.name = names.fresh(f"{output or 'node'}_{node.op_type}")
        seen.add(node.name)


def _part_bias(model: ir.Model, layer: Layer, names: Names) -> None:
    """Leaves a Gemm a plain product, with a vector for a bias or none."""
    node = layer.node
    weight, bias = node.inputs[1], node.inputs[2] if len(node.inputs) > 2 else None
    beta = np.float32(node.attributes.get_float("beta", 1.0))
    if layer.alpha != 1 and weight is not None and layer.weight.dtype == ir.DataType.FLOAT:
        node.replace_input_with(1, _constant(model, layer.read() * np.float32(layer.alpha), weight.name, names))
        node.attributes.pop("alpha")
    node.attributes.pop("beta", None)
    if bias is None:
        return
    contents = constants.array(bias)
    if contents is not None and contents.size in (1, layer.outputs) and contents.dtype == np.float32:
        vector = np.broadcast_to(contents.reshape(-1) * beta, (layer.outputs,))
        node.replace_input_with(2, _constant(model, np.array(vector), bias.name, names))
        return
    node.replace_input_with(2, None)
    node.resize_inputs(2)
    _add_after(model, node, bias, float(beta), names)


def _own_bias(model: ir.Model, layer: Layer, names: Names) -> None:
    """A copy of a bias that others read, too: its scale follows from the layer's."""
    bias = layer.node.inputs[2]
    contents = constants.array(bias)
    if bias is not None and contents is not None and len(bias.uses()) > 1:
        layer.node.replace_input_with(2, _constant(model, np.array(contents), bias.name, names))


def _add_after(model: ir.Model, node: ir.Node, bias: ir.Value, beta: float, names: Names) -> None:
    output = node.outputs[0]
    if beta != 1:
        dtype = output.dtype or ir.DataType.FLOAT
        factor = _constant(model, np.array(beta, dtype.numpy()), f"{node.name}_beta", names)
        scaled = ir.node("Mul", [bias, factor], name=names.fresh(f"{node.name}_bias"))
        scaled.outputs[0].name = names.fresh(scaled.name)
        model.graph.insert_before(node, scaled)
        bias = scaled.outputs[0]
    # The new node gives what the old one gave; the old one's output becomes an inner value.
    total = ir.node("Add", [output, bias], name=names.fresh(f"{node.name}_Add"))
    total.outputs[0].name = names.fresh(f"{node.name}_sum")
    total.outputs[0].type, total.outputs[0].shape = output.type, output.shape
    model.graph.insert_after(node, total)
    was = output.name
    users = [(user, index) for user, index in output.uses() if user is not total]
    for user, index in users:
        user.replace_input_with(index, total.outputs[0])
    for index, value in enumerate(model.graph.outputs):
        if value is output:
            model.graph.outputs[index] = total.outputs[0]
            output.name, total.outputs[0].name = names.fresh(f"{node.name}_product"), was


def _constant(model: ir.Model, contents: npt.NDArray[Any], name: str | None, names: Names) -> ir.Value:
    fresh = names.fresh(name)
    value = edit.constant_value(fresh, constants.tensor(contents, fresh))
    model.graph.register_initializer(value)
    return value
