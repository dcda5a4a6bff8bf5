"""What calibration inputs say: what activations hold, and how weights are rounded best for what they meet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnx_ir as ir

from graphopt.analysis.shapes import Shapes
from graphopt.pruning.layers import Layer
from graphopt.pruning.stages import Feeds
from graphopt.quantization import candidates, ranges
from graphopt.quantization.blocks import Blocks, gather
from graphopt.quantization.candidates import Target
from graphopt.quantization.weights import in_blocks

__all__ = ["blocks", "declare_floats", "histograms"]


def declare_floats(layers: Sequence[Target]) -> None:
    """Notes that float layers read and give floats, even where a function or an unknown operator stands beside them."""
    for layer in layers:
        values = (layer.input, layer.output) if isinstance(layer, Layer) else (layer.node.outputs[0],)
        for value in values:
            if value.type is None:
                value.type = ir.TensorType(ir.DataType.FLOAT)


def histograms(
    model: ir.Model, layers: Sequence[Target], batches: Sequence[Feeds], *, whole: bool, **running: Any
) -> dict[str, ranges.Histogram]:
    """What activations hold, by name.

    Args:
        model: The model.
        layers: Those that will be quantized.
        batches: The inputs.
        whole: Whether what layers give counts too, and what lies between them; else only what they read.
        running: Provider and threads.

    Raises:
        ModelError: ONNX Runtime cannot run the model on them.
    """
    linear = [layer for layer in layers if isinstance(layer, Layer)]
    if whole:
        nodes = [layer.node for layer in linear]
        near = [*nodes, *candidates.companions(model.graph, nodes)]
        wanted = {value: None for node in near for value in (*node.inputs, *node.outputs) if value is not None}
    else:
        wanted = {layer.input: None for layer in linear}
    shapes = Shapes(model)
    floats = [
        value
        for value in wanted
        if value.name and shapes.dtype(value) == ir.DataType.FLOAT and not value.is_initializer()
    ]
    return ranges.collect(model, floats, batches, **running)


def blocks(
    model: ir.Model, layers: Sequence[Layer], bits: int, batches: Sequence[Feeds], **running: Any
) -> dict[Layer, Blocks]:
    """Weights in blocks; a weight that several layers share is rounded once, to the nearest.

    Args:
        model: The model.
        layers: MatMul and Gemm layers.
        bits: 4 or 8.
        batches: The inputs; none to round all to the nearest.
        running: Provider and threads.

    Raises:
        ModelError: ONNX Runtime cannot run the model on them.
    """
    by_weight: dict[ir.Value | None, list[Layer]] = {}
    for layer in layers:
        by_weight.setdefault(layer.node.inputs[1], []).append(layer)
    alone = [some[0] for some in by_weight.values() if len(some) == 1 and batches]
    found = {layer: in_blocks(layer, bits, moments) for layer, moments in gather(model, alone, batches, **running)}
    for some in by_weight.values():
        if some[0] not in found:
            found.update(dict.fromkeys(some, in_blocks(some[0], bits)))
    return found
