"""A copy of the analysed model that is being changed, and how to find one's way from the original to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from graphopt import walk
from graphopt.analysis import constants
from graphopt.names import Names
from graphopt.rewrite import edit

__all__ = ["Workpiece"]


class Workpiece:
    """A copy of ``original``; every method takes nodes and values of the original.

    Attributes:
        model: The copy.
    """

    def __init__(self, original: ir.Model) -> None:
        self.model = original.clone()
        self.model.meta.update(original.meta)
        self.names = Names(self.model)
        self._nodes: dict[ir.Node, ir.Node] = {}
        self._values: dict[ir.Value, ir.Value] = {}
        self._orphans: list[ir.Value] = []
        for ours, theirs in zip(walk.scopes(original), walk.scopes(self.model), strict=True):
            self._values.update(zip(ours.graph.inputs, theirs.graph.inputs, strict=True))
            for name, value in ours.graph.initializers.items():
                self._values[value] = theirs.graph.initializers[name]
            for node, copy in zip(ours.graph, theirs.graph, strict=True):
                self._nodes[node] = copy
                self._values.update(zip(node.outputs, copy.outputs, strict=True))

    def node(self, node: ir.Node) -> ir.Node:
        """The copy of a node."""
        return self._nodes[node]

    def value(self, value: ir.Value) -> ir.Value:
        """The copy of a value."""
        return self._values[value]

    def replace_input(self, node: ir.Node, index: int, value: ir.Value) -> None:
        """Lets the copy of ``node`` read something else, also in a place where it read nothing."""
        copy = self._nodes[node]
        if index >= len(copy.inputs):
            copy.resize_inputs(index + 1)
        before = copy.inputs[index]
        copy.replace_input_with(index, value)
        if before is not None:
            self._orphans.append(before)

    def constant(self, near: ir.Node, contents: npt.NDArray[Any] | ir.TensorProtocol, name: str | None) -> ir.Value:
        """A new constant in the graph of the copied node ``near``."""
        graph = near.graph
        assert isinstance(graph, ir.Graph)
        name = self.names.fresh(name or f"{near.name or near.op_type}_constant")
        tensor = constants.tensor(contents, name) if isinstance(contents, np.ndarray) else contents
        tensor.name = name
        value = edit.constant_value(name, tensor)
        graph.register_initializer(value)
        return value

    def insert(
        self,
        near: ir.Node,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        attributes: Mapping[str, Any] | None = None,
        *,
        after: bool = False,
    ) -> ir.Value:
        """A new node before (or after) the copied node ``near``; its output."""
        graph = near.graph
        assert graph is not None
        node = ir.node(
            op_type, inputs, attributes or {}, name=self.names.fresh(f"{near.name or near.op_type}_{op_type}")
        )
        node.outputs[0].name = self.names.fresh(node.name)
        if after:
            graph.insert_after(near, node)
        else:
            graph.insert_before(near, node)
        return node.outputs[0]

    def redirect(self, old: ir.Value, new: ir.Value, but: ir.Node) -> None:
        """Lets all readers of a copied value, save one, read another that is computed from it."""
        if old.is_graph_output():
            graph = old.graph
            assert graph is not None
            name = old.name
            old.name = self.names.fresh(name)
            new.name, new.type, new.shape = name, old.type, old.shape
            for index, output in enumerate(graph.outputs):
                if output is old:
                    graph.outputs[index] = new
        for user, index in list(old.uses()):
            if user is not but:
                user.replace_input_with(index, new)

    def redirect_to_constant(self, node: ir.Node, contents: npt.NDArray[Any]) -> None:
        """Lets all readers of a copied node read a constant instead."""
        output = node.outputs[0]
        new = self.constant(node, contents, output.name)
        for user, index in list(output.uses()):
            user.replace_input_with(index, new)
        self._orphans.append(output)

    def forget(self, node: ir.Node) -> None:
        """The copied node is of no more use."""
        self._orphans.append(node.outputs[0])

    def remove_orphans(self) -> None:
        """Takes away what nothing reads any more since inputs were replaced."""
        pending = [value.producer() for value in self._orphans]
        read = list(self._orphans)
        while pending:
            node = pending.pop()
            if node is None or node.graph is None or not edit.is_dead(node):
                continue
            for value in edit.erase(node):
                read.append(value)
                pending.append(value.producer())
        for value in dict.fromkeys(read):
            graph = value.graph
            if value.is_initializer() and not (value.uses() or value.is_graph_output() or value.is_graph_input()):
                assert isinstance(graph, ir.Graph)
                assert value.name is not None
                del graph.initializers[value.name]
