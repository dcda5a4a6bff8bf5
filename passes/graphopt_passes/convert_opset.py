"""Rewrites a model for a newer version of ONNX's operator set."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import onnx_ir as ir

from graphopt import walk
from graphopt.analysis.dims import Dim
from graphopt.errors import ModelError, UsageError
from graphopt.names import label
from graphopt.pipeline.base import Context, GraphPass, Outcome, Safety
from graphopt.proto import versions
from graphopt.proto.schemas import InferredType
from graphopt.proto.versions import Unconvertible
from graphopt.rewrite import edit
from graphopt.rewrite.builder import Builder
from graphopt_passes._lifting import lift, replace
from graphopt_passes._versions import ADAPTERS

__all__ = ["ConvertOpset"]

_AT_LEAST = 21


@dataclasses.dataclass(frozen=True)
class ConvertOpset(GraphPass):
    """Rewrites a model for a newer version of ONNX's operator set.

    What it does:
        The model, its functions and all subgraphs import version ``to``, and each node whose operator changed in
        between becomes what does the same there. Most stay as they are. onnx's version converter says how, asked
        about one node at a time: alone it would drop functions and metadata and copy all weights. What it gets wrong
        (Resize, Hardmax, GroupNormalization) is done here. Passes that need operators of a newer version (Gelu 20,
        LayerNormalization 17, RMSNormalization and Attention 23) then find their place.

    Before:
        ``y = ReduceMean <axes = [1]> (x)`` (operator set 13)

    After:
        ``y = ReduceMean(x, [1])`` (operator set 21)

    Does not apply when:
        - the operator set is that version already; without ``to``, or in a function, also if it is a newer one;
        - the model has no node of ONNX's own domain;
        - an error: the version is older than the model's, or newer than the installed onnx knows;
        - an error, which names the node: an operator has no equivalent (BatchNormalization that trains, a Scan of
          version 8 with lengths, a Dropout whose mask is read, a Resize to the nearest whose scales are not known), or
          a function gives one that changed an attribute of its call.

    Safety:
        Numeric: a runtime's kernel for the newer version may round differently.

    Attributes:
        to: The version wanted; 0 means at least 21.
    """

    name = "convert-opset"
    safety = Safety.NUMERIC
    to: int = 0

    def run(self, model: ir.Model, context: Context) -> Outcome:
        to = self._version(model.opset_imports.get("", 1))
        old = [scope for scope in context.scopes() if scope.opset.get("", to) < to]
        if not old:
            return Outcome()
        for scope in old:
            for node in scope.graph:
                for value in (*node.inputs, *node.outputs):
                    if value is not None:  # while they still follow from the operators as they were
                        context.shapes.of(value)
        count = sum(
            _convert(node, scope.opset[""], to, context)
            for scope in old
            for node in tuple(scope.graph)
            if not node.domain and node.op_identifier() not in model.functions
        )
        for imports in (model.opset_imports, *(function.opset_imports for function in model.functions.values())):
            if imports.get("", to) < to:
                imports[""] = to
        model.ir_version = max(model.ir_version, versions.least_ir_version(to))
        context.refresh()
        return Outcome(max(count, 1), None)

    def _version(self, now: int) -> int:
        if not self.to:
            return max(now, _AT_LEAST)
        if now > self.to:
            raise UsageError(
                f"the model is written for operator set {now}, and convert-opset cannot take it back to {self.to}",
                hint="Export it anew for the older one.",
            )
        if self.to > versions.newest():
            raise UsageError(
                f"the installed onnx knows no operator set {self.to}", hint=f"Its newest is {versions.newest()}."
            )
        return self.to


def _convert(node: ir.Node, version: int, to: int, context: Context) -> int:
    """How many nodes were replaced: 0 if it can stay."""
    count = 0
    pending = [(node, version)]
    while pending:
        node, at = pending.pop()
        if node.version is not None:
            node.version = to
        try:
            if at == to or not versions.has_changed(node.op_type, at, to):
                continue
            steps = [step for step in ADAPTERS.get(node.op_type, ()) if at < step <= to]
            goal = max(at, min(steps) - 1) if steps else to
            if goal == at:
                goal += 1
                new = _adapt(node, goal, context)
            else:
                new = _ask_onnx(node, at, goal, context)
        except Unconvertible as reason:
            raise ModelError(
                f"{node.op_type} '{label(node)}' cannot be converted from operator set {at} to {to}: {reason}",
                hint="Choose another version, or leave convert-opset out.",
            ) from None
        count += new is not None
        pending += [(one, goal) for one in ([node] if new is None else new)]
    return count


def _adapt(node: ir.Node, goal: int, context: Context) -> list[ir.Node] | None:
    builder = Builder(context, node)
    results = ADAPTERS[node.op_type][goal](builder, node)
    if results is None:
        return None
    assert node.graph is not None
    node.graph.insert_before(node, builder.nodes)
    _take_over(node, results, context)
    return builder.nodes


def _ask_onnx(node: ir.Node, at: int, goal: int, context: Context) -> list[ir.Node] | None:
    if not versions.has_new_signature(node.op_type, at, goal) or node.op_type == "Constant" or walk.subgraphs(node):
        return None  # new are but types; of Constant attributes too, and the converter would copy the tensor
    if any(attribute.is_ref() for attribute in node.attributes.values()):
        raise Unconvertible("its attributes are those of a call of its function")
    graph = versions.convert_node(node, at, goal, [_known(value, context) for value in node.inputs])
    if graph is None:
        return None
    for inner, given in zip(graph.inputs, node.inputs, strict=True):
        for user, index in inner.uses():
            user.replace_input_with(index, given)
    nodes, results = lift(graph, node, context)
    for one in nodes:
        one.name = context.names.fresh(node.name or one.op_type)
        one.doc_string = node.doc_string
        one.metadata_props.update(node.metadata_props)
    _take_over(node, results, context)
    return nodes


def _take_over(node: ir.Node, results: Sequence[ir.Value], context: Context) -> None:
    """Puts the results in the place of what the node gives, under the same names."""
    name, final = node.name, results[0].producer()
    for old, new in zip(node.outputs, results, strict=True):
        context.shapes.assume(new, like=old)
        new.type, new.shape = old.type, old.shape
        if not old.is_graph_output():
            edit.inherit(new, old)
    replace(node, results, context)
    node.name = None
    if final is not None:
        final.name = name


def _known(value: ir.Value | None, context: Context) -> InferredType | None:
    if value is None:
        return None
    shape = context.shapes.of(value)
    return context.shapes.dtype(value), None if shape is None else tuple([_named(dim) for dim in shape])


def _named(dim: Dim) -> int | str:
    return dim if isinstance(dim, int) else str(dim)
