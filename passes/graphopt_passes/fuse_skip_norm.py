"""Puts a residual sum and the normalization of it together, as ONNX Runtime's CUDA kernels have them."""

from __future__ import annotations

import dataclasses
from typing import Final

import onnx_ir as ir

from graphopt.pipeline.base import Context, GraphPass, Outcome, Safety, Target
from graphopt.rewrite import edit
from graphopt.rewrite.match import Miss
from graphopt_passes._kernels import DOMAIN, has_kernel
from graphopt_passes._shape_ops import input_of

__all__ = ["FuseSkipNorm"]

_FUSED: Final = {
    "LayerNormalization": "SkipLayerNormalization",
    "RMSNormalization": "SkipSimplifiedLayerNormalization",
}


@dataclasses.dataclass(frozen=True)
class FuseSkipNorm(GraphPass):
    """Puts a residual sum and the normalization of it together, as ONNX Runtime's CUDA kernels have them.

    What it does:
        ``Add`` and a LayerNormalization or RMSNormalization become one ``com.microsoft`` SkipLayerNormalization or
        SkipSimplifiedLayerNormalization, which gives the sum, too, for the residual branch. ONNX Runtime does so itself
        at load only before a LayerNormalization, and only where nothing else reads the sum. For ``ort-cuda`` alone: the
        CPU's kernel takes 2 to 7 times as long as the two nodes (see convert-add-to-sum).

    Before:
        ``s = Add(x, y); n = RMSNormalization <axis=-1> (s, scale); z = MatMul(n, w); r = Add(s, z)``

    After:
        ``n, _, _, s = com.microsoft.SkipSimplifiedLayerNormalization (x, y, scale); z = MatMul(n, w); r = Add(s, z)``

    Does not apply when:
        - the target is not ``ort-cuda``, or has no kernel for the type;
        - the summands are not known to have the same three axes, or one is constant;
        - the normalization is not over the last axis, has other outputs, or a scale or bias of more axes than one;
        - statistics are wanted in a type other than float32 (``stash_type``).

    Safety:
        Numeric: rounding. In half precision the sum that is normalized is not rounded first.
    """

    name = "fuse-skip-norm"
    safety = Safety.NUMERIC
    needs = frozenset(_FUSED)

    def run(self, model: ir.Model, context: Context) -> Outcome:
        if context.target is not Target.ORT_CUDA:
            return Outcome()
        touched: list[ir.Node] = []
        count = 0
        for scope in context.scopes():
            for norm in [node for node in scope.graph if node.op_type in _FUSED and not node.domain]:
                add = context.producer(norm.inputs[0], "Add")
                if add is None or add.graph is not norm.graph:
                    continue
                refusal = _refusal(add, norm, context)
                if refusal is not None:
                    context.note(self.name, Miss(refusal, norm))
                    continue
                touched += _fuse(add, norm, context)
                count += 1
        return Outcome(count, touched)


def _refusal(add: ir.Node, norm: ir.Node, context: Context) -> str | None:
    shapes = context.shapes
    x, y = (shapes.of(value) if value is not None else None for value in add.inputs)
    (total,) = add.outputs
    if not has_kernel(_FUSED[norm.op_type], total, context):
        return "the target has no kernel for it"
    if x is None or x != y or len(x) != 3 or any(context.constant(value) is not None for value in add.inputs):
        return "the summands are not known to have the same three axes"
    if norm.attributes.get_int("axis", -1) not in (-1, 2) or len(norm.outputs) > 1:
        return "the normalization is not over the last axis alone, or gives statistics"
    if norm.attributes.get_int("stash_type", 1) != 1:
        return "statistics are wanted in another type than float32"
    for value in norm.inputs[1:]:
        tensor = context.constant(value)
        if value is not None and (tensor is None or value.producer() is not None or len(tensor.shape) != 1):
            return "scale or bias is no initializer of one axis"
    return None


def _fuse(add: ir.Node, norm: ir.Node, context: Context) -> list[ir.Node]:
    operands = [*add.inputs, norm.inputs[1]]
    if norm.op_type == "LayerNormalization":
        operands.append(input_of(norm, 2))
    fused = ir.node(
        _FUSED[norm.op_type],
        operands,
        {"epsilon": norm.attributes.get_float("epsilon", 1e-5)},
        domain=DOMAIN,
        num_outputs=4,
        name=context.names.fresh(norm.name or norm.op_type),
        doc_string=norm.doc_string,
        metadata_props=dict(norm.metadata_props),
    )
    for output in fused.outputs:
        output.name = context.names.fresh(fused.name or norm.op_type)
    add.prepend(fused)
    context.adopt([fused])
    stand_ins = {norm.outputs[0]: fused.outputs[0], add.outputs[0]: fused.outputs[3]}
    for old, new in stand_ins.items():
        if not old.is_graph_output():
            edit.inherit(new, old)
        new.type, new.shape = old.type, old.shape
    readers = context.replace(stand_ins)
    _, weakened = edit.erase_if_dead([norm, add])
    return [fused, *readers, *weakened]
