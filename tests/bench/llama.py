"""A decoder in the shape of Llama, with its weights in a sparse file beside it that no test needs to fill."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

__all__ = ["llama"]


class _Decoder:
    def __init__(self, location: str) -> None:
        self.location = location
        self.end = 0
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def weight(self, name: str, *shape: int) -> str:
        size = 4 * math.prod(shape)
        tensor = onnx.TensorProto(name=name, data_type=TensorProto.FLOAT, dims=shape)
        tensor.data_location = TensorProto.EXTERNAL
        for key, entry in (("location", self.location), ("offset", self.end), ("length", size)):
            tensor.external_data.add(key=key, value=str(entry))
        self.weights.append(tensor)
        self.end += -(-size // 4096) * 4096
        return name

    def constant(self, name: str, contents: npt.NDArray[Any]) -> str:
        self.weights.append(numpy_helper.from_array(contents, name))
        return name

    def op(self, name: str, op_type: str, *inputs: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(op_type, inputs, [name], name=name, **attributes))
        return name

    def rotated(self, name: str, x: str) -> str:
        low = self.op(f"{name}.low", "Slice", x, "zero", "half", "last")
        high = self.op(f"{name}.high", "Slice", x, "half", "end", "last")
        turned = self.op(f"{name}.turned", "Concat", self.op(f"{name}.neg", "Neg", high), low, axis=-1)
        straight = self.op(f"{name}.cos", "Mul", x, "cos")
        return self.op(name, "Add", straight, self.op(f"{name}.sin", "Mul", turned, "sin"))

    def repeated(self, name: str, x: str) -> str:
        tiled = self.op(f"{name}.tiled", "Tile", self.op(f"{name}.wide", "Unsqueeze", x, "two"), "repeats")
        return self.op(name, "Reshape", tiled, "flat")

    def layer(self, p: str, x: str, hidden: int, kv: int, inner: int) -> str:
        y = self.op(f"{p}.norm1", "RMSNormalization", x, self.weight(f"{p}.n1", hidden), axis=-1)
        heads = {}
        for name, width in (("q", hidden), ("k", kv), ("v", kv)):
            projected = self.op(f"{p}.{name}", "MatMul", y, self.weight(f"{p}.w{name}", hidden, width))
            apart = self.op(f"{p}.{name}.apart", "Reshape", projected, "query" if name == "q" else "key")
            heads[name] = self.op(f"{p}.{name}.heads", "Transpose", apart, perm=[0, 2, 1, 3])
        q, k = self.rotated(f"{p}.q.rot", heads["q"]), self.rotated(f"{p}.k.rot", heads["k"])
        k, v = self.repeated(f"{p}.k.all", k), self.repeated(f"{p}.v.all", heads["v"])
        scores = self.op(f"{p}.qk", "MatMul", q, self.op(f"{p}.k.turned", "Transpose", k, perm=[0, 1, 3, 2]))
        weights = self.op(f"{p}.weights", "Softmax", self.op(f"{p}.scaled", "Mul", scores, "scale"), axis=-1)
        mixed = self.op(f"{p}.back", "Transpose", self.op(f"{p}.mixed", "MatMul", weights, v), perm=[0, 2, 1, 3])
        merged = self.op(f"{p}.merged", "Reshape", mixed, "joined")
        attended = self.op(f"{p}.o", "MatMul", merged, self.weight(f"{p}.wo", hidden, hidden))
        x = self.op(f"{p}.sum1", "Add", x, attended)
        y = self.op(f"{p}.norm2", "RMSNormalization", x, self.weight(f"{p}.n2", hidden), axis=-1)
        gate = self.op(f"{p}.gate", "MatMul", y, self.weight(f"{p}.wg", hidden, inner))
        up = self.op(f"{p}.up", "MatMul", y, self.weight(f"{p}.wu", hidden, inner))
        open_gate = self.op(f"{p}.silu", "Mul", gate, self.op(f"{p}.sigmoid", "Sigmoid", gate))
        gated = self.op(f"{p}.gated", "Mul", open_gate, up)
        down = self.op(f"{p}.down", "MatMul", gated, self.weight(f"{p}.wd", inner, hidden))
        return self.op(f"{p}.sum2", "Add", x, down)


def llama(
    path: Path,
    layers: int = 22,
    hidden: int = 2048,
    heads: int = 32,
    kv_heads: int = 4,
    inner: int = 5632,
    vocabulary: int = 32000,
) -> int:
    """Writes the model; by default TinyLlama's shape, 1.1 billion parameters.

    Returns:
        The number of bytes of its weights, which are all zero and take no room on disk.
    """
    size = hidden // heads
    decoder = _Decoder(f"{path.name}.data")
    integers = {
        "query": [0, 0, heads, size],
        "key": [0, 0, kv_heads, size],
        "joined": [0, 0, hidden],
        "two": [2],
        "repeats": [1, 1, heads // kv_heads, 1, 1],
        "flat": [0, heads, -1, size],
        "zero": [0],
        "half": [size // 2],
        "end": [2**31 - 1],
        "last": [-1],
    }
    for name, contents in integers.items():
        decoder.constant(name, np.array(contents, np.int64))
    decoder.constant("scale", np.array(size**-0.5, np.float32))
    x = decoder.op("embedded", "Gather", decoder.weight("embedding", vocabulary, hidden), "ids")
    for layer in range(layers):
        x = decoder.layer(f"layer{layer}", x, hidden, kv_heads * size, inner)
    x = decoder.op("normed", "RMSNormalization", x, decoder.weight("norm", hidden), axis=-1)
    decoder.op("logits", "MatMul", x, decoder.weight("head", hidden, vocabulary))
    floats: dict[str, list[str | int | None]] = {"cos": ["S", size], "sin": ["S", size]}
    inputs = [helper.make_tensor_value_info("ids", TensorProto.INT64, ["N", "S"])]
    inputs += [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in floats.items()]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", "S", vocabulary])]
    graph = helper.make_graph(decoder.nodes, "llama", inputs, outputs, decoder.weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=11), path)
    with path.with_name(decoder.location).open("wb") as file:
        file.truncate(decoder.end)
    return decoder.end
