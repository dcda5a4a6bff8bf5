"""Generated models of a wanted size: many nodes, or many bytes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

__all__ = ["many_bytes", "many_nodes"]

_CHANNELS = 8
_BLOCK = 20


def many_nodes(count: int, seed: int = 0) -> onnx.ModelProto:
    """A convolutional network of about ``count`` nodes in which every block holds something to optimise.

    A block has 20 nodes: Conv with BatchNormalization, Identity, Dropout, a pair of inverse Transposes, a shape
    chain into a Reshape, a repeated subexpression, a dead node and a residual. Batch and space are symbolic.
    """
    random = np.random.default_rng(seed)
    nodes: list[onnx.NodeProto] = []
    weights: list[onnx.TensorProto] = [
        numpy_helper.from_array(np.asarray([0], np.int64), "first"),
        numpy_helper.from_array(np.asarray([_CHANNELS], np.int64), "channels"),
        numpy_helper.from_array(np.asarray([-1], np.int64), "rest"),
        numpy_helper.from_array(np.asarray(0.5, np.float32), "half"),
    ]
    last = "x"
    for index in range(max(1, count // _BLOCK)):
        last = _block(f"b{index}", last, nodes, weights, random)
    dims: list[str | int | None] = ["N", _CHANNELS, "H", "W"]
    graph = helper.make_graph(
        nodes,
        f"nodes_{count}",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, dims)],
        [helper.make_tensor_value_info(last, TensorProto.FLOAT, dims)],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _block(
    name: str, x: str, nodes: list[onnx.NodeProto], weights: list[onnx.TensorProto], random: np.random.Generator
) -> str:
    def weight(suffix: str, contents: npt.NDArray[np.float64]) -> str:
        weights.append(numpy_helper.from_array(contents.astype(np.float32), f"{name}_{suffix}"))
        return f"{name}_{suffix}"

    def op(op_type: str, *inputs: str, out: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(op_type, list(inputs), [f"{name}_{out}"], f"{name}/{out}", **attributes))
        return f"{name}_{out}"

    kernel = weight("w", random.standard_normal((_CHANNELS, _CHANNELS, 1, 1)) * 0.2)
    statistics = [
        weight("scale", np.ones(_CHANNELS)),
        weight("bias", random.standard_normal(_CHANNELS) * 0.1),
        weight("mean", random.standard_normal(_CHANNELS) * 0.1),
        weight("var", random.random(_CHANNELS) + 0.5),
    ]
    same = op("Identity", x, out="same")
    convolved = op("Conv", same, kernel, out="conv")
    normal = op("BatchNormalization", convolved, *statistics, out="bn")
    kept = op("Dropout", normal, out="drop")
    active = op("Relu", kept, out="relu")
    turned = op("Transpose", active, out="nhwc", perm=[0, 2, 3, 1])
    back = op("Transpose", turned, out="nchw", perm=[0, 3, 1, 2])
    shape = op("Shape", back, out="shape")
    batch = op("Gather", shape, "first", out="batch", axis=0)
    wanted = op("Concat", batch, "channels", "rest", out="wanted", axis=0)
    flat = op("Reshape", back, wanted, out="flat")
    left = op("Sigmoid", flat, out="left")
    right = op("Sigmoid", flat, out="right")
    both = op("Add", left, right, out="both")
    scaled = op("Mul", both, "half", out="scaled")
    op("Exp", scaled, out="dead")
    squared = op("Mul", scaled, flat, out="squared")
    full = op("Shape", x, out="full")
    unflat = op("Reshape", squared, full, out="unflat")
    return op("Add", unflat, x, out="sum")


def many_bytes(path: Path, megabytes: int, *, external: bool, width: int = 2048, seed: int = 0) -> Path:
    """Writes a multi-layer perceptron whose weights take about ``megabytes``; streams them, one layer in memory.

    Args:
        path: The model file; external weights lie beside it in ``<name>.data``.
        megabytes: Of weights.
        external: Keep the weights in a file of their own; else embedded (below 2 GB).
        width: Of each layer.
        seed: Of the weights.
    """
    layers = max(1, round(megabytes * 2**20 / (width * width * 4)))
    nodes: list[onnx.NodeProto] = []
    last = "x"
    for index in range(layers):
        nodes += [
            helper.make_node("MatMul", [last, f"w{index}"], [f"m{index}"]),
            helper.make_node("Add", [f"m{index}", f"b{index}"], [f"a{index}"]),
            helper.make_node("Identity", [f"a{index}"], [f"i{index}"]),
            helper.make_node("Relu", [f"i{index}"], [f"r{index}"]),
        ]
        last = f"r{index}"
    graph = helper.make_graph(
        nodes,
        f"bytes_{megabytes}",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", width])],
        [helper.make_tensor_value_info(last, TensorProto.FLOAT, ["N", width])],
    )
    if external:
        with path.with_name(f"{path.name}.data").open("wb") as data:
            for tensor in _layers(layers, width, seed):
                graph.initializer.append(_external(tensor, data.tell(), f"{path.name}.data"))
                data.write(tensor.raw_data)
    else:
        graph.initializer.extend(_layers(layers, width, seed))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    return path


def _layers(count: int, width: int, seed: int) -> Iterator[onnx.TensorProto]:
    random = np.random.default_rng(seed)
    for index in range(count):
        # One row of noise a layer, rolled: as incompressible as it needs to be, and made at disk speed.
        row = random.standard_normal(2 * width, np.float32) * np.float32(1 / np.sqrt(width))
        square = np.lib.stride_tricks.sliding_window_view(row, width)[:width]
        yield numpy_helper.from_array(np.ascontiguousarray(square), f"w{index}")
        yield numpy_helper.from_array(random.standard_normal(width, np.float32), f"b{index}")


def _external(tensor: onnx.TensorProto, offset: int, location: str) -> onnx.TensorProto:
    made = TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
    made.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, "offset": offset, "length": len(tensor.raw_data)}.items():
        made.external_data.add(key=key, value=str(value))
    return made
