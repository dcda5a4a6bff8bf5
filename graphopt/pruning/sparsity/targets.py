"""The weights that can be made sparse, and why the others cannot."""

from __future__ import annotations

import collections
import dataclasses
import fnmatch
from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy.typing as npt
import onnx_ir as ir

from graphopt import walk
from graphopt.analysis import constants
from graphopt.errors import UsageError
from graphopt.names import label
from graphopt.pipeline.spec import close_match
from graphopt.pruning.layers import OPERATORS, Layer, find_layers, layer_of
from graphopt.pruning.sparsity.patterns import Pattern
from graphopt.pruning.sparsity.report import Skipped

__all__ = ["Target", "find"]

_QUANTIZED: Final = frozenset(
    {
        "ConvInteger", "DynamicQuantizeMatMul", "MatMulBnb4", "MatMulInteger", "MatMulIntegerToFloat", "MatMulNBits",
        "QGemm", "QLinearConv", "QLinearMatMul",
    }
)  # fmt: skip
_QUANTIZED_REASON: Final = "the weight is quantized"


@dataclasses.dataclass(frozen=True, eq=False)
class Target:
    """One weight and all layers that read it.

    Attributes:
        value: The weight.
        layers: At least one; all see the same matrix in it.
    """

    value: ir.Value
    layers: tuple[Layer, ...]

    @property
    def layer(self) -> Layer:
        """The first layer."""
        return self.layers[0]

    def write(self, contents: npt.NDArray[Any]) -> None:
        """Gives all layers another weight of the same shape and dtype."""
        tensor = constants.tensor(contents, self.value.name)
        producer = self.value.producer()
        if producer is None:
            self.value.const_value = tensor
        else:
            producer.attributes["value"] = ir.AttrTensor("value", tensor)


def find(
    model: ir.Model, pattern: Pattern, *, include: Sequence[str], exclude: Sequence[str], smallest: int
) -> tuple[list[Target], list[Skipped]]:
    """The weights that can take a pattern, in the order of the graph, and the layers that stay dense.

    Args:
        model: Of which only the main graph's layers are taken.
        pattern: What they shall hold.
        include: Patterns of names (``*``, ``?``); all layers if empty. Those that are not meant are not reported.
        exclude: Patterns of names of layers to leave alone.
        smallest: The fewest elements of a weight that is taken.

    Raises:
        UsageError: No layer is left, or a pattern of names fits none.
    """
    by_value: dict[ir.Value, list[Layer]] = collections.defaultdict(list)
    for layer in find_layers(model.graph):
        value = layer.node.inputs[1]
        assert value is not None
        by_value[value].append(layer)
    skipped = [*_quantized(model), *_nested(model)]
    _check_names([*include, *exclude], [layer.name for layers in by_value.values() for layer in layers], skipped)
    targets = []
    for value, layers in by_value.items():
        if include and not _fits(layers, include):
            continue
        reason = "excluded" if _fits(layers, exclude) else _obstacle(value, layers, pattern, smallest)
        if reason:
            skipped += [Skipped(layer.name, reason) for layer in layers]
        else:
            targets.append(Target(value, tuple(layers)))
    if not targets:
        raise _nothing(skipped)
    return targets, skipped


def _fits(layers: Sequence[Layer], patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(layer.name, pattern) for layer in layers for pattern in patterns)


def _check_names(patterns: Sequence[str], names: Sequence[str], skipped: Sequence[Skipped]) -> None:
    known = [*names, *(one.layer for one in skipped)]
    for pattern in patterns:
        if not fnmatch.filter(known, pattern):
            raise UsageError(f"no layer is called '{pattern}'", hint=close_match(pattern, known) if known else "")


def _obstacle(value: ir.Value, layers: Sequence[Layer], pattern: Pattern, smallest: int) -> str:
    """Why a weight stays dense; empty if nothing is in the way."""
    layer = layers[0]
    if not layer.is_float:
        return f"the weight is {layer.weight.dtype.name.lower()}, not float"
    if value.is_graph_output():
        return "the weight is an output of the model"
    own = {one.node for one in layers}
    other = next((use.node for use in value.uses() if use.node not in own or use.idx != 1), None)
    if other is not None:
        return f"'{label(other)}' ({other.op_type}) reads the weight too"
    if len({(one.groups, one.window, one.weight_axes, len(one.weight.shape)) for one in layers}) > 1:
        return "layers read the weight in different ways"
    if any(one.input.is_initializer() for one in layers):
        return "what it multiplies is a constant that a caller may replace"
    if layer.groups > 1 and layer.columns == layer.window:
        return "depthwise: it has one channel in each group"
    if layer.weight.size < smallest:
        return f"it has fewer than {smallest} weights"
    channels = layer.columns // layer.window
    if channels % pattern.of:
        return f"{channels} input channels are no multiple of {pattern.of}"
    return ""


def _quantized(model: ir.Model) -> Iterator[Skipped]:
    """Layers whose weights lie in the model as integers."""
    for node in walk.nodes(model):
        weight = node.inputs[1] if len(node.inputs) > 1 else None
        source = weight.producer() if weight is not None and node.op_type in OPERATORS else None
        dequantized = source is not None and source.op_type == "DequantizeLinear" and _is_constant(source.inputs[0])
        if node.op_type in _QUANTIZED or dequantized:
            yield Skipped(label(node), _QUANTIZED_REASON)


def _is_constant(value: ir.Value | None) -> bool:
    return constants.constant(value) is not None


def _nested(model: ir.Model) -> Iterator[Skipped]:
    for scope in walk.scopes(model):
        if scope.graph is model.graph:
            continue
        for node in scope.graph:
            if layer_of(node) is not None:
                where = "function" if scope.function is not None else "subgraph"
                yield Skipped(label(node), f"it lies in a {where}")


def _nothing(skipped: Sequence[Skipped]) -> UsageError:
    if not skipped:
        return UsageError(
            "the model has no layer to make sparse",
            hint="That is a Conv, ConvTranspose, Gemm or MatMul with a constant weight.",
        )
    reasons = collections.Counter(one.reason for one in skipped)
    if set(reasons) == {_QUANTIZED_REASON}:
        return UsageError(
            "the weights are quantized", hint="Make the float model sparse and quantize that: zero stays zero."
        )
    told = "; ".join(f"{times} x {reason}" for reason, times in reasons.most_common(3))
    return UsageError("no layer can be made sparse", hint=f"Of {len(skipped)} layers: {told}.")
