"""Outputs of map type: a tail of nodes that ``onnx_ir`` cannot hold, cut off on load and put back on save.

Classifiers converted from scikit-learn and its kin end in ``ZipMap``, whose output is a sequence of maps. Everything
from the first map on is kept as bytes in ``model.meta["graphopt.tail"]``; the tensors that feed it become outputs
of the graph, so that no pass removes or renames them.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import onnx

from graphopt.errors import ModelError
from graphopt.proto.typeinfo import has_map
from graphopt.proto.wire import record

if TYPE_CHECKING:
    import onnx_ir as ir

    from graphopt.proto.wire import Buffer

__all__ = ["Tail", "cut_tail"]

_KEY = "graphopt.tail"


@dataclasses.dataclass(frozen=True)
class Tail:
    """What was cut off.

    Attributes:
        nodes: The serialized nodes, in order.
        outputs: Every output of the original graph in order, as its name and, if the tail makes it, its
            serialized ValueInfoProto.
        feeds: Names of the values that feed the tail and are no outputs of the original graph.
        inner: Names of all values that the tail makes.
    """

    nodes: tuple[bytes, ...]
    outputs: tuple[tuple[str, bytes | None], ...]
    feeds: tuple[str, ...]
    inner: frozenset[str]

    @staticmethod
    def of(model: ir.Model) -> Tail | None:
        """The tail to put back on a model, if it has one."""
        found = model._metadata.get(_KEY) if model._metadata is not None else None
        return found if isinstance(found, Tail) else None

    def keep(self, model: ir.Model) -> None:
        """Let the tail ride along in ``model.meta``."""
        model.meta[_KEY] = self

    def restore(self, graph: ir.Graph, encoded: list[bytes]) -> list[Buffer]:
        """The output records of the whole graph, given those of the graph without its tail.

        Raises:
            ModelError: The graph no longer has an output that the tail needs, or defines a name that it uses.
        """
        by_name = {value.name: content for value, content in zip(graph.outputs, encoded, strict=True)}
        missing = [name for name, info in self.outputs if info is None and name not in by_name]
        missing += [name for name in self.feeds if name not in by_name]
        if missing:
            raise ModelError(f"output {missing[0]!r}, which a ZipMap tail of the model needs, is gone")
        defined = {value.name for node in graph for value in node.outputs} | set(graph.initializers)
        if clash := sorted(self.inner & {name for name in defined if name}):
            raise ModelError(f"value {clash[0]!r} was added, but the model's ZipMap tail already has that name")
        restored: list[Buffer] = [
            by_name.pop(name) if info is None else record(12, info) for name, info in self.outputs
        ]
        extra = [content for name, content in by_name.items() if name not in self.feeds]
        return restored + extra


def cut_tail(proto: onnx.ModelProto) -> Tail | None:
    """Remove from a message what makes outputs of map type, in place.

    Returns:
        What was removed; None, and nothing is changed, when no output is a map.

    Raises:
        ModelError: A graph input is a map.
    """
    graph = proto.graph
    for info in graph.input:
        if has_map(info.type):
            raise ModelError(
                f"graph input {info.name!r} is a map, which graphopt cannot hold",
                hint="Export the model with a tensor input in place of the map (no DictVectorizer or CastMap).",
            )
    maps = {info.name for info in graph.output if has_map(info.type)}
    if not maps:
        return None
    inner: set[str] = set()
    nodes = []
    for node in graph.node:
        starts = node.op_type == "ZipMap" or not maps.isdisjoint(node.output)
        if starts or not inner.isdisjoint(node.input):
            nodes.append(node)
            inner.update(filter(None, node.output))
    if missing := sorted(maps - inner):
        raise ModelError(f"output {missing[0]!r} of the graph is a map that no node makes")
    outputs = tuple((info.name, info.SerializeToString() if info.name in inner else None) for info in graph.output)
    kept = tuple(node.SerializeToString() for node in nodes)
    tail = Tail(kept, outputs, _feeds(graph, nodes, inner), frozenset(inner))
    _shorten(graph, tail)
    return tail


def _feeds(graph: onnx.GraphProto, nodes: list[onnx.NodeProto], inner: set[str]) -> tuple[str, ...]:
    given = {info.name for info in graph.input} | {info.name for info in graph.output}
    feeds: dict[str, None] = {}
    for node in nodes:
        if any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute):
            raise ModelError(
                f"node {node.name!r} ({node.op_type}) makes maps in a subgraph: graphopt cannot hold these"
            )
        feeds.update(dict.fromkeys(name for name in node.input if name and name not in inner and name not in given))
    return tuple(feeds)


def _shorten(graph: onnx.GraphProto, tail: Tail) -> None:
    """Take the tail's nodes, values and outputs out of the graph, and make what feeds it an output."""
    kept_nodes = [node for node in graph.node if tail.inner.isdisjoint(node.output)]
    kept_outputs = [info for info in graph.output if info.name not in tail.inner]
    infos = {info.name: info for info in graph.value_info}
    for name in tail.feeds:
        feed = onnx.ValueInfoProto()
        feed.CopyFrom(infos[name] if name in infos else _score(name))
        kept_outputs.append(feed)
    kept_infos = [info for info in graph.value_info if info.name not in tail.inner]
    for field, kept in ((graph.node, kept_nodes), (graph.output, kept_outputs), (graph.value_info, kept_infos)):
        copies = [type(item).FromString(item.SerializeToString()) for item in kept]
        del field[:]
        field.extend(copies)


def _score(name: str) -> onnx.ValueInfoProto:
    """What ZipMap reads when nothing is declared: scores of shape [N, classes] or [classes]."""
    return onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
