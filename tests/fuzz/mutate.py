"""Damages models: at the level of bytes, of any protobuf field, and of what an ONNX graph means."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import onnx
from google.protobuf.descriptor import FieldDescriptor  # type: ignore[import-untyped]
from google.protobuf.message import Message  # type: ignore[import-untyped]
from onnx import TensorProto, helper

__all__ = ["mutate"]

_INTEGERS = (0, 1, -1, 2, 7, 127, 255, 1 << 20, 1 << 31, -(1 << 31), 1 << 40, (1 << 62), (1 << 63) - 1, -(1 << 63))
_TEXTS = ("", "x", "é", "../../out", "/etc/hostname", "a" * 5000, "ai.onnx", "com.microsoft", "0", "-1", "\x00", "}{")
_OPS = (
    "If", "Loop", "Scan", "Constant", "Reshape", "Slice", "Tile", "Expand", "ConstantOfShape", "Range", "Pad",
    "Concat", "Split", "Gather", "Transpose", "Conv", "Gemm", "MatMul", "BatchNormalization", "Cast", "Shape",
    "Squeeze", "Unsqueeze", "Identity", "Dropout", "Resize", "SequenceAt", "Optional", "ZipMap", "Einsum",
    "OneHot", "Where", "Pow", "Div", "TopK", "NonZero", "RandomNormal", "LSTM", "QuantizeLinear",
    "DequantizeLinear", "Nonsense",
)  # fmt: skip


def mutate(data: bytes, seed: int, others: Sequence[bytes]) -> bytes:
    """A damaged copy of a serialized model; the same for the same arguments.

    Args:
        data: The model.
        seed: Decides everything.
        others: Models to take foreign parts from.
    """
    chance = random.Random(seed)
    if chance.random() < 0.25:
        return _bytes(data, chance, others)
    model = onnx.ModelProto.FromString(data)
    for _ in range(chance.choice((1, 1, 1, 2, 3, 6))):
        _pick(chance)(model, chance)
    try:
        result: bytes = model.SerializeToString()
    except ValueError:  # text that is no UTF-8
        return _bytes(data, chance, others)
    if chance.random() < 0.03:
        result += _nested(chance)
    if chance.random() < 0.1:
        result = _bytes(result, chance, others)
    return result


def _bytes(data: bytes, chance: random.Random, others: Sequence[bytes]) -> bytes:
    damaged = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 4, 16))):
        if not damaged:
            break
        # Structure lies at both ends; the middle of a model is mostly weights.
        at = chance.randrange(len(damaged)) if chance.random() < 0.5 else chance.randrange(min(400, len(damaged)))
        size = chance.choice((1, 2, 8, 100, 4000))
        kind = chance.randrange(7)
        if kind == 0:
            damaged[at] ^= 1 << chance.randrange(8)
        elif kind == 1:
            damaged[at] = chance.choice((0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)))
        elif kind == 2:
            del damaged[at:]
        elif kind == 3:
            del damaged[at : at + size]
        elif kind == 4:
            damaged[at:at] = damaged[at : at + size]
        elif kind == 5:
            damaged[at:at] = bytes(chance.randrange(256) for _ in range(min(size, 100)))
        else:
            other = chance.choice(others)
            start = chance.randrange(len(other))
            damaged[at : at + size] = other[start : start + size]
    return bytes(damaged)


Change = Callable[[onnx.ModelProto, random.Random], None]


def _pick(chance: random.Random) -> Change:
    return _any_field if chance.random() < 0.4 else chance.choice(_CHANGES)


def _messages(message: Message, limit: int = 4000) -> list[Message]:
    """The message and those within it, breadth first."""
    found = [message]
    for one in found:
        if len(found) > limit:
            break
        for field, value in one.ListFields():
            if field.type == FieldDescriptor.TYPE_MESSAGE:
                found.extend(value if field.is_repeated else [value])
    return found


def _any_field(model: onnx.ModelProto, chance: random.Random) -> None:
    """Drops, repeats, moves or overwrites some field of some message."""
    message = chance.choice(_messages(model))
    field = chance.choice(message.DESCRIPTOR.fields)
    if chance.random() < 0.5 and message.ListFields():
        field = chance.choice(message.ListFields())[0]
    if not field.is_repeated:
        if chance.random() < 0.3 or field.type == FieldDescriptor.TYPE_MESSAGE:
            message.ClearField(field.name)
        else:
            setattr(message, field.name, _scalar(field, chance))
        return
    held = getattr(message, field.name)
    action = chance.randrange(4)
    if action == 0 and len(held):
        del held[chance.randrange(len(held))]
    elif action == 1 and len(held):
        again = held[chance.randrange(len(held))]
        held.extend([again] * chance.choice((1, 1, 3)))
    elif action == 2 and len(held) > 1:
        items = list(held)
        chance.shuffle(items)
        copies = [_copy(item) for item in items]
        del held[:]
        held.extend(copies)
    elif field.type == FieldDescriptor.TYPE_MESSAGE:
        held.add()
    else:
        held.append(_scalar(field, chance))


def _copy(item: Any) -> Any:
    if not isinstance(item, Message):
        return item
    copy = type(item)()
    copy.CopyFrom(item)
    return copy


def _scalar(field: FieldDescriptor, chance: random.Random) -> Any:
    if field.type in (FieldDescriptor.TYPE_FLOAT, FieldDescriptor.TYPE_DOUBLE):
        return chance.choice((0.0, -1.0, 1e38, float("nan"), float("inf"), 0.5))
    if field.type == FieldDescriptor.TYPE_STRING:
        return chance.choice(_TEXTS)
    if field.type == FieldDescriptor.TYPE_BYTES:
        return bytes(chance.randrange(256) for _ in range(chance.choice((0, 1, 3, 8, 64))))
    if field.type == FieldDescriptor.TYPE_ENUM:
        return chance.choice([value.number for value in field.enum_type.values])
    number = chance.choice(_INTEGERS)
    return number if field.type == FieldDescriptor.TYPE_INT64 else number % 100


def _graphs(model: onnx.ModelProto) -> list[onnx.GraphProto]:
    return [one for one in _messages(model) if isinstance(one, onnx.GraphProto)]


def _nodes(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    return [one for one in _messages(model) if isinstance(one, onnx.NodeProto)]


def _names(model: onnx.ModelProto) -> list[str]:
    names = [name for node in _nodes(model) for name in [*node.input, *node.output]]
    return names or ["x"]


def _tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    return (one for one in _messages(model) if isinstance(one, onnx.TensorProto))


def _rewire(model: onnx.ModelProto, chance: random.Random) -> None:
    """An edge from anywhere: cycles, self-loops, dangling and duplicate names, captures of what is not visible."""
    node = chance.choice(_nodes(model) or [model.graph.node.add()])
    side = node.input if chance.random() < 0.6 else node.output
    name = chance.choice([*node.output, *_names(model), *_TEXTS[:2]])
    if side and chance.random() < 0.8:
        side[chance.randrange(len(side))] = name
    else:
        side.append(name)


def _swap_inputs(model: onnx.ModelProto, chance: random.Random) -> None:
    node = chance.choice(_nodes(model) or [model.graph.node.add()])
    shuffled = chance.sample(list(node.input), len(node.input))
    del node.input[:]
    node.input.extend(shuffled)


def _shuffle_nodes(model: onnx.ModelProto, chance: random.Random) -> None:
    graph = chance.choice(_graphs(model) or [model.graph])
    nodes = [_copy(node) for node in graph.node]
    chance.shuffle(nodes)
    del graph.node[:]
    graph.node.extend(nodes)


def _other_op(model: onnx.ModelProto, chance: random.Random) -> None:
    node = chance.choice(_nodes(model) or [model.graph.node.add()])
    node.op_type = chance.choice(_OPS)
    if chance.random() < 0.2:
        node.domain = chance.choice(("", "ai.onnx", "ai.onnx.ml", "com.microsoft", "local", "?"))


def _tensor_damage(model: onnx.ModelProto, chance: random.Random) -> None:
    """Contents that do not fit their dims or dtype, absurd dims, external data that escapes."""
    tensor = chance.choice([*_tensors(model)] or [model.graph.initializer.add()])
    kind = chance.randrange(6)
    if kind == 0:
        tensor.raw_data = tensor.raw_data[: chance.randrange(len(tensor.raw_data) + 1)]
    elif kind == 1:
        tensor.data_type = chance.choice([*range(30), 99, -1])
    elif kind == 2:
        tensor.dims.append(chance.choice(_INTEGERS))
    elif kind == 3 and tensor.dims:
        tensor.dims[chance.randrange(len(tensor.dims))] = chance.choice(_INTEGERS)
    elif kind == 4:
        tensor.data_location = TensorProto.EXTERNAL
        place = chance.choice(("../../secret", "/etc/passwd", "", "weights.bin", ".", "a/b", "in.onnx"))
        entries = {"location": place, "offset": chance.choice(_TEXTS), "length": str(chance.choice(_INTEGERS))}
        for key, value in entries.items():
            tensor.external_data.add(key=key, value=value)
    else:
        numbers = [chance.choice(_INTEGERS) for _ in range(max(1, min(8, len(tensor.raw_data) // 8)))]
        tensor.CopyFrom(helper.make_tensor(tensor.name, TensorProto.INT64, [len(numbers)], numbers))


def _versions(model: onnx.ModelProto, chance: random.Random) -> None:
    if chance.random() < 0.5:
        model.ir_version = chance.choice((0, 1, 2, 3, 4, 8, 14, 99, -1, 1 << 62))
    else:
        version = chance.choice((0, -1, 1, 6, 11, 28, 999, 1 << 62))
        model.opset_import.add(domain=chance.choice(("", "ai.onnx", "?")), version=version)


def _value_type(model: onnx.ModelProto, chance: random.Random) -> None:
    values = [one for one in _messages(model) if isinstance(one, onnx.ValueInfoProto)]
    value = chance.choice(values or [model.graph.input.add()])
    kind = chance.randrange(5)
    if kind == 0:
        value.type.CopyFrom(helper.make_sequence_type_proto(helper.make_tensor_type_proto(TensorProto.FLOAT, None)))
    elif kind == 1:
        value.type.CopyFrom(helper.make_map_type_proto(TensorProto.STRING, helper.make_tensor_type_proto(1, [1])))
    elif kind == 2:
        value.type.Clear()
    elif kind == 3:
        value.type.tensor_type.elem_type = chance.choice((0, 7, 8, 9, 16, 99, -1))
    else:
        value.type.tensor_type.shape.dim.add(dim_value=chance.choice(_INTEGERS))


def _nested(chance: random.Random) -> bytes:
    """An If in an If in an If ..., to be appended to a model; written by hand, since protobuf itself has a limit."""

    def record(field: int, payload: bytes) -> bytes:
        size, length = bytearray(), len(payload)
        while length > 127:
            size.append(length & 127 | 128)
            length >>= 7
        return bytes([field << 3 | 2, *size, length]) + payload

    graph = record(1, record(1, b"deep") + record(2, b"r") + record(4, b"Identity")) + record(12, record(1, b"r"))
    for _ in range(chance.choice((5, 25, 31, 34, 120, 3000))):
        branch = record(1, b"then_branch") + record(6, graph) + b"\xa0\x01\x05"
        graph = record(1, record(1, b"deep") + record(2, b"r") + record(4, b"If") + record(5, branch))
        graph += record(12, record(1, b"r"))
    return record(7, graph)


def _recursive_function(model: onnx.ModelProto, chance: random.Random) -> None:
    names = ("F", "G") if chance.random() < 0.5 else ("F", "F")
    for name, callee in (names, names[::-1]):
        body = [helper.make_node(callee, ["a"], ["b"], domain="local")]
        imports = [helper.make_opsetid("local", 1)]
        model.functions.append(helper.make_function("local", name, ["a"], ["b"], body, imports))
    model.opset_import.add(domain="local", version=1)
    model.graph.node.append(helper.make_node("F", [chance.choice(_names(model))], ["called"], domain="local"))


def _bomb(model: onnx.ModelProto, chance: random.Random) -> None:
    """Something small that computes something enormous, or for ever."""
    size = [chance.choice((1 << 40, 10**12, 1 << 20, (1 << 63) - 1, -5))] * chance.choice((1, 1, 2, 3))
    many = helper.make_tensor("many", TensorProto.INT64, [len(size)], size)
    constant = helper.make_node("Constant", [], ["many"], value=many)
    nodes = [constant, helper.make_node("ConstantOfShape", ["many"], ["huge"])]
    if chance.random() < 0.3:
        one = helper.make_tensor("one", TensorProto.FLOAT, [1] * len(size), [1.0])
        nodes[1] = helper.make_node("Constant", [], ["one"], value=one)
        nodes.append(helper.make_node(chance.choice(("Tile", "Expand")), ["one", "many"], ["huge"]))
    elif chance.random() < 0.3:
        step = [helper.make_node("Identity", ["c"], ["d"])]
        inputs = [onnx.ValueInfoProto(name=name) for name in "ic"]
        body = helper.make_graph(step, "b", inputs, [onnx.ValueInfoProto(name="d")])
        nodes[1] = helper.make_node("Loop", ["many", ""], [], body=body)
    kept = [_copy(node) for node in model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend([*nodes, *kept])
    model.graph.output.add(name="huge")


_CHANGES: tuple[Change, ...] = (
    _rewire, _rewire, _swap_inputs, _shuffle_nodes, _other_op, _other_op, _tensor_damage, _tensor_damage,
    _versions, _value_type, _recursive_function, _bomb,
)  # fmt: skip
