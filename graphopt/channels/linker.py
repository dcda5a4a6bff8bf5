"""Relates the axes of all values of a model, operator by operator.

Each rule (``rules``) sees one node as an :class:`~graphopt.channels.op.Op`. Weights are values like any other, so a
member of a unit is simply a slice of a constant along an axis.

A lane is *zero* when masking it, which zeroes the slices of all constants along it, makes every element of it zero.
Sums over lanes need that; products with a masked weight do not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import onnx_ir as ir

from graphopt import walk
from graphopt.analysis import constants
from graphopt.analysis.constness import initializer_inputs_are_fixed
from graphopt.analysis.shapes import Shapes
from graphopt.channels.axes import Axis, freeze
from graphopt.channels.op import Op, Unlinkable
from graphopt.channels.records import Axes, Link, Place, Product, Sum, ZeroPoint
from graphopt.names import operator

__all__ = ["Linker"]

_MALFORMED = (LookupError, ValueError, TypeError, ArithmeticError)
"""What a rule raises on a node that no runtime would run; reporting that is not the linker's job."""


class Linker:
    """What the rules say of one model, and all there is to compute groups from.

    Attributes:
        model: The model; weights are not read.
        shapes: Its shapes.
        axes: The axes of each value with a known rank.
        constants: The axes of each constant, by where it is read.
        zero: For each axis of a value, whether masked lanes along it are zero.
        links: Elements that go together though their axes do not.
        products: Where the work is.
        sums: Where lanes are added up.
        kept: Constants that masking must not zero, such as scales, by where they are read.
        scaled: Nodes that average over lanes that are zero, with the axes: exact once corrected for their number.
        normalized: Nodes that take statistics, and over which axes.
        zero_points: What masking puts into quantized constants.
        generated: Weights that a node makes from their shape alone.
        nodes: Every node, those nested in another before it.
    """

    def __init__(self, model: ir.Model, *, may_shrink: Callable[[str], bool] = lambda _: False) -> None:
        self.model = model
        self.shapes = Shapes(model, believe_declared=True)
        self.axes: dict[ir.Value, Axes | None] = {}
        self.constants: dict[Place, Axes] = {}
        self.zero: dict[ir.Value, tuple[bool, ...]] = {}
        self.links: list[Link] = []
        self.products: list[Product] = []
        self.sums: list[Sum] = []
        self.kept: set[Place] = set()
        self.scaled: dict[ir.Node, Axes] = {}
        self.normalized: dict[ir.Node, list[Axis]] = {}
        self.zero_points: dict[Place, ZeroPoint] = {}
        self.generated: list[ir.Value] = []
        self.nodes: list[ir.Node] = []
        self._fixed = initializer_inputs_are_fixed(model)
        self._may_shrink = may_shrink
        self._opsets: dict[ir.Graph | None, int] = {}
        self._run()

    def opset(self, node: ir.Node) -> int:
        """The version of ONNX's own operator set where the node stands."""
        return self._opsets.get(node.graph, 0)

    def _run(self) -> None:
        from graphopt.channels.rules import RULES

        for value in self.model.graph.inputs:
            if not (value.is_initializer() and self._fixed):
                self._boundary(value, "it is part of the model's input")
        ordered = list(walk.scopes(self.model))
        for scope in ordered:
            self._opsets[scope.graph] = scope.opset.get("", 0)
        self._walk(self.model.graph, RULES)
        for value in self.model.graph.outputs:
            self._boundary(value, "it is part of the model's output")

    def _boundary(self, value: ir.Value, reason: str) -> None:
        if not self._may_shrink(value.name or ""):
            for axis in self.of(value) or ():
                freeze(axis, None, reason)

    def _walk(self, graph: ir.Graph, rules: Any) -> None:
        for node in graph:
            # what is nested comes first: its outputs are what the node's rule relates
            for inner in walk.subgraphs(node):
                for value in inner.inputs:
                    for axis in self.of(value) or ():
                        freeze(axis, node, "it enters the body of a loop")
                self._walk(inner, rules)
            if node.op_type == "Constant" and not node.domain:
                continue
            rule = rules.get(operator(node))
            op = Op(self, node)
            if rule is None or any(attribute.is_ref() for attribute in node.attributes.values()):
                op.freeze_all(f"{node.op_type} has no rule")
            else:
                try:
                    rule.link(op)
                except Unlinkable as error:
                    op.freeze_all(str(error))
                except _MALFORMED:
                    op.freeze_all(f"{node.op_type} breaks the rules of its operator")
            op.finish()
            self.nodes.append(node)

    # -- axes --------------------------------------------------------------------------------------------------------

    def of(self, value: ir.Value) -> Axes | None:
        """The axes of a value; ``None`` when its rank is unknown."""
        if value not in self.axes:
            shape = self.shapes.of(value)
            self.axes[value] = None if shape is None else tuple([Axis(size) for size in shape])
            constant = self.constant(value)
            axes = self.axes[value] or ()
            # A constant is masked to zero; what is computed says for itself.
            self.zero.setdefault(value, (constant is not None,) * len(axes))
            if constant is not None:
                self.constants[Place(None, 0, value)] = axes
            elif value.is_initializer():
                for axis in axes:
                    freeze(axis, None, "the caller may override it")
        return self.axes[value]

    def constant(self, value: ir.Value) -> ir.TensorProtocol | None:
        """The tensor that a value always holds."""
        if value.is_initializer() and value.is_graph_input() and self._fixed:
            return value.const_value
        return constants.constant(value)
