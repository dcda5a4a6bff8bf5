"""How much each layer suffers from quantization, measured at the model's outputs.

One session holds the model with a *gate* for each layer: an input that is 0 for the layer as it was and 1 for the layer
with its weight and its activations rounded. So each layer's harm takes one run, and nothing is built again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from graphopt import runtime
from graphopt.analysis.cost import costs
from graphopt.channels.workpiece import Workpiece
from graphopt.errors import ModelError
from graphopt.pruning.stages import Feeds
from graphopt.quantization.candidates import Target, weight_input
from graphopt.quantization.yardstick import Yardstick

__all__ = ["Rounding", "affordable", "harms"]

Array = npt.NDArray[Any]
Range = tuple[float, float]
_MOST_RUNS = 1024
"""Samples times layers, about, that are run to measure harms."""
_MOST_MACS = 2e11
"""The multiplications of these runs, about: some ten seconds."""
_FEWEST = 4
"""Samples that are run whatever that costs."""


@dataclasses.dataclass(frozen=True)
class Rounding:
    """What quantization does to one layer.

    Attributes:
        weight: The rounded weight, in float.
        range: The range of the rounded activations; ``None`` where they stay in float.
        shift: What is added to each output, for what rounding loses on average.
    """

    weight: Array
    range: Range | None
    shift: Array | None = None


def harms(
    model: ir.Model,
    layers: Sequence[Target],
    rounding: Callable[[Target], Rounding],
    yardstick: Yardstick,
    *,
    provider: str = "cpu",
    threads: int | None = None,
    progress: Callable[[float], None] = lambda share: None,
) -> list[float]:
    """The error of the outputs when one layer is quantized and the others are not, for each layer.

    Args:
        model: The model.
        layers: Layers of its main graph.
        rounding: What becomes of a layer.
        yardstick: Measures outputs, on its inputs; see :func:`affordable`.
        provider: Execution provider.
        threads: Intra-op threads.
        progress: Called with the share that is done.

    Raises:
        ModelError: ONNX Runtime cannot run the model.
    """
    session, gates = _gated(model, layers, rounding, provider, threads)
    outputs = [value.name or "" for value in model.graph.outputs]
    wanted = {entry.name for entry in session.get_inputs()}
    found = []
    for number in range(len(layers)):
        progress(number / len(layers))
        fed = {name: np.array(place == number, np.float32) for place, name in enumerate(gates)}
        runs = ({name: array for name, array in feeds.items() if name in wanted} | fed for feeds in yardstick.batches)
        found.append(yardstick.distance(_run(session, outputs, feeds) for feeds in runs))
    return found


def _run(session: Any, outputs: Sequence[str], feeds: Feeds) -> list[Any]:
    try:
        results: list[Any] = session.run(outputs, feeds)
    except runtime.ort_errors() as error:
        raise ModelError(f"ONNX Runtime cannot run the model on the data: {runtime.trim(error)}") from error
    return results


def affordable(model: ir.Model, layers: int, feeds: Feeds) -> int:
    """How many samples the harm of each layer may be measured on.

    Args:
        model: The model.
        layers: How many layers.
        feeds: Of one sample, or as few as the model takes.
    """
    shapes = {name: tuple(array.shape) for name, array in feeds.items() if hasattr(array, "shape")}
    known = {value.name for value in model.graph.inputs}
    macs = costs(model, input_shapes={name: shape for name, shape in shapes.items() if name in known}).macs
    return max(_FEWEST, int(min(_MOST_RUNS, _MOST_MACS / max(macs, 1)) / layers))


def _gated(
    model: ir.Model,
    layers: Sequence[Target],
    rounding: Callable[[Target], Rounding],
    provider: str,
    threads: int | None,
) -> tuple[Any, list[str]]:
    """A session of the model with gates, and their names."""
    work = Workpiece(model)
    gates = []
    for layer in layers:
        gate = ir.Value(name=work.names.fresh("gate"), type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([]))
        work.model.graph.inputs.append(gate)
        gates.append(gate.name or "")
        _add_gate(work, layer, rounding(layer), gate)
    work.model.meta.clear()  # a ZipMap would ride along, which replaces the outputs that are looked at
    session = runtime.open_session(work.model, provider=provider, threads=threads)
    return session, gates


def _add_gate(work: Workpiece, layer: Target, rounded: Rounding, gate: ir.Value) -> None:
    node = work.node(layer.node)
    place = weight_input(node)
    weight, activation = node.inputs[place], node.inputs[1 - place]
    assert weight is not None
    assert activation is not None
    difference = work.constant(node, rounded.weight - layer.read(), f"{layer.name}_difference")
    change = work.insert(node, "Mul", [difference, gate])
    node.replace_input_with(place, work.insert(node, "Add", [weight, change]))
    if rounded.shift is not None:
        lost = work.insert(node, "Mul", [work.constant(node, rounded.shift, f"{layer.name}_shift"), gate])
        total = work.insert(node, "Add", [node.outputs[0], lost], after=True)
        adding = total.producer()
        assert adding is not None
        work.redirect(node.outputs[0], total, adding)
    if rounded.range is None:
        return
    scale, zero = activation_scale(*rounded.range)
    step = work.constant(node, np.array(scale, np.float32), f"{layer.name}_scale")
    origin = work.constant(node, np.array(zero, np.uint8), f"{layer.name}_zero")
    whole = work.insert(node, "QuantizeLinear", [activation, step, origin])
    back = work.insert(node, "DequantizeLinear", [whole, step, origin])
    change = work.insert(node, "Mul", [work.insert(node, "Sub", [back, activation]), gate])
    node.replace_input_with(0, work.insert(node, "Add", [activation, change]))


def activation_scale(low: float, high: float) -> tuple[float, int]:
    """Scale and zero point of uint8 for a range."""
    scale = (high - low) / 255 or 1.0
    return scale, int(np.clip(round(-low / scale), 0, 255))
