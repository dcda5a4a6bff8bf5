"""Replaces a Loop of a few known rounds by what its body does in each."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx_ir as ir

from graphopt import walk
from graphopt.pipeline.base import Context, GraphPass, Outcome, Safety
from graphopt.rewrite import edit
from graphopt.rewrite.match import Miss
from graphopt_passes._lifting import lift, replace

__all__ = ["FoldLoop"]


@dataclasses.dataclass(frozen=True)
class FoldLoop(GraphPass):
    """Replaces a Loop of a few known rounds by what its body does in each.

    What it does:
        The body is written out once for each round, with the number of the round as a constant; what a round carries
        on is what the next one starts from, and what each gives is put together by Unsqueeze and Concat. Runtimes
        start a session of its own for each round of a Loop, and optimize nothing across them.

    Before:
        ``y = Loop(2, true, x) <body = (i, c, v) => (c, w) {w = Mul(v, s)}>``

    After:
        ``w = Mul(x, s); y = Mul(w, s)``

    Does not apply when:
        - the number of rounds is not constant, can be overridden by the caller, or is 0;
        - the condition may end the Loop: it does not start as true, or the body computes it;
        - written out, the rounds would have more than ``max_nodes`` nodes;
        - it carries what is left out at the start.

    Safety:
        Exact.

    Attributes:
        max_nodes: The most nodes that a Loop may become.
    """

    name = "fold-loop"
    safety = Safety.EXACT
    needs = frozenset({"Loop"})

    max_nodes: int = 32

    def run(self, model: ir.Model, context: Context) -> Outcome:
        count = 0
        touched: list[ir.Node] = []
        for scope in context.scopes():
            # Taken now; Loops that arrive with what was written out are appended and seen in their turn.
            pending = [node for node in scope.graph if node.op_type == "Loop" and not node.domain]
            for node in pending:
                rounds = _rounds(node, context)
                if isinstance(rounds, int) and rounds * _size(node.attributes["body"].as_graph()) > self.max_nodes:
                    rounds = "it would become too many nodes"
                if isinstance(rounds, str):
                    context.note(self.name, Miss(rounds, node))
                    continue
                written, others = _unroll(node, rounds, context)
                pending += [inner for inner in written if inner.op_type == "Loop" and not inner.domain]
                touched += [*written, *others]
                count += 1
        return Outcome(count, touched)


def _rounds(node: ir.Node, context: Context) -> int | str:
    """How often the body runs; or why that is not known."""
    limit, condition, *carried = [*node.inputs, None, None][: max(2, len(node.inputs))]
    rounds = context.scalar(limit)
    if "body" not in node.attributes or node.attributes["body"].is_ref():
        return "the body is that of a function's attribute"
    if not isinstance(rounds, int) or rounds < 1:
        return "the number of rounds is not known, or 0"
    if condition is not None and context.scalar(condition) is not True:
        return "the condition does not start as true"
    body = node.attributes["body"].as_graph()
    if any(value is None for value in carried) or len(body.inputs) != len(carried) + 2:
        return "it carries what is left out at the start"
    if not _goes_on(body.outputs[0], body.inputs[1], context):
        return "the body may end it"
    return rounds


def _goes_on(value: ir.Value, given: ir.Value, context: Context) -> bool:
    """Whether the condition that the body gives is the one that it got, or true."""
    while (identity := context.producer(value, "Identity")) is not None and identity.inputs[0] is not None:
        value = identity.inputs[0]
    return value is given or context.scalar(value) is True


def _size(graph: ir.Graph) -> int:
    return sum(len(scope.graph) for scope in walk.within(walk.Scope(graph, {})))


def _unroll(node: ir.Node, rounds: int, context: Context) -> tuple[list[ir.Node], list[ir.Node]]:
    """Writes the rounds out; returns the nodes of that, and what else deserves another look."""
    body = node.attributes["body"].as_graph()
    carried = [value for value in node.inputs[2:] if value is not None]
    collected: list[list[ir.Value]] = [[] for _ in node.outputs[len(carried) :]]
    written: list[ir.Node] = []
    counted, asked = (value.uses() or value.is_graph_output() for value in body.inputs[:2])
    true = context.new_constant(node, np.array(True), "true") if asked else None
    for number in range(rounds):
        copy = _copy(body, context)
        count = context.new_constant(node, np.array(number, np.int64), "round") if counted else None
        given = [count, true, *carried]
        outputs = list(copy.outputs)
        for old, new in zip(copy.inputs, given, strict=True):
            outputs = [new if output is old and new is not None else output for output in outputs]
            if new is not None:
                _redirect(old, new)
        passed = {index: output for index, output in enumerate(outputs) if output is not copy.outputs[index]}
        nodes, results = lift(copy, node, context)
        context.adopt(nodes)
        results = [passed.get(index, result) for index, result in enumerate(results)]
        carried = results[1 : 1 + len(carried)]
        for values, result in zip(collected, results[1 + len(carried) :], strict=True):
            values.append(result)
        edit.erase_if_dead([one for one in (results[0].producer(),) if one in nodes])
        written += [one for one in nodes if one.graph is not None]
    for output, values in zip(node.outputs[len(carried) :], collected, strict=True):
        used = output.uses() or output.is_graph_output()
        carried.append(_together(node, values, written, context) if used else values[0])
    wrappers, others = replace(node, carried, context)
    return written, [*wrappers, *others]


def _copy(body: ir.Graph, context: Context) -> ir.Graph:
    """A copy whose nodes, those in branches too, have names of their own."""
    copy = body.clone(allow_outer_scope_values=True)
    for scope in walk.within(walk.Scope(copy, {})):
        for node in scope.graph:
            if node.name:
                node.name = context.names.fresh(node.name)
    return copy


def _redirect(old: ir.Value, new: ir.Value) -> None:
    for user, index in old.uses():
        user.replace_input_with(index, new)


def _together(node: ir.Node, values: list[ir.Value], made: list[ir.Node], context: Context) -> ir.Value:
    """What the rounds gave, along a new first axis."""
    by_attribute = context.opset(node) < 13
    axes = [] if by_attribute else [context.new_constant(node, np.array([0], np.int64), "axes")]
    attributes = {"axes": [0]} if by_attribute else {}
    rows = [_insert(ir.node("Unsqueeze", [value, *axes], attributes), node, made, context) for value in values]
    return _insert(ir.node("Concat", rows, {"axis": 0}), node, made, context)


def _insert(new: ir.Node, node: ir.Node, made: list[ir.Node], context: Context) -> ir.Value:
    new.name = context.names.fresh(f"{node.name or node.op_type}_{new.op_type}")
    (value,) = new.outputs
    value.name = context.names.fresh(new.name)
    node.prepend([new])
    made.append(new)
    return value
