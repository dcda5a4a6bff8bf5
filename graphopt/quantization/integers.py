"""Integer products whose activations are quantized at run time, to the range that they happen to have."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnx_ir as ir

from graphopt.channels.workpiece import Workpiece
from graphopt.pruning.layers import Layer
from graphopt.quantization.weights import quantized

__all__ = ["dynamic"]

Triple = tuple[ir.Value, ir.Value, ir.Value]


def dynamic(model: ir.Model, layers: Iterable[Layer], *, whole: bool = False, levels: int = 127) -> ir.Model:
    """Replaces MatMul and Gemm by MatMulInteger, in the pattern that ONNX Runtime fuses into one kernel.

    Args:
        model: The model; not changed.
        layers: MatMul and Gemm layers of its main graph.
        whole: One scale for a weight, not one for each output.
        levels: The largest integer of a weight.
    """
    work = Workpiece(model)
    activations: dict[ir.Value, Triple] = {}
    weights: dict[tuple[int, tuple[int, int]], Triple] = {}
    for layer in layers:
        node = work.node(layer.node)
        if layer.input not in activations:
            activations[layer.input] = _rounded(work, node)
        key = (id(layer.weight), layer.weight_axes)
        if key not in weights:
            weights[key] = _weight(work, layer, whole, levels)
        _replace(work, layer, activations[layer.input], weights[key])
    work.remove_orphans()
    return work.model


def _rounded(work: Workpiece, node: ir.Node) -> Triple:
    """The activation in uint8, its scale and its zero point."""
    rounding = ir.Node(
        "", "DynamicQuantizeLinear", [node.inputs[0]], num_outputs=3, name=work.names.fresh(f"{node.name}_rounding")
    )
    for output, what in zip(rounding.outputs, ("rounded", "scale", "zero"), strict=True):
        output.name = work.names.fresh(f"{node.name}_{what}")
    assert node.graph is not None
    node.graph.insert_before(node, rounding)
    rounded, scale, zero = rounding.outputs
    return rounded, scale, zero


def _weight(work: Workpiece, layer: Layer, whole: bool, levels: int) -> Triple:
    """The weight in int8 as ``(inputs, outputs)``, its scales and its zero points."""
    node = work.node(layer.node)
    contents, scale = quantized(layer, whole=whole, levels=levels)
    if layer.weight_axes == (0, 1):
        contents = np.ascontiguousarray(contents.T)
    scales = scale.reshape(()) if whole else scale.reshape(-1)
    name = node.inputs[1].name if node.inputs[1] is not None else layer.name
    return (
        work.constant(node, contents, f"{name}_integers"),
        work.constant(node, scales, f"{name}_scales"),
        work.constant(node, np.zeros(scales.shape, np.int8), f"{name}_zeros"),
    )


def _replace(work: Workpiece, layer: Layer, activation: Triple, weight: Triple) -> None:
    """Makes the node what comes last: the product with the scales, or the sum with the bias of a Gemm."""
    node = work.node(layer.node)
    sums = work.insert(node, "MatMulInteger", [activation[0], weight[0], activation[2], weight[2]])
    floats = work.insert(node, "Cast", [sums], {"to": int(ir.DataType.FLOAT)})
    scales = work.insert(node, "Mul", [activation[1], weight[1]])
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    operands = (floats, scales)
    if bias is not None:
        operands = (work.insert(node, "Mul", operands), bias)
    for number, value in enumerate(operands):
        work.replace_input(layer.node, number, value)
    node.resize_inputs(2)
    node.op_type = "Add" if bias is not None else "Mul"
    node.attributes.clear()
