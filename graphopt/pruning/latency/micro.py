"""Models of one operator, to be timed alone."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

__all__ = ["PREPARATION", "Operand", "Operator"]

Array = npt.NDArray[Any]

PREPARATION = "preparation"
"""How the nodes that come before the operator are called."""

_IR_VERSION = 10
_NOISE = 1 << 16
_RELU = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.DOUBLE)
_FIRST_RELU = 14


@dataclasses.dataclass(frozen=True)
class Operand:
    """An input.

    Attributes:
        dtype: Its element type.
        shape: Its extents.
        fixed: Whether it is a weight.
        contents: What it holds, where that matters; else noise.
    """

    dtype: ir.DataType
    shape: tuple[int, ...]
    fixed: bool
    contents: Array | None = dataclasses.field(default=None, compare=False)

    def __str__(self) -> str:
        extents = "x".join(map(str, self.shape)) or "scalar"
        text = f"{'=' if self.fixed else ''}{self.dtype.name.lower()} {extents}"
        if self.contents is None:
            return text
        return f"{text} {hashlib.sha256(np.ascontiguousarray(self.contents).tobytes()).hexdigest()[:8]}"

    def array(self, seed: int) -> Array:
        """Contents, or noise of the same kind as weights have: nothing subnormal, integers of all sizes."""
        if self.contents is not None:
            return self.contents
        random = np.random.default_rng(seed)
        dtype = self.dtype.numpy()
        if self.dtype.is_floating_point():
            noise = (0.1 * random.standard_normal(_NOISE, np.float32)).astype(dtype)
        elif self.dtype in (ir.DataType.INT8, ir.DataType.UINT8) and len(self.shape) > 1:
            noise = random.integers(0, 127, _NOISE).astype(dtype)
        else:
            noise = np.zeros(1, dtype)
        return np.resize(noise, self.shape)


@dataclasses.dataclass(frozen=True)
class Operator:
    """One operator at concrete sizes; its text is the key under which its time is kept.

    Attributes:
        domain: Its operator set.
        op_type: Its type.
        version: Of its operator set.
        standard: Version of ONNX's own operator set.
        attributes: As the node has them, adapted to the sizes.
        inputs: What it reads; ``None`` for what it could read and does not.
        outputs: Which of its outputs something reads.
        activation: The operator on its first output that runtimes fuse with it; reads that as its first input.
    """

    domain: str
    op_type: str
    version: int
    standard: int
    attributes: tuple[ir.Attr, ...]
    inputs: tuple[Operand | None, ...]
    outputs: tuple[bool, ...] = (True,)
    activation: Operator | None = None

    def __str__(self) -> str:
        name = f"{self.domain}::{self.op_type}" if self.domain else self.op_type
        attributes = sorted(f"{attribute.name}={_text(attribute.value)}" for attribute in self.attributes)
        inputs = ", ".join("-" if operand is None else str(operand) for operand in self.inputs)
        given = "".join("y" if wanted else "-" for wanted in self.outputs)
        after = f" {self.activation}" if self.activation else ""
        return f"{name}-{self.version}[{' '.join(attributes)}]({inputs})->{given}{after}"

    def model(self, *, copies: int = 1, seed: int = 0, prepared: bool = True) -> tuple[ir.Model, dict[str, Array]]:
        """A model of it, and what to feed that.

        Args:
            copies: How many; they read the same activations and have weights of their own.
            seed: Of what they read.
            prepared: Whether activations pass through a Relu first, so that the operator finds them in the caches, as
                it does what another operator has just written.
        """
        opsets = {"": self.standard, self.domain: self.version}
        inputs: list[ir.Value] = []
        nodes: list[ir.Node] = []
        activations: dict[int, ir.Value] = {}
        feeds: dict[str, Array] = {}
        for index, operand in enumerate(self.inputs):
            if operand is None or operand.fixed:
                continue
            value = _value(f"x{index}", operand)
            inputs.append(value)
            feeds[f"x{index}"] = operand.array(seed + index)
            activations[index] = value
            if prepared and operand.dtype in _RELU and self.standard >= _FIRST_RELU:
                nodes.append(ir.node("Relu", [value], name=f"{PREPARATION}{index}"))
                activations[index] = nodes[-1].outputs[0]
                activations[index].name = f"warm{index}"
        weights: list[ir.Value] = []
        outputs: list[ir.Value] = []
        for copy in range(copies):
            node = self._node(f"{copy}", activations, weights, seed + 100 * copy)
            nodes.append(node)
            given = [value for value, wanted in zip(node.outputs, self.outputs, strict=True) if wanted]
            if self.activation:
                nodes.append(self.activation._node(f"{copy}a", {0: node.outputs[0]}, weights, seed))
                given[0] = nodes[-1].outputs[0]
            outputs.extend(given)
        graph = ir.Graph(inputs, outputs, nodes=nodes, initializers=weights, opset_imports=opsets, name="micro")
        return ir.Model(graph, ir_version=_IR_VERSION), feeds

    def _node(self, name: str, activations: dict[int, ir.Value], weights: list[ir.Value], seed: int) -> ir.Node:
        read: list[ir.Value | None] = []
        for index, operand in enumerate(self.inputs):
            if operand is not None and operand.fixed:
                weight = _value(f"w{name}_{index}", operand)
                weight.const_value = ir.tensor(operand.array(seed + index), name=weight.name)
                weights.append(weight)
                read.append(weight)
            else:
                read.append(activations.get(index))
        outputs = [ir.Value(name=f"y{name}_{place}" if wanted else "") for place, wanted in enumerate(self.outputs)]
        return ir.Node(self.domain, self.op_type, read, self.attributes, outputs=outputs, name=f"operator{name}")


def _value(name: str, operand: Operand) -> ir.Value:
    return ir.Value(name=name, type=ir.TensorType(operand.dtype), shape=ir.Shape(operand.shape))


def _text(value: Any) -> str:
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return "x".join(map(_text, value))
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
