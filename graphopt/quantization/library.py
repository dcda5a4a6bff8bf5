"""The one place that talks to ``onnxruntime.quantization``, which puts the quantized operators in.

Its quantizer class is used, on a message in memory. The functions around it would write the model to files, hold all
activations of all samples in memory, and log what no user can act on.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from graphopt import proto
from graphopt.analysis.shapes import Shapes
from graphopt.errors import ModelError
from graphopt.interop.messages import whole
from graphopt.names import Names
from graphopt.rewrite import edit

__all__ = ["Range", "static"]

Range = tuple[float, float]

_MARK = "@"
"""Ends the numbers that stand for names."""
_INFERRED = ("onnx.infer", "onnxruntime.quant")
"""The mark by which the library knows that a model has types, so that it infers none (through files)."""


def static(
    model: ir.Model,
    nodes: Iterable[str],
    ranges: Mapping[str, Range],
    *,
    per_channel: bool = True,
    reduce_range: bool = False,
) -> ir.Model:
    """Puts QuantizeLinear and DequantizeLinear around nodes: uint8 activations, symmetric int8 weights.

    Args:
        model: The model, with nodes of distinct names; not changed.
        nodes: Names of the nodes to quantize.
        ranges: The range of each activation that they read or give.
        per_channel: A scale for each output channel of a weight.
        reduce_range: Weights of 7 bits, for x86 processors without VNNI, whose sums of products may saturate.

    Raises:
        ModelError: The library refuses the model.
    """
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization.calibrate import TensorData
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

    chosen = list(nodes)
    kinds = sorted({node.op_type for node in model.graph if node.name in set(chosen)})

    def run(message: Any, aliases: Mapping[str, str]) -> Any:
        data = {
            aliases[name]: TensorData(lowest=np.array(low, np.float32), highest=np.array(high, np.float32))
            for name, (low, high) in ranges.items()
            if name in aliases
        }
        quantizer = QDQQuantizer(
            message, per_channel, reduce_range, QuantType.QInt8, QuantType.QUInt8, data, chosen, [], kinds, {}
        )
        return quantizer.quantize_model()

    quantized = _through(model, run)
    _drop_idle_pairs(quantized, set(chosen))
    return quantized


def _drop_idle_pairs(model: ir.Model, chosen: Collection[str]) -> None:
    """Lets what reads a product in float read it unrounded: integer kernels of MatMul and Gemm give floats, too."""
    for node in list(model.graph):
        if node.op_type != "DequantizeLinear" or node.inputs[0] is None:
            continue
        rounding = node.inputs[0].producer()
        product = rounding.inputs[0] if rounding is not None else None
        giver = product.producer() if product is not None else None
        if product is None or giver is None or giver.op_type not in ("MatMul", "Gemm"):
            continue
        if any(user.name in chosen for user, _ in node.outputs[0].uses()):
            continue
        edit.redirect(node.outputs[0], product)
        edit.erase_if_dead([node])
    for name, value in list(model.graph.initializers.items()):
        if not value.uses() and not value.is_graph_output() and not value.is_graph_input():
            del model.graph.initializers[name]


def _through(model: ir.Model, run: Any) -> ir.Model:
    """The model as a message, what the library makes of it, and back."""
    work = model.clone()  # without what rides along in ``meta``, such as a ZipMap, which refers to names
    aliases = _renamed(work)
    shapes = Shapes(work)
    for node in work.graph:
        for value in node.outputs:
            dtype = shapes.dtype(value)
            if value.type is None and dtype is not None:
                value.type = ir.TensorType(dtype)
    work.metadata_props[_INFERRED[0]] = _INFERRED[1]
    message = whole(work)
    with _silence():
        try:
            result = run(message, aliases)
        except (ValueError, RuntimeError, TypeError, AttributeError, KeyError, IndexError) as error:
            raise ModelError(
                f"onnxruntime.quantization cannot quantize the model: {type(error).__name__}: {error}",
                hint="Leave the layer that it names out with exclude, or report it with the model.",
            ) from error
    quantized = proto.from_proto(result)
    quantized.metadata_props.pop(_INFERRED[0], None)
    if _INFERRED[0] in model.metadata_props:
        quantized.metadata_props[_INFERRED[0]] = model.metadata_props[_INFERRED[0]]
    quantized.producer_name, quantized.producer_version = model.producer_name, model.producer_version
    _restore(quantized, list(aliases), {node.name or "" for node in model.graph})
    quantized.meta.update(model.meta)
    return quantized


def _renamed(model: ir.Model) -> dict[str, str]:
    """Gives each value of the main graph a number for a name, since the library makes up names from others.

    Returns:
        The new names by the old ones, in the order of the numbers.
    """
    values = dict.fromkeys([*model.graph.inputs, *model.graph.initializers.values()])
    values.update(dict.fromkeys(output for node in model.graph for output in node.outputs if output.name))
    aliases = {value.name or "": f"{number}{_MARK}" for number, value in enumerate(values)}
    for value in values:
        value.name = aliases[value.name or ""]
    return aliases


def _restore(model: ir.Model, originals: Sequence[str], nodes: Collection[str]) -> None:
    """Undoes :func:`_renamed`; what the library made up gets names after the original ones.

    Args:
        model: Changed in place.
        originals: Names of values by number.
        nodes: Names of nodes that are not the library's.
    """

    def original(name: str) -> str:
        number, mark, suffix = name.partition(_MARK)
        return originals[int(number)] + suffix if mark and number.isdecimal() else name

    graph = model.graph
    named = dict.fromkeys([*graph.inputs, *graph.initializers.values()])
    named.update(dict.fromkeys(output for node in graph for output in node.outputs if output.name))
    kept = {f"{number}{_MARK}" for number in range(len(originals))}
    made = [value for value in named if value.name not in kept]
    for value in named:
        if value.name in kept:
            value.name = original(value.name or "")
    names = Names(model)
    for value in made:
        if original(value.name or "") != value.name:
            value.name = names.fresh(original(value.name or ""))
    for node in graph:
        if node.name not in nodes and _MARK in (node.name or ""):
            node.name = names.fresh(original(node.name or ""))


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """The library logs through the root logger, about what is no concern of the user's."""
    root = logging.getLogger()
    level = root.manager.disable
    logging.disable(max(level, logging.WARNING))
    try:
        yield
    finally:
        logging.disable(level)
