"""From protobuf messages to ``onnx_ir`` objects.

Does what ``onnx_ir.serde`` does, three times as fast and stricter: what a graph must never have (a name used but not
defined, or defined twice; data that does not fit its shape) is a ModelError here instead of a log line. What
``onnx_ir`` has no place for rides along in ``meta`` (:mod:`graphopt.proto.carried`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import onnx
import onnx_ir as ir

from graphopt.errors import ModelError
from graphopt.proto import objects
from graphopt.proto.carried import QUANTIZATION, TRAINING, keep_unknown, metadata
from graphopt.proto.tensor_reader import ExternalData, TensorReader
from graphopt.proto.typeinfo import TypeReader

if TYPE_CHECKING:
    from graphopt.proto.wire import Buffer

__all__ = ["Undefined", "decode_model"]

_MULTI_DEVICE_IR = 11
_INT, _FLOAT, _STRING, _TENSOR, _INTS, _GRAPH = 2, 1, 3, 4, 7, 5
_Kind = ir.AttributeType
_Scope = dict[str, ir.Value]
_attr, _ATTRIBUTE_TYPES = objects.attr, objects.ATTRIBUTE_TYPES


class Undefined(Exception):
    """A node uses a name that nothing before it defines: the nodes are not sorted, or the model is broken."""


def decode_model(
    proto: onnx.ModelProto,
    payloads: Mapping[str, tuple[int, Buffer]],
    external: ExternalData,
    *,
    has_unknown: bool = False,
) -> ir.Model:
    """Build the model of a message.

    Args:
        proto: The message. It becomes the model's: small tensors live on in it.
        payloads: The field and the bytes behind the markers that :func:`graphopt.proto.wire.cut` left.
        external: Finds external data.
        has_unknown: Whether some message in it has fields that this onnx does not know.

    Raises:
        ModelError: The model is invalid.
        Undefined: The nodes of some graph are not in topological order.
    """
    return _Decoder(payloads, external, has_unknown, proto.ir_version).model(proto)


class _Decoder:
    def __init__(
        self, payloads: Mapping[str, tuple[int, Buffer]], external: ExternalData, has_unknown: bool, ir_version: int
    ) -> None:
        self._has_unknown = has_unknown
        self._multi_device = ir_version >= _MULTI_DEVICE_IR
        self._types = TypeReader()
        self._assign_type = self._types.assign
        tensors = TensorReader(payloads, external, self._types, has_unknown=has_unknown)
        self._read_tensor, self._read_sparse = tensors.read, tensors.read_sparse
        self._scopes: list[_Scope] = []

    def model(self, proto: onnx.ModelProto) -> ir.Model:
        graph = self.graph(proto.graph)
        graph.opset_imports.update(_opsets(proto.opset_import))
        functions = [self.function(function) for function in proto.functions]
        model = ir.Model(
            graph,
            ir_version=proto.ir_version,
            producer_name=proto.producer_name if proto.HasField("producer_name") else None,
            producer_version=proto.producer_version if proto.HasField("producer_version") else None,
            domain=proto.domain if proto.HasField("domain") else None,
            model_version=proto.model_version if proto.HasField("model_version") else None,
            doc_string=proto.doc_string if proto.HasField("doc_string") else None,
            functions=functions,
            metadata_props=metadata(proto.metadata_props),
            device_configurations=tuple(map(ir.serde.deserialize_model_configuration, proto.configuration)),
        )
        if len(model.functions) != len(functions):
            raise ModelError("two functions of the model have the same domain, name and overload")
        if proto.training_info:
            model.meta[TRAINING] = [info.SerializeToString() for info in proto.training_info]
        if functions and proto.ir_version < 10:
            self._function_value_info(model, proto.graph)
        if model.device_configurations:
            ir.serde._resolve_node_device_configurations(model)
        if self._has_unknown:
            keep_unknown(model, proto)
        return model

    def graph(self, proto: onnx.GraphProto) -> ir.Graph:
        scope: _Scope = {}
        self._scopes.append(scope)
        infos = {info.name: info for info in proto.value_info}
        inputs = []
        for info in proto.input:
            inputs.append(self._define(info.name, scope, "graph input"))
            self._describe(inputs[-1], info)
        initializers = [self._initializer(tensor, scope, infos) for tensor in proto.initializer if tensor.name]
        initializers += [self._sparse_initializer(tensor, scope) for tensor in proto.sparse_initializer]
        if len({value._name for value in initializers}) != len(initializers):
            raise ModelError(f"graph {proto.name!r} has two initializers of the same name")
        nodes = self._nodes(proto.node, scope, infos)
        _check_text(scope, nodes)
        outputs = []
        for info in proto.output:
            output = scope.get(info.name)
            if output is None:
                raise ModelError(f"output {info.name!r} of graph {proto.name!r} is produced by nothing")
            self._describe(output, info)
            outputs.append(output)
        for annotation in proto.quantization_annotation:
            if (annotated := scope.get(annotation.tensor_name)) is not None:
                annotated.meta[QUANTIZATION] = metadata(annotation.quant_parameter_tensor_names)
        self._scopes.pop()
        graph = ir.Graph(
            inputs,
            outputs,
            nodes=(),
            initializers=initializers,
            doc_string=proto.doc_string or None,
            name=proto.name if proto.HasField("name") else None,
            metadata_props=metadata(proto.metadata_props),
        )
        objects.fill(graph, nodes)
        if self._has_unknown:
            keep_unknown(graph, proto)
        return graph

    def function(self, proto: onnx.FunctionProto) -> ir.Function:
        scope: _Scope = {}
        self._scopes.append(scope)
        inputs = [self._define(name, scope, "function input") for name in proto.input]
        infos = {info.name: info for info in proto.value_info}
        for value in inputs:
            if (info := infos.get(value._name or "")) is not None:
                self._describe(value, info)
        nodes = self._nodes(proto.node, scope, infos)
        _check_text(scope, nodes)
        missing = [name for name in proto.output if name not in scope]
        if missing:
            raise ModelError(f"output {missing[0]!r} of function {proto.name!r} is produced by nothing")
        attributes = [self._attribute(attribute) for attribute in proto.attribute_proto]
        attributes += [objects.attr(name, _Kind.UNDEFINED, None) for name in proto.attribute]
        _check_text([proto.domain, proto.name, *(attribute._name for attribute in attributes)], ())
        self._scopes.pop()
        graph = ir.Graph(
            inputs,
            [scope[name] for name in proto.output],
            nodes=(),
            doc_string=proto.doc_string or None,
            opset_imports=_opsets(proto.opset_import),
            name=f"{proto.name}_{proto.domain}__{proto.overload}" if proto.overload else "",
            metadata_props=metadata(proto.metadata_props),
        )
        objects.fill(graph, nodes)
        function = ir.Function(proto.domain, proto.name, proto.overload, graph=graph, attributes=attributes)
        if self._has_unknown:
            keep_unknown(function, proto)
        return function

    def _nodes(self, protos: Any, scope: _Scope, infos: dict[str, onnx.ValueInfoProto]) -> list[ir.Node]:
        """Decode nodes in order; ``scope`` gains their outputs."""
        make, new_value, attribute, lookup = objects.node, objects.value, self._attribute, scope.get
        has_unknown = self._has_unknown
        nodes = []
        for proto in protos:
            names = proto.input[:]
            inputs: list[ir.Value | None] = [*map(lookup, names)]
            if None in inputs:
                for index, name in enumerate(names):
                    if name and inputs[index] is None:
                        inputs[index] = self._captured(name, proto)
            attributes = {}
            for item in proto.attribute:
                decoded = attribute(item)
                attributes[decoded._name] = decoded
            outputs = []
            for name in proto.output[:]:
                output = new_value(name)
                outputs.append(output)
                if not name:
                    continue
                if name in scope:
                    raise ModelError(f"value {name!r} is defined twice: {_label(proto)} redefines it")
                scope[name] = output
                if name in infos:
                    self._describe(output, infos[name])
            node = make(proto.domain, proto.op_type, inputs, outputs, attributes, proto.name)
            if proto.doc_string:
                node.doc_string = proto.doc_string
            if proto.overload:
                node.overload = proto.overload
            if proto.metadata_props:
                node._metadata_props = metadata(proto.metadata_props)
            if self._multi_device and proto.device_configurations:
                known = {name: value for visible in self._scopes for name, value in visible.items()}
                node.device_configurations = tuple(
                    ir.serde.deserialize_node_device_configuration(item, known) for item in proto.device_configurations
                )
            if has_unknown:
                keep_unknown(node, proto)
            nodes.append(node)
        return nodes

    def _captured(self, name: str, node: onnx.NodeProto) -> ir.Value:
        for scope in reversed(self._scopes):
            if (value := scope.get(name)) is not None:
                return value
        raise Undefined(f"{_label(node)} uses {name!r}, which nothing defines")

    def _define(self, name: str, scope: _Scope, what: str) -> ir.Value:
        if not name:
            raise ModelError(f"a {what} has no name")
        if name in scope:
            raise ModelError(f"value {name!r} is defined twice, once as {what}")
        value = scope[name] = objects.value(name)
        return value

    def _describe(self, value: ir.Value, info: onnx.ValueInfoProto) -> None:
        self._assign_type(value, info)
        if info.doc_string:
            value.doc_string = info.doc_string
        if info.metadata_props:
            value._metadata_props = metadata(info.metadata_props)
        if self._has_unknown:
            keep_unknown(value, info)

    def _initializer(self, proto: onnx.TensorProto, scope: _Scope, infos: dict[str, onnx.ValueInfoProto]) -> ir.Value:
        tensor = self._read_tensor(proto)
        name: str = proto.name
        value = scope.get(name)
        if value is None:
            value = scope[name] = objects.value(name)
            if name in infos:
                self._describe(value, infos[name])
            # The data decide: a stale value_info must not contradict them.
            value._type = objects.tensor_type(tensor.dtype)
            value._shape = tensor.shape  # type: ignore[assignment]
        value._const_value = tensor
        return value

    def _sparse_initializer(self, proto: onnx.SparseTensorProto, scope: _Scope) -> ir.Value:
        tensor = self._read_sparse(proto)
        name = proto.values.name
        value = scope.get(name) or self._define(name, scope, "sparse initializer")
        value.type = ir.TensorType(tensor.dtype)
        value.shape = tensor.shape
        value.const_value = tensor
        return value

    def _attribute(self, proto: onnx.AttributeProto) -> ir.Attr:
        name = proto.name
        kind = proto.type
        doc_string = proto.doc_string or None
        if proto.ref_attr_name:
            made = ir.RefAttr(name, proto.ref_attr_name, _ATTRIBUTE_TYPES[kind], doc_string)
        else:
            if kind == _INTS:
                content: Any = tuple(proto.ints)
            elif kind == _INT:
                content = proto.i
            elif kind == _FLOAT:
                content = proto.f
            elif kind == _TENSOR:
                content = self._read_tensor(proto.t)
            elif kind == _GRAPH:
                content = self.graph(proto.g)
            elif (read := _RARE.get(kind)) is not None:
                content = read(self, proto)
            else:
                raise ModelError(f"attribute {name!r} has no known type ({kind})")
            made = _attr(name, _ATTRIBUTE_TYPES[kind], content, doc_string)
        if self._has_unknown:
            keep_unknown(made, proto)
        return made

    def _type_and_shape(self, proto: onnx.TypeProto) -> ir.TypeAndShape:
        return ir.TypeAndShape(
            ir.serde.deserialize_type_proto_for_type(proto), ir.serde.deserialize_type_proto_for_shape(proto)
        )

    def _function_value_info(self, model: ir.Model, graph: onnx.GraphProto) -> None:
        """Before IR 10, the value_info of functions is in the main graph, as ``domain::function/value``."""
        infos = {info.name: info for info in graph.value_info if "::" in info.name}
        if not infos:
            return
        for function in model.functions.values():
            values = [*function.inputs, *(output for node in function for output in node.outputs)]
            for value in values:
                info = infos.get(f"{function.domain}::{function.name}/{value.name}")
                if info is not None:
                    self._describe(value, info)


def _string(content: bytes) -> str | bytes:
    """Text, or the bytes themselves where a custom operator keeps arbitrary data."""
    try:
        return content.decode()
    except UnicodeDecodeError:
        return content


_RARE: dict[int, Callable[[_Decoder, onnx.AttributeProto], Any]] = {
    _STRING: lambda _, proto: _string(proto.s),
    int(_Kind.FLOATS): lambda _, proto: tuple(proto.floats),
    int(_Kind.STRINGS): lambda _, proto: tuple(map(_string, proto.strings)),
    int(_Kind.TENSORS): lambda self, proto: tuple(self._read_tensor(item) for item in proto.tensors),
    int(_Kind.GRAPHS): lambda self, proto: tuple(self.graph(item) for item in proto.graphs),
    int(_Kind.SPARSE_TENSOR): lambda self, proto: self._read_sparse(proto.sparse_tensor),
    int(_Kind.SPARSE_TENSORS): lambda self, proto: tuple(self._read_sparse(item) for item in proto.sparse_tensors),
    int(_Kind.TYPE_PROTO): lambda self, proto: self._type_and_shape(proto.tp),
    int(_Kind.TYPE_PROTOS): lambda self, proto: tuple(self._type_and_shape(item) for item in proto.type_protos),
}


def _label(node: onnx.NodeProto) -> str:
    return f"node {node.name!r} ({node.op_type})" if node.name else f"the {node.op_type} node of {list(node.output)}"


def _check_text(names: Iterable[object], nodes: Iterable[ir.Node]) -> None:
    """Protobuf hands out a string that is not valid UTF-8 as bytes: refuse names that are no text.

    Raises:
        ModelError: There is such a name.
    """
    texts = [*names]
    for node in nodes:
        texts += (node._name, node._op_type, node._domain, *node._attributes.data)
    if {*map(type, texts)} <= {str}:
        return
    broken = next(text for text in texts if not isinstance(text, str))
    raise ModelError(f"a name in the model is not valid UTF-8: {broken!r}")


def _opsets(entries: Any) -> dict[str, int]:
    """Domain to version; ``ai.onnx`` is the default domain's long name."""
    return {("" if entry.domain == "ai.onnx" else entry.domain): entry.version for entry in entries}
