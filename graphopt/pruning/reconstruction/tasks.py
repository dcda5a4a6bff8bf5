"""Which layers removal changes, and what of them a fit can bring back."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from graphopt.analysis import constants
from graphopt.channels.atoms import Mask
from graphopt.channels.groups import ChannelGraph
from graphopt.channels.workpiece import Workpiece
from graphopt.pruning.layers import Layer, find_layers, layer_of
from graphopt.pruning.moments import Samples
from graphopt.pruning.reconstruction.biases import adds_more, beta, bias_of, has_bias

if TYPE_CHECKING:
    from graphopt.pruning.depth.blocks import Block

__all__ = ["Task", "find_tasks", "tie"]

Indices = npt.NDArray[np.int64]


@dataclasses.dataclass(eq=False)
class Task:
    """A layer to refit, as it is in the original and in the pruned model.

    ``kept`` says of each axis of the result that shrinks what stays: the channels, and of a MatMul over tokens the
    tokens too. Layers that share a weight share one fit, that of their ``leader``; where others read the weight too,
    it is ``shared`` and stays, since untying it would make the model larger.
    """

    original: Layer
    pruned: Layer
    kept: Sequence[tuple[int, Indices]]
    intercept: bool
    shortcut: tuple[ir.Value, ir.Value] | None
    bounds: tuple[float | None, float | None]
    number: int
    leader: Task | None = None
    ties: int = 1
    shared: bool = False
    train: Samples | None = None
    held_out: Samples | None = None

    @property
    def key(self) -> str:
        """Tells it from other layers, unnamed ones too."""
        return f"{self.number} {self.pruned.name}"


def find_tasks(
    graph: ChannelGraph, gone: Mask, blocks: Iterable[Block], workpiece: Workpiece, new_biases: bool
) -> Iterator[Task]:
    """The layers whose results removal changes, and which a fit can bring back."""
    changed = _Changes(graph, gone, blocks)
    for order, layer in enumerate(find_layers(graph.model.graph)):
        copy = workpiece.node(layer.node)
        pruned = layer_of(copy) if copy.graph is not None else None
        if pruned is None or not layer.is_float or not changed.by(layer.node):
            continue
        if not layer.alpha or adds_more(pruned):
            continue
        if pruned.groups != layer.groups and layer.columns // layer.window > 1 and pruned.groups == 1:
            continue
        axes = graph.linker.of(layer.output) or ()
        places = [(number, graph.kept(axis, gone)) for number, axis in enumerate(axes)]
        kept = [(number, own) for number, own in places if own is not None]
        shortcut = _shortcut(layer, workpiece)
        bounds = _bounds(layer, 1 if shortcut is None else 2)
        yield Task(layer, pruned, kept, has_bias(pruned, new_biases), shortcut, bounds, order)


def tie(tasks: Sequence[Task]) -> None:
    """Finds the tasks of a stage that share a weight, and says which of them leads."""
    alike: dict[tuple[Any, ...], list[Task]] = {}
    for task in tasks:
        layer, bias = task.pruned, bias_of(task.pruned)
        build = (
            layer.node.op_type,
            layer.groups,
            layer.outputs,
            layer.columns,
            layer.weight_axes,
            layer.alpha,
            beta(layer.node),
        )
        alike.setdefault((layer.node.inputs[1], bias, *build, task.intercept, task.bounds), []).append(task)
    for (weight, bias, *_), own in alike.items():
        if len(list(weight.uses())) == len(own):
            own[0].ties = len(own)
            for task in own[1:]:
                task.leader = own[0]
        else:
            for task in own:
                task.shared = True
        if bias is not None and (len(own) > 1 or own[0].shared) and len(list(bias.uses())) != own[0].ties:
            for task in own:
                task.intercept = False


class _Changes:
    """Which nodes of the original compute something else once channels and blocks are gone (besides lacking lanes)."""

    def __init__(self, graph: ChannelGraph, gone: Mask, blocks: Iterable[Block]) -> None:
        summed = {block.node: None for block in blocks}
        linker = graph.linker
        for one in linker.sums:
            value = one.node.inputs[one.input]
            axes = linker.of(value) if value is not None else None
            if axes and graph.size(axes[one.axis], gone)[1:] != (1, 1):
                summed[one.node] = None
        for node, over in linker.normalized.items():
            if any(graph.size(axis, gone)[1:] != (1, 1) for axis in over):
                summed[node] = None
        changed: set[ir.Value] = set()
        self._nodes: set[ir.Node] = set()
        for node in graph.model.graph:
            if node in summed or any(value in changed for value in node.inputs):
                changed.update(node.outputs)
                self._nodes.add(node)

    def by(self, node: ir.Node) -> bool:
        """Whether this one does."""
        return node in self._nodes


def _shortcut(layer: Layer, workpiece: Workpiece) -> tuple[ir.Value, ir.Value] | None:
    """What a residual sum adds to the layer's result, in the original and in the copy."""
    value = layer.output
    while True:
        uses = list(value.uses())
        if len(uses) != 1 or value.is_graph_output() or uses[0].node.graph is not layer.node.graph:
            return None
        node, index = uses[0].node, 1 - uses[0].idx
        if node.op_type != "Add" or node.domain:
            return None
        other, copied = node.inputs[index], workpiece.node(node).inputs[index]
        if other is None or copied is None:
            return None
        if constants.constant(other) is None:
            return other, copied
        value = node.outputs[0]  # the bias of a MatMul


def _bounds(layer: Layer, sums: int) -> tuple[float | None, float | None]:
    """Between what the activation that follows cuts off, after the layer's own bias and up to ``sums`` sums."""
    value = layer.output
    for _ in range(sums + 1):
        uses = list(value.uses())
        if len(uses) != 1 or value.is_graph_output() or uses[0].node.domain:
            break
        node = uses[0].node
        if node.op_type == "Relu":
            return 0.0, None
        if node.op_type == "Clip":
            ends = [constants.scalar(one) for one in (*node.inputs[1:3], None, None)[:2]]
            found = [None if end is None else float(end) for end in ends]
            return found[0], found[1]
        if node.op_type != "Add":
            break
        value = node.outputs[0]
    return None, None
