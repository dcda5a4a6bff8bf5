"""Replaces calls of the model's own functions by what they call."""

from __future__ import annotations

import dataclasses
import graphlib
from collections.abc import Mapping
from typing import Final

import onnx_ir as ir

from graphopt import walk
from graphopt.pipeline.base import Context, GraphPass, Outcome, Safety
from graphopt.rewrite.match import Miss
from graphopt_passes._lifting import lift, replace

__all__ = ["InlineFunctions"]

_WITH_KERNELS: Final = ("ai.onnx", "com.microsoft", "com.ms")
_HOLDERS: Final = (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)


@dataclasses.dataclass(frozen=True)
class InlineFunctions(GraphPass):
    """Replaces calls of the model's own functions by what they call.

    What it does:
        The nodes of the function are copied to the place of each call, functions that it calls in turn included;
        functions that nothing calls any more go away. Other passes then see through the call: they know no shapes
        inside a function, and move nothing across its border. (Runtimes inline functions themselves.)

    Before:
        ``y = local.f <k = 0.3> (x)``, ``f <k> (a) => (b) {b = LeakyRelu <alpha = @k> (a)}``

    After:
        ``y = LeakyRelu <alpha = 0.3> (x)``

    Does not apply when:
        - the function is of a domain that runtimes have kernels for: it is what to do without them;
        - the function is written for another version of an operator set than the graph that calls it;
        - a function calls itself, or the call gives it a graph as an attribute;
        - the call has more operands than the function, or leaves out one that is a result;
        - without calls the model would have more than ``max_nodes`` nodes of functions.

    Safety:
        Exact.

    Attributes:
        max_nodes: The most nodes that all calls together may become.
    """

    name = "inline-functions"
    safety = Safety.EXACT
    max_nodes: int = 100_000

    def run(self, model: ir.Model, context: Context) -> Outcome:
        if not model.functions:
            return Outcome()
        sizes = _sizes(model)
        pending = [node for scope in context.scopes() if scope.function is None for node in scope.graph]
        whole = sum(sizes.get(node.op_identifier(), 0) for node in pending) if sizes is not None else 0
        count = 0
        while pending:
            node = pending.pop()
            function = model.functions.get(node.op_identifier())
            if function is None:
                continue
            refusal = "a function calls itself" if sizes is None else _refusal(node, function, context)
            if whole > self.max_nodes:
                refusal = "it would become too many nodes"
            if refusal is not None:
                context.note(self.name, Miss(refusal, node))
                continue
            pending += _inline(node, function, context)
            count += 1
        called = _called(model)
        for key in [key for key in model.functions if key not in called]:
            del model.functions[key]
            count += 1
        return Outcome(count, None if count else ())


def _nodes(graph: ir.Graph) -> list[ir.Node]:
    """Those of its subgraphs included."""
    return [node for scope in walk.within(walk.Scope(graph, {})) for node in scope.graph]


def _sizes(model: ir.Model) -> Mapping[ir.OperatorIdentifier, int] | None:
    """How many nodes a call of each function becomes; ``None`` if one calls itself."""
    bodies = {key: [node.op_identifier() for node in _nodes(one.graph)] for key, one in model.functions.items()}
    calls = {key: [inner for inner in body if inner in bodies] for key, body in bodies.items()}
    sizes: dict[ir.OperatorIdentifier, int] = {}
    try:
        for key in graphlib.TopologicalSorter(calls).static_order():
            sizes[key] = sum(sizes.get(inner, 1) for inner in bodies[key])
    except graphlib.CycleError:
        return None
    return sizes


def _called(model: ir.Model) -> set[ir.OperatorIdentifier]:
    """The functions that the model calls, directly or not."""
    called: set[ir.OperatorIdentifier] = set()
    graphs = [model.graph]
    while graphs:
        found = {node.op_identifier() for node in _nodes(graphs.pop())} & model.functions.keys()
        graphs += [model.functions[key].graph for key in found - called]
        called |= found
    return called


def _refusal(node: ir.Node, function: ir.Function, context: Context) -> str | None:
    if not node.domain or node.domain.startswith(_WITH_KERNELS):
        return "runtimes may have a kernel for it"
    imports = context.scope(node).opset
    versions = {inner.domain: function.opset_imports.get(inner.domain) for inner in _nodes(function.graph)}
    if any(version is None or imports.get(domain) != version for domain, version in versions.items()):
        return "the function is written for another version of an operator set"
    if any(attribute.type in _HOLDERS for attribute in node.attributes.values()):
        return "a graph is an attribute of the call"
    if len(node.inputs) > len(function.inputs) or len(node.outputs) > len(function.outputs):
        return "the call has more operands than the function"
    missing = set(function.inputs) - {one for one, given in zip(function.inputs, node.inputs, strict=False) if given}
    results = [value for scope in walk.within(walk.Scope(function.graph, {})) for value in scope.graph.outputs]
    if missing.intersection(results):
        return "an operand that is a result is left out"
    return None


def _inline(node: ir.Node, function: ir.Function, context: Context) -> list[ir.Node]:
    """Puts a copy of the function in the place of its call; returns the copy's nodes."""
    copy = function.graph.clone()
    scopes = list(walk.within(walk.Scope(copy, {})))
    for scope in scopes:
        for inner in scope.graph:
            _settle(inner, node, function, context)
        if scope.owner is not None:
            _rename(scope.graph, context)
    given: dict[ir.Value, ir.Value | None] = dict.fromkeys(copy.inputs)
    given.update(zip(copy.inputs, node.inputs, strict=False))
    for old, new in given.items():
        for user, index in old.uses():
            user.replace_input_with(index, new)
    for scope in scopes[1:]:
        _pass_through(scope.graph, given)
    nodes, results = lift(copy, node, context)
    context.adopt(nodes)
    stand_ins = [given.get(result) or result for result in results[: len(node.outputs)]]
    for old, new in zip(node.outputs, stand_ins, strict=True):
        if new.type is None:
            new.type, new.shape = old.type, old.shape
    replace(node, stand_ins, context)
    return [inner for scope in scopes for inner in (nodes if scope.graph is copy else scope.graph)]


def _pass_through(graph: ir.Graph, given: Mapping[ir.Value, ir.Value | None]) -> None:
    """A branch may give an operand of the function as it is."""
    for index, output in enumerate(graph.outputs):
        new = given.get(output)
        if new is not None:
            graph.outputs[index] = new


def _settle(inner: ir.Node, call: ir.Node, function: ir.Function, context: Context) -> None:
    """Gives a copied node the call's attributes, and what is around it no names and shapes of the function."""
    for key, attribute in list(inner.attributes.items()):
        if not attribute.is_ref():
            continue
        name = attribute.ref_attr_name or ""
        value = call.attributes.get(name) or function.attributes.get(name)
        del inner.attributes[key]
        if value is not None and value.value is not None:
            inner.attributes[key] = ir.Attr(key, value.type, value.value)
    if inner.name:
        inner.name = context.names.fresh(inner.name)
    for key, text in call.metadata_props.items():
        inner.metadata_props.setdefault(key, text)
    for output in inner.outputs:
        output.shape = None


def _rename(graph: ir.Graph, context: Context) -> None:
    """Names of a branch must not be those of a graph around it."""
    made = [output for node in graph for output in node.outputs]
    for value in [*graph.inputs, *graph.initializers.values(), *made]:
        if value.name:
            value.name = context.names.fresh(value.name)
