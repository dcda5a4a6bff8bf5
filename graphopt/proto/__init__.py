"""The one boundary between ONNX protobuf and ``onnx_ir``.

:func:`from_proto` and :func:`to_proto` translate messages, :func:`from_bytes` and :func:`to_buffers` serialized
models, :func:`to_session_bytes` what ONNX Runtime opens without a file. Nothing a model holds is lost on the way
there and back, and big weights are never copied.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError, EncodeError  # type: ignore[import-untyped]

from graphopt import collector
from graphopt.errors import ModelError
from graphopt.proto import decode, wire
from graphopt.proto.encode import Place, encode_model
from graphopt.proto.order import sort_model
from graphopt.proto.tails import cut_tail
from graphopt.proto.tensors import SparseTensor
from graphopt.runtime import PLACEHOLDER

if TYPE_CHECKING:
    import numpy.typing as npt

    from graphopt.proto.tensor_reader import ExternalData
    from graphopt.proto.wire import Buffer

__all__ = [
    "LIMIT",
    "Place",
    "external_locations",
    "from_bytes",
    "from_proto",
    "join",
    "join_check",
    "outside_candidates",
    "to_buffers",
    "to_proto",
    "to_session_bytes",
]

LIMIT = (1 << 31) - 1  # bytes: the most that one protobuf message can be

_SESSION_LOCATION = PLACEHOLDER  # a file that exists: ONNX Runtime wants to see one


def from_proto(proto: onnx.ModelProto) -> ir.Model:
    """Build the model of a message, which is neither changed nor kept.

    Raises:
        ModelError: The model is invalid, or its weights are in files (a message does not say in which folder).
    """
    try:
        data = proto.SerializeToString()
    except (EncodeError, ValueError):  # more than 2 GB
        with collector.paused():
            copy = onnx.ModelProto()
            copy.CopyFrom(proto)
            return _decode(copy, {}, _nowhere, has_unknown=False)
    return from_bytes(data)


def from_bytes(data: Buffer, external: ExternalData | None = None) -> ir.Model:
    """Build the model of a serialized ModelProto.

    Args:
        data: The whole file; big weights of the model stay views of it.
        external: Finds the bytes of a tensor that are in another file.

    Raises:
        ModelError: The bytes are no model, or the model is invalid.
    """
    proto, skeleton = _parse(data)
    has_unknown = _discards_unknown_fields(proto, skeleton.content)
    if has_unknown:
        proto = onnx.ModelProto.FromString(skeleton.content)
    view = memoryview(data)
    with collector.paused():
        payloads = {key: (field, view[start:end]) for key, (field, start, end) in skeleton.payloads.items()}
        return _decode(proto, payloads, external or _nowhere, has_unknown)


def to_buffers(model: ir.Model, places: Mapping[int, Place] | None = None) -> list[Buffer]:
    """Serialize a model as buffers to be written one after the other; weights are views, not copies.

    Args:
        model: The model.
        places: By ``id`` of the tensor object, the initializers whose bytes are kept in another file.

    Raises:
        ModelError: The model cannot be expressed in ONNX.
    """
    try:
        with collector.paused():
            return encode_model(model, places)
    except UnicodeError as error:
        raise ModelError(f"a text in the model cannot be encoded: {error}") from None
    except ir.serde.SerdeError as error:
        raise ModelError(f"the model cannot be expressed in ONNX: {error.__cause__ or error}") from error


def to_proto(model: ir.Model) -> onnx.ModelProto:
    """Build the message of a model, everything embedded.

    Raises:
        ModelError: The model is bigger than a message can be (2 GB), or cannot be expressed in ONNX.
    """
    proto: onnx.ModelProto = onnx.ModelProto.FromString(join(to_buffers(model)))
    return proto


def to_session_bytes(model: ir.Model, *, inline_below: int = 1 << 20) -> tuple[bytes, dict[str, npt.NDArray[Any]]]:
    """Serialize a model for ONNX Runtime without copying its big weights.

    Args:
        model: The model.
        inline_below: Initializers of fewer bytes than this are part of the serialized model.

    Returns:
        The serialized model, in which every other initializer of the main graph is marked external; and these
        initializers by name, to be given to ``runtime.open_session``.

    Raises:
        ModelError: The model cannot be expressed in ONNX, or needs more than 2 GB beside the big initializers.
    """
    places: dict[int, Place] = {}
    arrays: dict[str, npt.NDArray[Any]] = {}
    for name, value in model.graph.initializers.items():
        tensor = value.const_value
        if tensor is None or not _in_own_file(tensor, inline_below) or tensor.dtype.bitwidth < 8:
            continue
        array = tensor.numpy()
        # Kernels may assume that elements are aligned; where they lie in an .onnx file is chance.
        arrays[name] = array if array.flags.aligned else array.copy()
        places[id(tensor)] = Place(_SESSION_LOCATION, 0, tensor.nbytes)
    return join(to_buffers(model, places)), arrays


def outside_candidates(model: ir.Model, threshold: int) -> dict[int, ir.TensorProtocol]:
    """By ``id``, the initializers (of subgraphs too) of at least ``threshold`` bytes that a data file can hold."""
    tensors = {}
    for graph in model.graphs():
        for value in graph.initializers.values():
            tensor = value.const_value
            if tensor is not None and _in_own_file(tensor, threshold):
                tensors[id(tensor)] = tensor
    return tensors


def external_locations(data: Buffer) -> set[str]:
    """The files that the initializers of a serialized model, subgraphs included, have their data in.

    Raises:
        ModelError: The bytes are no model.
    """
    proto, _ = _parse(data)
    found: set[str] = set()
    graphs = [proto.graph]
    while graphs:
        graph = graphs.pop()
        for tensor in graph.initializer:
            found.update(entry.value for entry in tensor.external_data if entry.key == "location")
        for node in graph.node:
            graphs += [attribute.g for attribute in node.attribute if attribute.HasField("g")]
    return found


def join(buffers: list[Buffer]) -> bytes:
    """All buffers as one message.

    Raises:
        ModelError: They are more than one message can hold.
    """
    join_check(buffers)
    return b"".join(buffers)


def join_check(buffers: list[Buffer]) -> None:
    """Raise ModelError when the buffers are more than one message can hold."""
    size = sum(map(len, buffers))
    if size > LIMIT:
        raise ModelError(
            f"the model needs {size / 1e9:.1f} GB and one protobuf message holds 2.1 GB",
            hint="Save it with external data.",
        )


def _in_own_file(tensor: ir.TensorProtocol, threshold: int) -> bool:
    return tensor.dtype != ir.DataType.STRING and not isinstance(tensor, SparseTensor) and tensor.nbytes >= threshold


def _parse(data: Buffer) -> tuple[onnx.ModelProto, wire.Skeleton]:
    """The message of a model without its big payloads, and where these are.

    Raises:
        ModelError: The bytes are no model.
    """
    if not len(data):
        raise ModelError("the file is empty")
    try:
        skeleton = wire.cut(memoryview(data), f"{os.urandom(12).hex()}:")
        proto = onnx.ModelProto.FromString(skeleton.content)
    except wire.Truncated as error:
        raise ModelError(f"not an ONNX model, or one that was cut short: {error}") from None
    except DecodeError as error:
        if "MaxDepth" in str(error):
            raise ModelError("the model's subgraphs are nested more deeply than protobuf allows") from None
        raise ModelError("not an ONNX model: the bytes are no protobuf message of that kind") from None
    if not proto.HasField("graph"):
        raise ModelError("not an ONNX model: there is no graph in it")
    return proto, skeleton


def _decode(
    proto: onnx.ModelProto, payloads: Mapping[str, tuple[int, Buffer]], external: ExternalData, has_unknown: bool
) -> ir.Model:
    try:
        tail = cut_tail(proto)
        try:
            model = decode.decode_model(proto, payloads, external, has_unknown=has_unknown)
        except decode.Undefined:
            sort_model(proto)
            model = decode.decode_model(proto, payloads, external, has_unknown=has_unknown)
    except decode.Undefined as error:
        raise ModelError(str(error)) from None
    except UnicodeDecodeError as error:  # onnx_ir quotes the message in its errors, which may fail again
        raise ModelError(f"a text in the model is not valid UTF-8: {error}") from None
    except ir.serde.SerdeError as error:
        raise ModelError(f"the model is invalid: {error.__cause__ or error}") from error
    except RecursionError:
        raise ModelError("the model's subgraphs or types are nested too deeply") from None
    if tail is not None:
        tail.keep(model)
    return model


def _discards_unknown_fields(proto: onnx.ModelProto, content: bytes) -> bool:
    """Discard the fields that the installed onnx does not know from a message parsed from ``content``.

    Returns:
        Whether there were any.
    """
    proto.DiscardUnknownFields()
    size = proto.ByteSize()
    # No encoding is shorter than the one that protobuf writes: the same size means that nothing was discarded.
    return size != len(content) and bool(size != onnx.ModelProto.FromString(content).ByteSize())


def _nowhere(proto: onnx.TensorProto) -> Buffer:
    raise ModelError(
        f"the data of tensor {proto.name!r} are in another file, and it is not known in which folder",
        hint="Load the model from its path, or call onnx.load_external_data_for_model first.",
    )
