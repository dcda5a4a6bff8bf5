"""The one place that rewrites by rules: a worklist indexed by operator type, linear in the graph.

Every node is looked at once. After a rewrite only its neighbours are looked at again: the readers of the new values
(as far downstream as any rule reaches), the new nodes, and the nodes that lost a reader.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterable, Sequence

import onnx_ir as ir

from graphopt.errors import UsageError
from graphopt.names import key
from graphopt.pipeline.base import Context, RulePass
from graphopt.rewrite import edit
from graphopt.rewrite.builder import Builder
from graphopt.rewrite.match import Match, Miss

__all__ = ["Driver"]

_PER_NODE, _FLOOR = 100, 1000
"""More rewrites than these, per node and in all, are no progress; real models need about one for every second node."""


class Driver:
    """Applies rule passes until none fires.

    Args:
        context: The model and what is known about it.
        passes: The rules, in order of preference at a node.
        check: Called with the name of a pass after each of its rewrites (debug mode).
    """

    def __init__(
        self, context: Context, passes: Sequence[RulePass], check: Callable[[str], None] | None = None
    ) -> None:
        self._context = context
        self._check = check
        self._index: dict[str, list[RulePass]] = {}
        for rule in passes:
            for op_type in rule.ops:
                self._index.setdefault(op_type, []).append(rule)
        self._passes = tuple(passes)
        self._present: set[str] = set()
        self._asked: dict[str, list[RulePass]] = {}
        self._reach = 1
        self._queue: collections.deque[ir.Node] = collections.deque()
        self._queued: set[ir.Node] = set()
        self._everything = False
        self._ahead: set[ir.Node] = set()
        """Nodes that a look at everything has not come to yet, and with them all that rests on them."""
        self.counts: collections.Counter[str] = collections.Counter()

    def enqueue(self, nodes: Iterable[ir.Node]) -> None:
        """Asks for another look at ``nodes``."""
        if self._everything:
            return
        index, queued, queue = self._index, self._queued, self._queue
        for node in nodes:
            if key(node) in index and node not in queued:
                queued.add(node)
                queue.append(node)

    def enqueue_all(self) -> None:
        """Asks for a look at every node of the model."""
        self._everything = True
        self._queue.clear()
        self._queued.clear()

    def run(self) -> int:
        """Rewrites until nothing applies.

        Returns:
            How many rewrites were made.

        Raises:
            UsageError: Passes undo each other for ever.
        """
        before = self.counts.copy()
        if self._everything:
            self._everything = False
            for scope in self._context.scopes():
                self.enqueue(scope.graph)
            self._ahead = self._queued.copy()
        self._present = {key(node) for scope in self._context.scopes() for node in scope.graph}
        self._choose()
        budget = _FLOOR + _PER_NODE * sum(len(scope.graph) for scope in self._context.scopes())
        while self._queue:
            node = self._queue.popleft()
            self._queued.discard(node)
            self._ahead.discard(node)
            if node.graph is not None and self._visit(node):
                budget -= 1
                if budget < 0:
                    raise _endless(self.counts - before)
        return self.counts.total() - before.total()

    def _choose(self) -> None:
        """Forgets which rules to ask, after new operator types arrived."""
        self._asked.clear()
        self._reach = max((rule.reach for rule in self._passes if self._has_needs(rule)), default=1)

    def _has_needs(self, rule: RulePass) -> bool:
        return not rule.needs or not self._present.isdisjoint(rule.needs)

    def _rules(self, node: ir.Node) -> list[RulePass]:
        """The rules that may apply at ``node`` in this model."""
        operator = key(node)
        found = self._asked.get(operator)
        if found is None:
            found = self._asked[operator] = [rule for rule in self._index[operator] if self._has_needs(rule)]
        return found

    def _visit(self, node: ir.Node) -> bool:
        """Tries the rules at ``node`` in order; whether one was applied."""
        if edit.is_dead(node):
            return False
        if self._context.scope(node).function is not None and any(a.is_ref() for a in node.attributes.values()):
            return False
        for rule in self._rules(node):
            verdict = rule.match(node, self._context)
            if isinstance(verdict, Miss):
                self._context.note(rule.name, verdict)
            elif verdict is not None and self._apply(rule, verdict):
                self.counts[rule.name] += 1
                if self._check is not None:
                    self._check(rule.name)
                return True
        return False

    def _apply(self, rule: RulePass, match: Match) -> bool:
        root = match.root
        if match.forward is not None:
            stand_ins = match.forward
            new_nodes: list[ir.Node] = []
            if any(new is not None and not edit.can_stand_in(old, new) for old, new in _pairs(root, stand_ins)):
                self._context.note(rule.name, Miss("it computes a graph output that cannot be renamed away", root))
                return False
        else:
            stand_ins, new_nodes = self._build(match)
        self._place(root, new_nodes, stand_ins)
        dirty = self._redirect(root, new_nodes, stand_ins)
        _, weakened = edit.erase_if_dead([root])
        dirty += new_nodes
        dirty += weakened
        for node in new_nodes:
            dirty += node.predecessors()
        self.enqueue(dirty)
        return True

    def _build(self, match: Match) -> tuple[list[ir.Value | None], list[ir.Node]]:
        assert match.build is not None
        builder = Builder(self._context, match.root)
        stand_ins = [
            builder.op("Identity", [new]) if new is not None and _must_wrap(old, new, builder) else new
            for old, new in _pairs(match.root, match.build(builder))
        ]
        return stand_ins, builder.nodes

    def _place(self, root: ir.Node, new_nodes: Sequence[ir.Node], stand_ins: Sequence[ir.Value | None]) -> None:
        """Inserts the new nodes before ``root``; what replaces an output of it inherits the output's name."""
        if not new_nodes:
            return
        for old, new in _pairs(root, stand_ins):
            if new is not None and new.producer() in new_nodes and not old.is_graph_output():
                edit.inherit(new, old)
        for node in new_nodes:
            for output in node.outputs:
                if output.name is None:
                    output.name = self._context.names.fresh(node.name or node.op_type)
        root.prepend(new_nodes)
        last = stand_ins[0].producer() if stand_ins[0] is not None else None
        if last is not None and last in new_nodes:
            last.name, root.name = root.name, None
        self._context.adopt(new_nodes)
        arrived = {key(node) for node in new_nodes} - self._present
        if arrived:
            self._present |= arrived
            self._choose()

    def _redirect(
        self, root: ir.Node, new_nodes: Sequence[ir.Node], stand_ins: Sequence[ir.Value | None]
    ) -> list[ir.Node]:
        shapes = self._context.shapes_or_none
        readers: list[ir.Node] = []
        for old, new in _pairs(root, stand_ins):
            if new is None:
                continue
            if new.producer() is not None:
                if new.type is None:
                    new.type = old.type
                if new.shape is None:
                    new.shape = old.shape
                if shapes is not None:
                    shapes.assume(new, like=old, infer=new.producer() in new_nodes)
            if shapes is not None and shapes.gains(new, old):
                shapes.forget_after([old], self._context.holders)
            readers += edit.redirect(old, new)
        return self._downstream(readers)

    def _downstream(self, nodes: list[ir.Node]) -> list[ir.Node]:
        found = dict.fromkeys(nodes)
        edge = found
        for _ in range(self._reach - 1):
            edge = {
                use.node: None
                for node in edge
                if node not in self._ahead
                for output in node._outputs
                for use in output._uses  # not successors(), which copies
                if use.node not in found
            }
            if not edge:
                break
            found.update(edge)
        return list(found)


def _endless(counts: collections.Counter[str]) -> UsageError:
    names = " and ".join(f"'{name}'" for name, _ in counts.most_common(2))
    return UsageError(
        f"rewriting does not come to an end: {names} keep undoing what was done",
        hint="Leave one of them out; a rule must bring the graph closer to a form that no rule changes.",
    )


def _pairs(root: ir.Node, stand_ins: Sequence[ir.Value | None]) -> Iterable[tuple[ir.Value, ir.Value | None]]:
    return zip(root.outputs, stand_ins, strict=True)


def _must_wrap(old: ir.Value, new: ir.Value, builder: Builder) -> bool:
    """Whether ``new`` needs a node of its own to become the graph output that ``old`` is."""
    fresh = new.producer() in builder.nodes
    return old.is_graph_output() and not fresh and not edit.can_stand_in(old, new)
