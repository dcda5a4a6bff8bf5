"""Puts the weights of a module back into the ONNX model that it came from."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import torch

from graphopt.analysis import constants
from graphopt.errors import ModelError
from graphopt.interop.kinds import Source
from graphopt.torch import places
from graphopt.torch.module import GraphModule
from graphopt.torch.values import to_numpy, torch_dtype

__all__ = ["to_onnx"]


def to_onnx(module: GraphModule, model: Any) -> Any:
    """A copy of a model with the weights of a module, by name.

    What has not changed keeps its tensor, byte for byte; types stay those of the model, whatever the module has.

    Args:
        module: From :func:`graphopt.torch.from_onnx`; of one wrapped by ``torch.compile`` or DDP, what is inside.
        model: A path, an ``onnx_ir.Model``, an ``onnx.ModelProto`` or a graphsurgeon graph; it is not changed.

    Returns:
        The same kind as ``model``; for a path an ``onnx_ir.Model``.

    Raises:
        ModelError: The model lacks a constant of the module, or has it in another shape.
    """
    source = Source.of(model)
    copy = source.read()
    found = places.constants_of(copy)
    for name, place in module._places.items():
        held = module.stored(name)
        value = found.get(place)
        if value is None:
            raise ModelError(
                f"the model has no constant '{place.name}', which is a weight of the module",
                hint="Give the model that the module was made from.",
            )
        _write(value, held)
    return source.give_back(copy)


def _write(value: ir.Value, held: torch.Tensor) -> None:
    tensor = value.const_value if value.is_initializer() else constants.constant(value)
    assert tensor is not None
    if tuple(tensor.shape.numpy()) != tuple(held.shape):
        raise ModelError(
            f"constant '{value.name}' has the shape {list(tensor.shape)} in the model "
            f"and {list(held.shape)} in the module",
            hint="Give the model that the module was made from.",
        )
    dtype = torch_dtype(tensor.dtype)
    if tensor.dtype.bitwidth < 8 or dtype is None:
        return  # not a type that training changes
    array = to_numpy(held.to(dtype))
    before = np.asarray(tensor.numpy())
    if np.array_equal(_bytes(array), _bytes(before)):
        return
    made = constants.tensor(array, tensor.name)
    if value.is_initializer():
        value.const_value = made
        return
    node = value.producer()
    assert node is not None
    node.attributes.clear()
    node.attributes.add(ir.AttrTensor("value", made))


def _bytes(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    native = np.ascontiguousarray(array, array.dtype.newbyteorder("="))
    return native.reshape(-1).view(np.uint8)
