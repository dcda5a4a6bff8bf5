"""Which layers can be quantized, which cannot and why, and which operators between them go along."""

from __future__ import annotations

import dataclasses
import fnmatch
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

import numpy as np
import onnx_ir as ir

from graphopt import walk
from graphopt.analysis import constants
from graphopt.errors import ModelError, UsageError
from graphopt.names import label
from graphopt.pruning.layers import OPERATORS, Layer, layer_of
from graphopt.quantization.tables import Table, table_of

__all__ = ["Skipped", "Target", "companions", "find", "refuse_quantized", "weight_input"]

QUANTIZED = frozenset(
    {
        "QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "QLinearMatMul", "ConvInteger",
        "MatMulInteger", "MatMulNBits", "QGemm", "DynamicQuantizeMatMul", "MatMulIntegerToFloat",
    }
)  # fmt: skip
"""Operators of models that are quantized already."""

COMPANIONS: Mapping[str, str] = {
    "Relu": "first", "Clip": "first", "MaxPool": "first", "Reshape": "first", "Flatten": "first",
    "Transpose": "first", "Squeeze": "first", "Unsqueeze": "first",
    "Add": "all", "Concat": "all", "GlobalAveragePool": "first", "AveragePool": "first", "LeakyRelu": "first",
}  # fmt: skip
"""What stays in 8 bits between layers, and which of its inputs must come from there."""


Target = Layer | Table
"""What can be quantized."""


def weight_input(node: ir.Node) -> int:
    """Which input of a layer is its weight."""
    return 0 if node.op_type == "Gather" else 1


@dataclasses.dataclass(frozen=True, slots=True)
class Skipped:
    """A layer that is not quantized.

    Attributes:
        layer: Its name.
        operator: Its operator.
        reason: Why not.
    """

    layer: str
    operator: str
    reason: str


def refuse_quantized(model: ir.Model) -> None:
    """Complains about a model that is quantized already.

    Raises:
        ModelError: It is.
    """
    found = next((node for node in walk.nodes(model) if node.op_type in QUANTIZED), None)
    if found is not None:
        raise ModelError(
            f"the model is quantized already: node '{label(found)}' is a {found.op_type}",
            hint="Quantize the float model that it was made from.",
        )


def find(
    model: ir.Model, operators: Collection[str], exclude: Sequence[str] = (), *, original: ir.Model | None = None
) -> tuple[list[Target], list[Skipped]]:
    """The layers that can be quantized, in order, and those that cannot.

    Args:
        model: The model.
        operators: Of what is to be quantized.
        exclude: Shell patterns of names to leave as they are.
        original: The model before it was optimized, whose layers have the names that a user knows.

    Raises:
        UsageError: A pattern that fits no layer.
        ModelError: There is no layer to quantize.
    """
    layers: list[Target] = []
    skipped: list[Skipped] = []
    known = [*_linear(model), *([] if original is None else _linear(original))]
    excluded = {_weight(node) for node in known if any(fnmatch.fnmatchcase(label(node), one) for one in exclude)}
    unused = [one for one in exclude if not any(fnmatch.fnmatchcase(label(node), one) for node in known)]
    for node in _linear(model):
        reason = "it is excluded" if _weight(node) in excluded else _obstacle(node, model, operators)
        layer = layer_of(node) or table_of(node)
        if reason or layer is None:
            skipped.append(Skipped(label(node), node.op_type, reason or "its weight has a shape that is not supported"))
        else:
            layers.append(layer)
    if unused:
        raise UsageError(f"no layer is called '{unused[0]}'", hint="'graphopt inspect' lists the names of the layers.")
    if not layers:
        raise ModelError(f"nothing to quantize: {_why_none(skipped, operators)}")
    return layers, skipped


def _linear(model: ir.Model) -> Iterator[ir.Node]:
    for node in walk.nodes(model):
        if not node.domain and (node.op_type in OPERATORS or table_of(node) is not None):
            yield node


def _weight(node: ir.Node) -> str:
    """The name of a layer's weight, which it keeps when it is fused with what is around it."""
    place = weight_input(node)
    value = node.inputs[place] if len(node.inputs) > place else None
    return (value.name if value is not None else None) or label(node)


def _obstacle(node: ir.Node, model: ir.Model, operators: Collection[str]) -> str:
    if node.graph is not model.graph:
        return "it is in a subgraph or function"
    if node.op_type not in operators:
        return f"this scheme leaves {node.op_type} as it is"
    value = node.inputs[weight_input(node)] if len(node.inputs) > 1 else None
    weight = constants.constant(value)
    if value is None or weight is None:
        return "its weight is computed, or can be replaced by an input"
    if weight.dtype != ir.DataType.FLOAT:
        return f"its weight is {weight.dtype.name.lower()}, not float (32 bits)"
    if not np.isfinite(weight.numpy()).all():
        return "its weight is not finite everywhere"
    if node.op_type == "Gather" and any(user.op_type != "Gather" for user, _ in value.uses()):
        return "other operators read its table, too"
    return ""


def _why_none(skipped: Sequence[Skipped], operators: Collection[str]) -> str:
    if not skipped:
        return f"the model has none of {', '.join(sorted(operators))}"
    reasons = list(dict.fromkeys(one.reason for one in skipped))
    return f"of {skipped[0].operator} '{skipped[0].layer}' {reasons[0]}" if len(reasons) == 1 else "; ".join(reasons)


def companions(graph: ir.Graph, layers: Iterable[ir.Node]) -> list[ir.Node]:
    """The operators that lie between quantized layers: 8 bits come in, and 8 bits are wanted of what goes out.

    Args:
        graph: The main graph.
        layers: The layers that are quantized.
    """
    taken = set(layers)
    possible = [node for node in graph if not node.domain and node.op_type in COMPANIONS and _can_join(node)]
    inside = taken | set(possible)
    changed = True
    while changed:
        changed = False
        for node in possible:
            if node in inside and not (_is_fed(node, inside) and _is_read(node, inside)):
                inside.discard(node)
                changed = True
    return [node for node in possible if node in inside]


def _can_join(node: ir.Node) -> bool:
    """Whether rounding can do what a Relu or Clip does.

    Nothing else may see what it reads, and it must let zero pass, which 8 bits always hold.
    """
    if node.op_type not in ("Relu", "Clip"):
        return True
    value = node.inputs[0]
    if value is None or value.is_graph_output() or any(user.graph is not node.graph for user, _ in value.uses()):
        return False
    low, high = (constants.scalar(node.inputs[place]) if len(node.inputs) > place else None for place in (1, 2))
    given = [value for value in node.inputs[1:] if value is not None]
    return len(given) == (low is not None) + (high is not None) and (low or 0) <= 0 <= (high or 0)


def _is_fed(node: ir.Node, inside: Collection[ir.Node]) -> bool:
    wanted = node.inputs if COMPANIONS[node.op_type] == "all" else node.inputs[:1]
    return all(value is not None and value.producer() in inside for value in wanted)


def _is_read(node: ir.Node, inside: Collection[ir.Node]) -> bool:
    if any(user in inside for user, _ in node.outputs[0].uses()):
        return True
    giver = node.inputs[0].producer() if node.inputs[0] is not None else None
    # It vanishes into the rounding that a convolution needs anyway; a product gives floats just as well.
    return node.op_type in ("Relu", "Clip") and giver is not None and giver.op_type not in ("MatMul", "Gemm")
