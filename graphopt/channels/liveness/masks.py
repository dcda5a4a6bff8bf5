"""A mask that someone else computed: weights that it names become zero, so that what is dead can go.

``.npz``: arrays named like initializers, nonzero where a weight stays; of the initializer's shape, or one entry for
each output channel. ``.json``: ``{"initializer": [numbers along axis 0 that become zero]}``.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from graphopt import walk
from graphopt.analysis import constants
from graphopt.errors import ModelError
from graphopt.interop.kinds import Source
from graphopt.verify.feedfile import load_arrays

__all__ = ["apply_mask", "put_mask"]

Array = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]

_FLOATS = frozenset({ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE})


def apply_mask(source: Any, file: str | Path) -> Any:
    """The model with the weights zero that a mask says; of the same kind (a path gives an ``onnx_ir.Model``).

    Sizes stay: ``graphopt.optimize`` then removes what is dead. ``graphopt.optimize(..., mask=file)`` does both.

    Args:
        source: The model; not changed.
        file: ``.npz`` with arrays named like initializers, nonzero where a weight stays: of the initializer's shape, or
            one entry for each output channel. Or ``.json`` that holds, by initializer, the numbers along axis 0 of what
            becomes zero.

    Raises:
        ModelError: The model or the mask cannot be read, or they do not fit each other.
    """
    origin = Source.of(source)
    model = origin.read()
    put_mask(model, Path(file))
    return origin.give_back(model)


def put_mask(model: ir.Model, file: Path) -> None:
    """:func:`apply_mask` on the model itself."""
    initializers = {
        value.name: value
        for scope in walk.scopes(model)
        for value in scope.graph.initializers.values()
        if value.const_value is not None
    }
    masked: list[tuple[ir.Value, Mask]] = []
    for name, entry in _read(file).items():
        value = initializers.get(name)
        if value is None:
            near = difflib.get_close_matches(name, [one for one in initializers if one], n=1)
            hint = f"Did you mean '{near[0]}'?" if near else "Names are those of the model's initializers."
            raise ModelError(f"{file}: the model has no initializer '{name}'", hint=hint)
        masked.append((value, _keep(value, entry, f"{file}: the mask of '{name}'")))
    for value, keep in masked:
        assert value.const_value is not None
        array = value.const_value.numpy()
        zeros = np.where(keep, array, np.zeros((), array.dtype))
        value.const_value = constants.tensor(zeros, value.name)


def _read(file: Path) -> Mapping[str, Any]:
    """Arrays, or lists of numbers, by name."""
    if file.suffix == ".json":
        try:
            entries = json.loads(file.read_text("utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise ModelError(f"{file}: cannot be read as JSON: {error}") from error
        if not isinstance(entries, dict):
            raise ModelError(f"{file}: the mask is no object", hint='Write {"initializer": [channel, ...]}.')
        return entries
    if file.suffix != ".npz":
        raise ModelError(f"{file}: a mask is an .npz or a .json file")
    return load_arrays(file)


def _keep(value: ir.Value, entry: Any, what: str) -> Mask:
    """What stays, in a shape that broadcasts to the initializer's."""
    tensor = value.const_value
    assert tensor is not None
    shape = tensor.shape.numpy()
    if tensor.dtype not in _FLOATS:
        raise ModelError(f"{what} is for weights of type {tensor.dtype.name.lower()}; only floating-point ones can go")
    if not isinstance(entry, np.ndarray):
        return _listed(entry, shape, what)
    if entry.dtype.kind not in "biuf" or (entry.dtype.kind == "f" and np.isnan(entry).any()):
        raise ModelError(f"{what} is not made of numbers", hint="Nonzero keeps a weight, zero removes it.")
    if entry.shape == shape:
        return np.asarray(entry != 0)
    if entry.ndim != 1:
        raise ModelError(
            f"{what} has the shape {list(entry.shape)}, the initializer {list(shape)}",
            hint="Give a mask of the same shape, or one entry for each output channel.",
        )
    axis = _output_axis(value, what)
    if not shape or len(entry) != shape[axis]:
        channels = shape[axis] if shape else 1
        raise ModelError(f"{what} has {len(entry)} entries, the initializer of shape {list(shape)} {channels} channels")
    return np.asarray(entry != 0).reshape([-1 if place == axis else 1 for place in range(len(shape))])


def _listed(numbers: Any, shape: Sequence[int], what: str) -> Mask:
    if not shape:
        raise ModelError(f"{what} is for a single number, which has no channels")
    size = shape[0]
    if not isinstance(numbers, list) or any(type(number) is not int for number in numbers):
        raise ModelError(f"{what} is no list of channel numbers")
    outside = next((number for number in numbers if not 0 <= number < size), None)
    if outside is not None:
        raise ModelError(f"{what} names channel {outside}, the initializer has {size}: 0 to {size - 1}")
    keep = np.ones([size, *[1] * (len(shape) - 1)], bool)
    keep[numbers] = False
    return keep


def _output_axis(value: ir.Value, what: str) -> int:
    """The axis of a weight along which its operators give channels."""
    axes = {_gives(node, index, len(value.shape or ())) for node, index in value.uses()} or {0}
    if len(axes) > 1 or None in axes:
        raise ModelError(
            f"{what} has one entry a channel, but its operators do not agree along which axis channels lie",
            hint="Give a mask of the initializer's shape.",
        )
    (axis,) = axes
    assert axis is not None
    return axis


def _gives(node: ir.Node, index: int, rank: int) -> int | None:
    if index == 1 and node.op_type == "ConvTranspose":
        return 1 if node.attributes.get_int("group", 1) == 1 else None
    if index == 1 and node.op_type == "MatMul":
        return rank - 1
    if index == 1 and node.op_type == "Gemm":
        return 0 if node.attributes.get_int("transB", 0) else 1
    return 0
