"""Build ``onnx_ir`` objects without going through their constructors.

The constructors validate and convert what the decoder has already made sure of, and cost three times what the
fields themselves do. The objects made here are genuine: same classes, same slots, same invariants. Should an
``onnx_ir`` lay its objects out differently (:data:`KNOWN_LAYOUT` is false), the public constructors are used.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnx_ir as ir
from onnx_ir import _core, _graph_containers, _linked_list

__all__ = ["ATTRIBUTE_TYPES", "DATA_TYPES", "KNOWN_LAYOUT", "attr", "fill", "node", "shape", "tensor_type", "value"]

DATA_TYPES = {int(member): member for member in ir.DataType}
ATTRIBUTE_TYPES = {int(member): member for member in ir.AttributeType}

_LAYOUT = {
    ir.Value: "_const_value _graph _index _is_graph_input _is_graph_output _is_initializer _metadata _metadata_props"
    " _name _producer _shape _type _uses doc_string",
    ir.Node: "_attributes _domain _graph _inputs _metadata _metadata_props _name _op_type _outputs _overload _version"
    " device_configurations doc_string",
    ir.Attr: "_metadata _name _ref_attr_name _type _value doc_string",
    ir.Shape: "_dims _frozen",
    _core._TensorTypeBase: "_dtype denotation",
    ir.Graph: "_doc_string _initializers _inputs _metadata _metadata_props _name_authority _nodes _opset_imports"
    " _outputs name",
    _linked_list.DoublyLinkedSet: "_length _root _value_ids_to_boxes",
    _linked_list._LinkBox: "next owning_list prev value",
}

KNOWN_LAYOUT = all(" ".join(vars(cls)["__slots__"]) == slots for cls, slots in _LAYOUT.items())

_new = object.__new__
_tuple = tuple.__new__


def tensor_type(dtype: ir.DataType) -> ir.TensorType:
    """A fresh tensor type: its dtype can be assigned, so two values never share one."""
    made: ir.TensorType = _new(ir.TensorType)
    made._dtype = dtype
    made.denotation = None
    return made


def shape(dims: Sequence[int | ir.SymbolicDim]) -> ir.Shape:
    """A frozen shape without denotations, from dims that are already int or SymbolicDim."""
    made: ir.Shape = _new(ir.Shape)
    made._dims = list(dims)
    made._denotations = [None] * len(made._dims)
    made._frozen = True
    return made


def value(name: str) -> ir.Value:
    """A value that nothing produces yet."""
    made: ir.Value = _new(ir.Value)
    made._name = name
    made._producer = made._index = made._metadata = made._metadata_props = None
    made._shape = made._type = made._const_value = made._graph = made.doc_string = None
    made._uses = {}
    made._is_graph_input = made._is_graph_output = made._is_initializer = False
    return made


def attr(name: str, kind: ir.AttributeType, content: Any, doc_string: str | None = None) -> ir.Attr:
    """An attribute whose content already has the type that ``kind`` asks for."""
    made: ir.Attr = _new(ir.Attr)
    made._name = name
    made._type = kind
    made._value = content
    made._ref_attr_name = made._metadata = None
    made.doc_string = doc_string
    return made


def node(
    domain: str,
    op_type: str,
    inputs: list[ir.Value | None],
    outputs: list[ir.Value],
    attributes: dict[str, ir.Attr],
    name: str,
) -> ir.Node:
    """A node that owns ``outputs`` (which nothing produced before) and uses ``inputs``."""
    made: ir.Node = _new(ir.Node)
    made._name = name
    made._domain = "" if domain == "ai.onnx" else domain
    made._op_type = op_type
    made._inputs = tuple(inputs)
    made._outputs = tuple(outputs)
    made._overload = ""
    made._version = made._metadata = made._metadata_props = made._graph = made.doc_string = None
    made.device_configurations = ()
    container: _graph_containers.Attributes = _new(_graph_containers.Attributes)
    container._owner = made
    container.data = attributes
    made._attributes = container
    for index, used in enumerate(inputs):
        if used is not None:
            used._uses[_tuple(_core.Usage, (made, index))] = None
    for index, output in enumerate(outputs):
        output._producer = made
        output._index = index
    return made


def fill(graph: ir.Graph, nodes: list[ir.Node]) -> None:
    """Append fresh nodes, all named (possibly with the empty name), to a graph that has none."""
    linked = graph._nodes
    boxes = linked._value_ids_to_boxes
    node_names = graph._name_authority._node_names
    value_names = graph._name_authority._value_names
    previous = linked._root
    for item in nodes:
        item._graph = graph
        node_names.add(item._name)  # type: ignore[arg-type]
        for output in item._outputs:
            value_names.add(output._name)  # type: ignore[arg-type]
        box: Any = _new(_linked_list._LinkBox)
        box.value = item
        box.owning_list = linked
        box.prev = previous
        previous.next = box
        boxes[id(item)] = box
        previous = box
    previous.next = linked._root
    linked._root.prev = previous
    linked._length = len(nodes)


if not KNOWN_LAYOUT:
    from graphopt.proto.constructors import attr, fill, node, shape, tensor_type, value
