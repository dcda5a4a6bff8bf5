"""Whether a quantized student computes in ONNX Runtime what it computed in training, one rounding after the other.

A sum that lies between two integers may go up here and down there, and in a deep network one such step moves many
others. So each rounding is compared on its own: the graph is cut at all of them, and what lies between two cuts, in
whatever integer kernels ONNX Runtime has for it, is given the integers of torch. It must give the next integers of
torch, or neighbours of them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import onnx_ir as ir
import torch
from torch import Tensor

from graphopt.distillation.student import GraphStudent
from graphopt.distillation.teacher import Teacher
from graphopt.errors import NotEquivalent
from graphopt.names import Names
from graphopt.torch.ops.quantized import kind_of

__all__ = ["Steps", "stepwise"]

_INTEGERS = (ir.DataType.INT8, ir.DataType.UINT8, ir.DataType.INT16, ir.DataType.UINT16)
"""What tensors of both torch and ONNX Runtime hold; others are left between two cuts."""


@dataclasses.dataclass(frozen=True, slots=True)
class Steps:
    """What a student and its graph give.

    Attributes:
        ours: The outputs in torch, by name.
        theirs: In ONNX Runtime, from the integers of torch.
        off_by_one: The share of the integers on the way that are neighbours of those of torch.
    """

    ours: dict[str, Tensor]
    theirs: dict[str, Tensor]
    off_by_one: float


@torch.no_grad()
def stepwise(student: GraphStudent, feeds: Mapping[str, Tensor], *, threads: int | None = None) -> Steps:
    """Runs a student in torch, and its graph in ONNX Runtime from rounding to rounding.

    Args:
        student: In evaluation mode, on the CPU.
        feeds: Some samples.
        threads: Of ONNX Runtime.

    Raises:
        NotEquivalent: An integer differs by more than one.
    """
    result = student.to_onnx()
    outputs = [value.name or "" for value in result.graph.outputs]
    rounding = [node for node in result.graph if node.op_type == "QuantizeLinear" and kind_of(node) in _INTEGERS]
    names = [node.outputs[0].name or "" for node in rounding if not node.outputs[0].is_graph_output()]
    ours = student.watched(names).outputs(feeds)
    cut, given = _cut(result, names)
    theirs = Teacher(cut, [*outputs, *names], threads=threads).tensors(
        {**feeds, **{given[name]: ours[name] for name in names}}
    )
    differing = total = 0
    for name in names:
        steps = (ours[name].to(torch.int64) - theirs[name].to(torch.int64)).abs()
        if steps.numel() and int(steps.max()) > 1:
            raise NotEquivalent(
                f"'{name}' of the quantized student is off by {int(steps.max())} steps from the trained one",
                hint="Sums of 8-bit products overflow on x86 processors without VNNI: quantize with reduce-range=yes.",
            )
        differing, total = differing + int(steps.count_nonzero()), total + steps.numel()
    return Steps(
        {name: ours[name] for name in outputs}, {name: theirs[name] for name in outputs}, differing / max(1, total)
    )


def _cut(model: ir.Model, names: Sequence[str]) -> tuple[ir.Model, dict[str, str]]:
    """A model that gives the values of some names, and reads them from inputs; and what these inputs are called."""
    copy = model.clone()
    fresh = Names(copy)
    values = {value.name: value for node in copy.graph for value in node.outputs}
    given = {}
    for name in names:
        value = values[name]
        node = value.producer()
        kind = kind_of(node) if node is not None else None
        assert kind is not None
        value.type = ir.TensorType(kind)
        read = ir.Value(name=fresh.fresh(f"{name}_given"), type=value.type, shape=value.shape)
        for use in value.uses():
            use.node.replace_input_with(use.idx, read)
        copy.graph.inputs.append(read)
        copy.graph.outputs.append(value)
        given[name] = read.name or ""
    return copy, given
