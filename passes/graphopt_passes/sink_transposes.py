"""Moves Transposes past what does not care about the order of axes, to where they cancel."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import onnx_ir as ir

from graphopt.pipeline.base import Context, GraphPass, Outcome, Safety
from graphopt.rewrite import edit
from graphopt_passes._layouts import RULES, Move, Permutation, compose, drops_axes, inverse
from graphopt_passes._shape_ops import ints_attribute

__all__ = ["SinkTransposes"]


@dataclasses.dataclass(frozen=True)
class SinkTransposes(GraphPass):
    """Moves Transposes past what does not care about the order of axes, where fewer of them are left then.

    What it does:
        Elementwise operators, Concat, Split, Softmax, Pad, Slice, Gather, Squeeze and reductions compute the same on a
        tensor before its Transpose, with their axes renamed and their constants transposed back. So is an operand that
        another Transpose has turned back already, as that of a residual connection. So Transposes go downwards,
        where they meet others and cancel: exports from TensorFlow put each convolution between two. Each connected
        part of a graph is rewritten as a whole, if fewer Transposes are left.

    Before:
        ``c = Conv(x, w); t = Transpose <perm=[0,2,3,1]> (c); a = Add(t, b); r = Relu(a);
        u = Transpose <perm=[0,3,1,2]> (r); y = Conv(u, v)``

    After:
        ``c = Conv(x, w); a = Add(c, b'); r = Relu(a); y = Conv(r, v)``

    Does not apply when:
        - as many Transposes would be left;
        - two operands are transposed differently, or one is not, and is no constant of at most 65,536 elements;
        - an operator looks at the order of axes: MatMul, Reshape, a normalization.

    Safety:
        Numeric: reductions and Softmax add up in another order.
    """

    name = "sink-transposes"
    safety = Safety.NUMERIC
    needs = frozenset({"Transpose"})

    def run(self, model: ir.Model, context: Context) -> Outcome:
        touched: list[ir.Node] = []
        count = 0
        for scope in context.scopes():
            transposes = [node for node in scope.graph if node.op_type == "Transpose"]
            useful = _leading_to_transposes(scope.graph) if transposes else set()
            if not any(output in useful for node in transposes for output in node.outputs):
                continue
            plan = _Plan(scope.graph, useful, context)
            for nodes in plan.gains():
                count += 1
                touched += plan.carry_out(nodes)
        return Outcome(count, [node for node in touched if node.graph is not None])


@dataclasses.dataclass
class _Part:
    """Transposes and what lies between them.

    Attributes:
        before: How many Transposes it has.
        after: How many are left if they all sink.
        parent: The part that it became a part of, if it did.
    """

    before: int = 0
    after: int = 0
    parent: _Part | None = None

    def root(self) -> _Part:
        part = self
        while part.parent is not None:
            part = part.parent
        return part


class _Plan:
    """What would happen if all Transposes of a graph sank as far as they can, wherever that leads to another."""

    def __init__(self, graph: ir.Graph, useful: set[ir.Value], context: Context) -> None:
        self._context = context
        self._graph = graph
        self._useful = useful
        self._turned: dict[ir.Value, Permutation] = {}
        self._parts: dict[ir.Value, _Part] = {}
        self._moves: dict[ir.Node, Move | None] = {}
        """Nodes that go, and what stands for them; ``None`` for a Transpose."""
        self._made: dict[tuple[ir.Value | None, Permutation], ir.Value] = {}
        """Results of Transposes, by what they read."""
        self._read: set[ir.Value] = set()
        """Those that will be read as they are by what did not read them."""
        for node in graph:
            self._visit(node)
        self._kept = set(self._read_as_they_are())
        for value in self._kept:
            self._parts[value].root().after += 1

    def gains(self) -> list[list[ir.Node]]:
        """The nodes of each part that has fewer Transposes afterwards."""
        nodes: dict[int, list[ir.Node]] = {}
        for node in self._moves:
            part = self._parts[node.outputs[0]].root()
            if part.after < part.before:
                nodes.setdefault(id(part), []).append(node)
        return list(nodes.values())

    def _visit(self, node: ir.Node) -> None:
        if node.op_type == "Transpose" and not node.domain:
            self._start(node, node.outputs[0])
            return
        rule = RULES.get(node.op_type)
        turned = {
            index: value for index, value in enumerate(node.inputs) if value is not None and value in self._turned
        }
        if rule is None or not turned or node.domain or (len(node.outputs) != 1 and node.op_type != "Split"):
            return
        if not (any(output in self._useful for output in node.outputs) or drops_axes(node)):
            return
        if any(attribute.is_ref() for attribute in node.attributes.values()):
            return
        permutations = {self._turned[value] for value in turned.values()}
        if len(permutations) != 1:
            return
        permutation = permutations.pop()
        twins = self._twins(node, permutation)
        move = rule(node, permutation, sorted({*turned, *twins}), self._context)
        if move is None:
            return
        self._moves[node] = dataclasses.replace(move, values=twins)
        self._read.update(twins.values())
        part = _united([self._parts[value].root() for value in turned.values()])
        for output in node.outputs:
            self._note(output, move.permutation, part)

    def _twins(self, node: ir.Node, permutation: Permutation) -> dict[int, ir.Value]:
        """Of inputs that are not transposed, what an earlier Transpose made of them: just what they would be before."""
        found = {index: self._made.get((value, inverse(permutation))) for index, value in enumerate(node.inputs)}
        return {
            index: twin for index, twin in found.items() if twin is not None and node.inputs[index] not in self._turned
        }

    def _start(self, node: ir.Node, output: ir.Value) -> None:
        source = node.inputs[0]
        permutation = ints_attribute(node, "perm")
        if permutation is None or source is None:
            return
        self._moves[node] = None
        self._made.setdefault((source, permutation), output)
        if source in self._turned:
            part = self._parts[source].root()
            permutation = compose(self._turned[source], permutation)
        else:
            part = _Part()
        part.before += 1
        self._note(output, permutation, part)

    def _note(self, output: ir.Value, permutation: Permutation, part: _Part) -> None:
        self._parts[output] = part
        if permutation != tuple(range(len(permutation))):
            self._turned[output] = permutation

    def _read_as_they_are(self) -> list[ir.Value]:
        """The values that need a Transpose, because something else reads them."""
        return [
            value
            for value in self._turned
            if value.is_graph_output()
            or value in self._read
            or any(reader not in self._moves or reader.graph is not self._graph for reader in value.consumers())
        ]

    def carry_out(self, nodes: list[ir.Node]) -> list[ir.Node]:
        """Rewrites one part, given its nodes.

        Returns:
            The nodes whose surroundings changed.
        """
        before: dict[ir.Value, ir.Value] = {}
        touched: list[ir.Node] = []
        given = {node: node.inputs for node in nodes}  # as they are now: what is read changes on the way
        for node in nodes:
            move = self._moves[node]
            inputs = [
                now if then is None else before.get(then, now)
                for then, now in zip(given[node], node.inputs, strict=True)
            ]
            starts = move is None and given[node][0] not in before
            results = inputs[:1] if move is None else self._moved(node, move, inputs, touched)
            for output, new in zip(node.outputs, results, strict=True):
                assert new is not None
                before[output] = new
                if output not in self._turned:
                    touched += self._stand_in(node, output, new)
                elif output in self._kept and not starts:
                    touched += self._transposed(node, output, new)
        return touched + edit.erase_if_dead([node for node in reversed(nodes) if edit.is_dead(node)])[1]

    def _moved(
        self, node: ir.Node, move: Move, inputs: list[ir.Value | None], touched: list[ir.Node]
    ) -> Sequence[ir.Value]:
        """The results of ``node`` on what its inputs are before their Transpose."""
        for index, value in move.values.items():
            inputs[index] = value
        for index, contents in move.constants.items():
            old = node.inputs[index]
            inputs[index] = self._context.new_constant(node, contents, old.name if old is not None else None)
        changed = {name: ir.convenience.convert_attribute(name, value) for name, value in move.attributes.items()}
        new = ir.Node(
            node.domain,
            node.op_type,
            inputs,
            {**node.attributes, **changed}.values(),
            num_outputs=len(node.outputs),
            name=node.name,
            doc_string=node.doc_string,
            metadata_props=dict(node.metadata_props),
        )
        node.name = None
        for result, old_result in zip(new.outputs, node.outputs, strict=True):
            result.name = self._context.names.fresh(old_result.name or node.op_type)
            result.type = old_result.type
        node.prepend([new])
        touched.append(new)
        return new.outputs

    def _stand_in(self, node: ir.Node, output: ir.Value, new: ir.Value) -> list[ir.Node]:
        """Lets the readers of ``output`` of ``node``, which nothing would transpose any more, read ``new``."""
        if edit.can_stand_in(output, new):
            return self._redirect(output, new)
        return self._insert(node, output, ir.node("Identity", [new]))

    def _transposed(self, node: ir.Node, output: ir.Value, source: ir.Value) -> list[ir.Node]:
        """Computes ``output`` of ``node`` from what it is before its Transpose."""
        return self._insert(node, output, ir.node("Transpose", [source], {"perm": self._turned[output]}))

    def _insert(self, node: ir.Node, output: ir.Value, new: ir.Node) -> list[ir.Node]:
        """Lets the readers of ``output`` of ``node`` read what ``new`` gives, under the same name."""
        (result,) = new.outputs
        new.name = self._context.names.fresh(new.op_type)
        if not output.is_graph_output():
            edit.inherit(result, output)
            result.type, result.shape = output.type, output.shape
        node.prepend([new])
        return [new, *self._redirect(output, result)]

    def _redirect(self, old: ir.Value, new: ir.Value) -> list[ir.Node]:
        shapes = self._context.shapes_or_none
        if shapes is not None:
            shapes.assume(new, like=old)
        return edit.redirect(old, new)


def _leading_to_transposes(graph: ir.Graph) -> set[ir.Value]:
    """Values on the way to a Transpose, or to a reduction that may drop the axes that were moved."""
    useful: set[ir.Value] = set()
    for node in reversed(graph):
        passes = node.op_type in RULES and any(output in useful for output in node.outputs)
        if node.op_type == "Transpose" or passes or drops_axes(node):
            useful.update(value for value in node.inputs if value is not None)
    return useful


def _united(parts: list[_Part]) -> _Part:
    """One part in place of several."""
    first, *others = parts
    for other in others:
        if other.root() is not first:
            first.before += other.before
            other.parent = first
    return first
