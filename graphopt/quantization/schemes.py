"""The ways to quantize: what each does to a layer, and to a model."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np
import onnx_ir as ir

from graphopt.pruning.layers import Layer
from graphopt.quantization import candidates, integers, library, tables, weights
from graphopt.quantization.blocks import Blocks
from graphopt.quantization.candidates import Target
from graphopt.quantization.gates import Rounding

__all__ = ["SCHEMES", "Scheme", "Settings"]

Range = tuple[float, float]


@dataclasses.dataclass(frozen=True)
class Settings:
    """What a scheme may know.

    Attributes:
        per_channel: A scale for each output channel of a weight.
        reduce_range: Weights of 7 bits.
        ranges: Of activations, by name.
        blocks: Weights in blocks, by layer.
    """

    per_channel: bool
    reduce_range: bool
    ranges: Mapping[str, Range] = dataclasses.field(default_factory=dict)
    blocks: Mapping[Layer, Blocks] = dataclasses.field(default_factory=dict)

    @property
    def levels(self) -> int:
        """The largest integer of a weight."""
        return 63 if self.reduce_range else 127


@dataclasses.dataclass(frozen=True)
class Scheme:
    """A way to quantize.

    Attributes:
        about: What it does, in a line.
        operators: Of the layers it takes.
        rounds_activations: Whether activations become integers too.
        needs_data: Whether calibration inputs decide on the result.
        round_layer: What becomes of a layer.
        build_layers: A model with some of its layers quantized.
        opset: The oldest operator set that it can be said in.
        block_bits: Of weights in blocks; 0 for none.
    """

    about: str
    operators: Collection[str]
    rounds_activations: bool
    needs_data: bool
    round_layer: Callable[[Layer, Settings], Rounding]
    build_layers: Callable[[ir.Model, Sequence[Layer], Settings], ir.Model]
    opset: int = 11
    block_bits: int = 0

    def rounding(self, target: Target, settings: Settings) -> Rounding:
        """What becomes of a layer or a table."""
        if isinstance(target, tables.Table):
            return Rounding(target.rounded(), None)
        return self.round_layer(target, settings)

    def build(self, model: ir.Model, targets: Sequence[Target], settings: Settings) -> ir.Model:
        """A model with some of its layers and tables quantized; the model itself is not changed."""
        layers = [target for target in targets if isinstance(target, Layer)]
        result = self.build_layers(model, layers, settings)
        tables.round_rows(result, [target for target in targets if isinstance(target, tables.Table)])
        return result


def _in_integers(layer: Layer, settings: Settings) -> Rounding:
    contents, scale = weights.quantized(layer, whole=not settings.per_channel, levels=settings.levels)
    return Rounding((contents * scale).astype(np.float32), settings.ranges.get(layer.input.name or ""))


def _in_blocks(layer: Layer, settings: Settings) -> Rounding:
    blocks = settings.blocks[layer]
    return Rounding(weights.held(layer, blocks), None, blocks.shift)


def _static(model: ir.Model, layers: Sequence[Layer], settings: Settings) -> ir.Model:
    nodes = [layer.node for layer in layers]
    between = candidates.companions(model.graph, nodes)
    known = [node for node in between if all(value.name in settings.ranges for value in node.outputs)]
    names = [node.name or "" for node in [*nodes, *known]]
    return library.static(
        model, names, settings.ranges, per_channel=settings.per_channel, reduce_range=settings.reduce_range
    )


def _dynamic(model: ir.Model, layers: Sequence[Layer], settings: Settings) -> ir.Model:
    return integers.dynamic(model, layers, whole=not settings.per_channel, levels=settings.levels)


def _blocked(model: ir.Model, layers: Sequence[Layer], settings: Settings) -> ir.Model:
    return weights.blocked(model, {layer: settings.blocks[layer] for layer in layers})


_PRODUCTS = ("MatMul", "Gemm")
_TABLES = ("Gather",)
SCHEMES: Mapping[str, Scheme] = {
    "static": Scheme(
        "int8 weights and activations, whose ranges calibration inputs show",
        ("Conv", "ConvTranspose", *_PRODUCTS, *_TABLES),
        rounds_activations=True,
        needs_data=True,
        round_layer=_in_integers,
        build_layers=_static,
        opset=13,
    ),
    "dynamic": Scheme(
        "int8 weights of MatMul and Gemm; activations are rounded at run time, each by its own range",
        (*_PRODUCTS, *_TABLES),
        rounds_activations=True,
        needs_data=False,
        round_layer=_in_integers,
        build_layers=_dynamic,
    ),
    "weights-int8": Scheme(
        "weights of MatMul, Gemm and embeddings in blocks of 8-bit integers; floats go in and out",
        (*_PRODUCTS, *_TABLES),
        rounds_activations=False,
        needs_data=False,
        round_layer=_in_blocks,
        build_layers=_blocked,
        block_bits=8,
    ),
    "weights-int4": Scheme(
        "weights of MatMul and Gemm in blocks of 4-bit integers (embeddings: 8); floats go in and out",
        (*_PRODUCTS, *_TABLES),
        rounds_activations=False,
        needs_data=False,
        round_layer=_in_blocks,
        build_layers=_blocked,
        block_bits=4,
    ),
}
"""The ways to quantize, by name."""
