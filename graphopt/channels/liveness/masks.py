"""A mask that someone else computed: weights that it names become zero, so that what is dead can go.

``.npz``: arrays named like weights, nonzero where a weight stays; of the weight's shape, or one entry for each output
channel. ``.json``: ``{"weight": [output channels that become zero]}``. Output channels lie along the axis along which
the operator that reads the weight gives them.
"""

from __future__ import annotations

import collections
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
from graphopt.channels.tensors import MaskedTensor
from graphopt.errors import ModelError
from graphopt.interop.kinds import Source
from graphopt.verify.feedfile import load_arrays

__all__ = ["apply_mask", "put_mask"]

Array = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]

_ANY = -1  # what an operator says that works element by element


def apply_mask(source: Any, file: str | Path) -> Any:
    """The model with the weights zero that a mask says; of the same kind (a path gives an ``onnx_ir.Model``).

    Sizes stay: ``graphopt.optimize`` then removes what is dead. ``graphopt.optimize(..., mask=file)`` does both.

    Args:
        source: The model; not changed.
        file: ``.npz`` with arrays named like weights (initializers or what Constant nodes give), nonzero where a weight
            stays: of the weight's shape, or one entry for each output channel. Or ``.json`` that holds, by weight, the
            numbers of the output channels that become zero.

    Raises:
        ModelError: The model or the mask cannot be read, or they do not fit each other.
    """
    origin = Source.of(source)
    model = origin.read()
    put_mask(model, Path(file))
    return origin.give_back(model)


def put_mask(model: ir.Model, file: Path) -> None:
    """:func:`apply_mask` on the model itself."""
    weights = _weights(model)
    masked: list[tuple[ir.Value, ir.TensorProtocol]] = []
    for name, entry in _read(file).items():
        values = weights.get(name, [])
        if not values:
            near = difflib.get_close_matches(name, weights, n=1)
            hint = f"Did you mean '{near[0]}'?" if near else "Names are those of initializers and constants."
            raise ModelError(f"{file}: the model has no weight '{name}'", hint=hint)
        if len(values) > 1:
            raise ModelError(
                f"{file}: {len(values)} weights of the model's subgraphs and functions are called '{name}'",
                hint="Give them names of their own.",
            )
        masked.append((values[0], _masked(values[0], entry, f"{file}: the mask of '{name}'")))
    for value, tensor in masked:
        node = value.producer()
        if node is None:
            value.const_value = tensor
        else:
            node.attributes.clear()
            node.attributes["value"] = ir.AttrTensor("value", tensor)


def _weights(model: ir.Model) -> Mapping[str, Sequence[ir.Value]]:
    """What initializers and Constant nodes hold, by name, which only within a graph is one value's own."""
    found: dict[str, list[ir.Value]] = collections.defaultdict(list)
    for scope in walk.scopes(model):
        outputs = (output for node in scope.graph if node.op_type == "Constant" for output in node.outputs)
        for value in (*scope.graph.initializers.values(), *outputs):
            if value.name and _tensor(value) is not None:
                found[value.name].append(value)
    return found


def _tensor(value: ir.Value) -> ir.TensorProtocol | None:
    """What a weight holds, also where the caller may override it."""
    return value.const_value if value.is_initializer() else constants.constant(value)


def _read(file: Path) -> Mapping[str, Any]:
    """Arrays, or lists of numbers, by name."""
    if file.suffix == ".json":
        try:
            entries = json.loads(file.read_text("utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise ModelError(f"{file}: cannot be read as JSON: {error}") from error
        if not isinstance(entries, dict):
            raise ModelError(f"{file}: the mask is no object", hint='Write {"weight": [channel, ...]}.')
        return entries
    if file.suffix != ".npz":
        raise ModelError(f"{file}: a mask is an .npz or a .json file")
    return load_arrays(file)


def _masked(value: ir.Value, entry: Any, what: str) -> ir.TensorProtocol:
    """What a weight is under its mask."""
    tensor = _tensor(value)
    assert tensor is not None
    shape = tensor.shape.numpy()
    if tensor.dtype not in constants.FLOAT_TYPES:
        raise ModelError(f"{what} is for weights of type {tensor.dtype.name.lower()}; only floating-point ones can go")
    if not isinstance(entry, np.ndarray):
        return _without_channels(value, tensor, _listed(entry, what), what)
    if entry.dtype.kind not in "biuf" or (entry.dtype.kind == "f" and np.isnan(entry).any()):
        raise ModelError(f"{what} is not made of numbers", hint="Nonzero keeps a weight, zero removes it.")
    if entry.shape == shape:
        array = tensor.numpy()
        return constants.tensor(np.where(entry != 0, array, np.zeros((), array.dtype)), tensor.name)
    if entry.ndim != 1:
        raise ModelError(
            f"{what} has the shape {list(entry.shape)}, the weight {list(shape)}",
            hint="Give a mask of the same shape, or one entry for each output channel.",
        )
    return _without_channels(value, tensor, entry == 0, what)


def _listed(numbers: Any, what: str) -> list[int]:
    if not isinstance(numbers, list) or any(type(number) is not int for number in numbers):
        raise ModelError(f"{what} is no list of channel numbers")
    return numbers


def _without_channels(
    value: ir.Value, tensor: ir.TensorProtocol, channels: list[int] | Mask, what: str
) -> ir.TensorProtocol:
    """Some output channels zero: those in a list, or those that an entry for each of them says."""
    shape = tensor.shape.numpy()
    if not shape:
        raise ModelError(f"{what} is for a single number, which has no channels")
    axis = _output_axis(value, shape)
    if axis is None:
        raise ModelError(
            f"{what} is of output channels, but along which axis of {list(shape)} its operators give them is not clear",
            hint="Give an .npz mask of the weight's shape.",
        )
    size = shape[axis]
    if isinstance(channels, list):
        outside = next((number for number in channels if not 0 <= number < size), None)
        if outside is not None:
            raise ModelError(f"{what} names channel {outside}, the weight has {size}: 0 to {size - 1}")
        dead = np.zeros(size, bool)
        dead[channels] = True
    else:
        dead = channels
        if len(dead) != size:
            raise ModelError(f"{what} has {len(dead)} entries, the weight of shape {list(shape)} {size} channels")
    return MaskedTensor(tensor, [dead if place == axis else None for place in range(len(shape))])


# -- along which axis a weight has output channels


def _output_axis(value: ir.Value, shape: Sequence[int]) -> int | None:
    """The axis of a weight along which its operators give channels; ``None`` where they do not agree."""
    axes = {_gives(node, index, shape) for node, index in value.uses()} - {_ANY}
    if not axes:
        wide = [place for place, size in enumerate(shape) if size != 1]
        return wide[0] if len(wide) == 1 else 0
    return axes.pop() if len(axes) == 1 else None


def _gives(node: ir.Node, index: int, shape: Sequence[int]) -> int | None:
    integer, rank = node.attributes.get_int, len(shape)
    match node.op_type, index:
        case (("Identity" | "Cast"), 0):
            return _output_axis(node.outputs[0], shape)
        case "Transpose", 0:
            order = list(node.attributes.get_ints("perm", range(rank)[::-1]))
            axis = _output_axis(node.outputs[0], [shape[place] for place in order])
            return None if axis is None else order[axis]
        case "Conv", 1:
            return 0
        case "ConvTranspose", 1:
            return 1 if integer("group", 1) == 1 else None
        case (("MatMul" | "FusedMatMul"), (0 | 1)):
            turned = integer("transA" if index == 0 else "transB", 0)
            return max(0, rank - (2 if (index == 0) != bool(turned) else 1))
        case "Gemm", (0 | 1):
            return index if not integer("transA" if index == 0 else "transB", 0) else 1 - index
        case "Gemm", 2:
            return rank - 1
        case (("GRU" | "LSTM" | "RNN"), (1 | 2 | 3 | 7)):
            return 1
        case "Attention", 1 if node.domain:
            return 1
        case "Gather", 0:
            others = [place for place in range(rank) if place != integer("axis", 0) % rank]
            return None if len(others) > 1 else others[0] if others else 0
        case "Einsum", _:
            terms, _, result = node.attributes.get_string("equation", "").replace(" ", "").partition("->")
            rest = terms.split(",")
            own = rest.pop(index)
            given = [place for place, letter in enumerate(own) if letter in result and letter not in "".join(rest)]
            return given[0] if len(given) == 1 and "." not in own else None
    return _ANY
