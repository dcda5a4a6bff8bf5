"""The primitive edits of a graph. Only the driver and whole-graph passes call them."""

from __future__ import annotations

from collections.abc import Iterable

import onnx_ir as ir

from graphopt import walk

__all__ = ["can_stand_in", "constant_value", "erase", "erase_if_dead", "inherit", "is_dead", "redirect"]


def constant_value(name: str | None, tensor: ir.TensorProtocol) -> ir.Value:
    """A value that holds ``tensor``, ready to be registered as an initializer."""
    return ir.Value(
        name=name, shape=ir.Shape(tensor.shape.numpy()), type=ir.TensorType(tensor.dtype), const_value=tensor
    )


def is_dead(node: ir.Node) -> bool:
    """Whether nothing reads any output of the node."""
    # A plain loop over the private dict: uses() copies, and nothing is asked more often than this.
    for output in node.outputs:  # noqa: SIM110
        if output.is_graph_output() or output._uses:
            return False
    return True


def can_stand_in(old: ir.Value, new: ir.Value) -> bool:
    """Whether ``new``, a value that exists already, can take the place of ``old`` everywhere.

    Only a graph output is picky: its name and its place are the interface, so ``new`` must be a node output of the
    same graph that is no output under a name of its own.
    """
    if old is new:
        return False
    if not old.is_graph_output():
        return True
    producer = new.producer()
    return producer is not None and producer.graph is old.graph and not new.is_graph_output()


def inherit(new: ir.Value, old: ir.Value) -> None:
    """Gives ``new`` the name of ``old``, and with it documentation, metadata and quantization annotation."""
    name, old.name = old.name, None
    new.name = name
    if old.doc_string:
        new.doc_string = old.doc_string
    if old._metadata_props:
        new.metadata_props.update(old.metadata_props)
    if old._metadata:
        new.meta.update(old.meta)


def redirect(old: ir.Value, new: ir.Value) -> list[ir.Node]:
    """Makes every reader of ``old`` read ``new``; as a graph output ``new`` takes over all that ``old`` declares.

    Returns:
        The nodes that read ``old`` before.
    """
    if old.is_graph_output():
        graph = old.graph
        assert graph is not None
        inherit(new, old)
        new.type = old.type if old.type is not None else new.type
        new.shape = old.shape
        for index, output in enumerate(graph.outputs):
            if output is old:
                graph.outputs[index] = new
    users = []
    for user, index in old.uses():
        user.replace_input_with(index, new)
        users.append(user)
    return users


def erase(node: ir.Node) -> list[ir.Value]:
    """Takes ``node`` out of its graph and forgets what it and its subgraphs read.

    Returns:
        The values that were read.
    """
    read: list[ir.Value] = []
    if node.attributes:
        for graph in walk.subgraphs(node):
            for inner in list(graph):
                read.extend(erase(inner))
    for index, value in enumerate(node.inputs):
        if value is not None:
            read.append(value)
            node.replace_input_with(index, None)
    if node.graph is not None:
        node.graph.remove(node)
    return read


def erase_if_dead(roots: Iterable[ir.Node]) -> tuple[list[ir.Node], list[ir.Node]]:
    """Erases each of ``roots`` that is dead, then what dies with it.

    Returns:
        The erased nodes, and the nodes that deserve another look: those that survive but lost a reader, and what is
        now the only reader of one, which is what many rules ask for.
    """
    pending = list(roots)
    erased: list[ir.Node] = []
    weakened: dict[ir.Node, None] = {}
    while pending:
        node = pending.pop()
        if node.graph is None:
            continue
        if not is_dead(node):
            weakened[node] = None
            continue
        erased.append(node)
        for value in erase(node):
            producer = value.producer()
            if producer is not None:
                pending.append(producer)
    alive = [node for node in weakened if node.graph is not None]
    lone = [output for node in alive for output in node.outputs if len(output._uses) == 1]
    return erased, alive + [reader for output in lone for reader in output.consumers()]
