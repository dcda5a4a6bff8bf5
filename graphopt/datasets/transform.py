"""From an array as stored to one as an input takes it: channel axis, layout, arithmetic, dtype."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from graphopt.datasets.column import Array, Column
from graphopt.errors import ModelError, UsageError

if TYPE_CHECKING:
    from graphopt.datasets.options import Options
    from graphopt.verify.dims import Dim
    from graphopt.verify.feeds import Input

__all__ = ["Transform", "check_dtype", "image_axes", "layout_of", "plan", "target"]

_IMAGE_RANK: Final = 4
_COLOURS: Final = (1, 3, 4)
_SILENT: Final = {("int32", "int64"), ("float64", "float32")}
"""Conversions that need no word: what NumPy and exporters do not agree on."""


@dataclass(frozen=True, slots=True)
class Transform:
    """What is done to rows as they are read; axes count from the end, so that more may stand before them.

    Attributes:
        dtype: Of the input.
        channel_axis: Where an axis of size 1 is put in; None for none.
        turn: Whether the last three axes turn: 1 from NHWC to NCHW, -1 back, 0 not.
        arithmetic: ``(scale, mean, std)``, of shapes that broadcast; None for none.
    """

    dtype: np.dtype[Any]
    channel_axis: int | None = None
    turn: int = 0
    arithmetic: tuple[Array, Array, Array] | None = None

    def __call__(self, rows: Array) -> Array:
        """The rows as the model takes them."""
        if self.channel_axis is not None:
            rows = np.expand_dims(rows, self.channel_axis)
        if self.turn:
            rows = np.moveaxis(rows, *_TURNS[self.turn])
        if self.arithmetic is not None:
            scale, mean, std = self.arithmetic
            rows = (rows / scale - mean) / std
        with np.errstate(over="ignore"):  # an infinity is found, and named, where values are checked
            return self._cast(rows)

    def _cast(self, rows: Array) -> Array:
        return np.ascontiguousarray(rows, self.dtype) if rows.ndim else np.asarray(rows, self.dtype)

    def shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """What becomes of a shape."""
        sizes = list(shape)
        if self.channel_axis is not None:
            sizes.insert(len(sizes) + 1 + self.channel_axis, 1)
        return _turned(sizes, self.turn)


_TURNS: Final = {1: (-1, -3), -1: (-3, -1)}


def plan(entry: Input, column: Column, options: Options, where: str) -> Transform:
    """How a column becomes what an input takes.

    Args:
        entry: The input.
        column: The array.
        options: Of the user, for this input; the default ones for inputs that no option is about.
        where: The source, for messages.

    Raises:
        ModelError: The dtype does not fit.
        UsageError: Options contradict the array or the input, or one is missing.
    """
    wanted = entry.dtype.numpy()
    check_dtype(entry, column, options, where)
    channel_axis = _channel_axis(entry, column.shape, options)
    bare = Transform(wanted, channel_axis)
    turn = _turn(entry, column.layout, bare.shape(column.shape), options, where)
    bare = Transform(wanted, channel_axis, turn)
    if not options.is_numeric:
        return bare
    shape = bare.shape(column.shape)
    exact = wanted == np.float64 and column.dtype == np.float64
    kind = np.float64 if exact else np.float32
    mean = _by_channel(options.mean or (0.0,), "mean", entry, shape, options, where).astype(kind)
    std = _by_channel(options.std or (1.0,), "std", entry, shape, options, where).astype(kind)
    scale = np.asarray(1.0 if options.scale is None else options.scale, kind)
    return Transform(wanted, channel_axis, turn, (scale, mean, std))


def target(inputs: Sequence[Input], options: Options, where: str) -> Input:
    """The input that images, and arithmetic, are for: the one named, the only one, or the only image.

    Raises:
        UsageError: There is none such, or several.
    """
    names = ", ".join(entry.name for entry in inputs) or "none"
    if options.input:
        for entry in inputs:
            if entry.name == options.input:
                return entry
        raise UsageError(f"{where}: the model has no input '{options.input}'", hint=f"Its inputs are: {names}.")
    if len(inputs) == 1:
        return inputs[0]
    floats = [entry for entry in inputs if entry.dtype.is_floating_point()]
    images = [entry for entry in floats if entry.shape is not None and len(entry.shape) == _IMAGE_RANK]
    for found in (images, floats):
        if len(found) == 1:
            return found[0]
    raise UsageError(
        f"{where}: which input are the options for? The model has several: {names}", hint="Say so with input=NAME."
    )


def image_axes(entry: Input, layout: str) -> tuple[Dim | None, Dim | None, Dim | None]:
    """(channels, height, width) of an input, by ``layout`` or, where it is empty, by what looks like channels."""
    shape = entry.shape
    if shape is None or len(shape) != _IMAGE_RANK:
        return None, None, None
    if (layout or layout_of(shape)) == "nhwc":
        return shape[3], shape[1], shape[2]
    return shape[1], shape[2], shape[3]


def layout_of(shape: Sequence[Dim]) -> str:
    """``nhwc`` where only the last of four axes has the size of colours, else ``nchw``."""
    return "nhwc" if shape[-1] in _COLOURS and shape[-3] not in _COLOURS else "nchw"


def _is_image(entry: Input, shape: Sequence[int]) -> bool:
    return entry.shape is not None and len(entry.shape) == _IMAGE_RANK and len(shape) in (_IMAGE_RANK, _IMAGE_RANK + 1)


def _turned(shape: Sequence[int], turn: int) -> tuple[int, ...]:
    sizes = list(shape)
    if turn:
        source, destination = _TURNS[turn]
        size = sizes.pop(source)
        sizes.insert(len(sizes) + 1 + destination, size)
    return tuple(sizes)


def _fits(entry: Input, shape: Sequence[int]) -> bool:
    """Whether the fixed sizes behind the leading axis allow it."""
    assert entry.shape is not None
    return all(not isinstance(dim, int) or dim == size for dim, size in zip(entry.shape[1:], shape[-3:], strict=True))


def _channel_axis(entry: Input, shape: tuple[int, ...], options: Options) -> int | None:
    """Where images without colours lack an axis that can only be that of the model's single channel."""
    if entry.shape is None or len(entry.shape) != _IMAGE_RANK or len(shape) != _IMAGE_RANK - 1:
        return None
    axes = {"nchw": (-3,), "nhwc": (-1,)}.get(options.layout, (-3, -1))
    found = [
        axis for axis in axes if entry.shape[axis] == 1 and _fits(entry, Transform(_ANY, axis).shape(shape))
    ]  # fmt: skip
    return found[0] if len(found) == 1 else None


_ANY: Final = np.dtype(np.uint8)


def _turn(entry: Input, known: str, shape: Sequence[int], options: Options, where: str) -> int:
    """Whether to turn the layout: from the one that is known, or from the one that does not fit."""
    if not _is_image(entry, shape):
        return 0
    assert entry.shape is not None
    layout = options.layout or (layout_of(entry.shape) if known else "")
    if not layout:
        return 0
    turn = 1 if layout == "nchw" else -1
    if known:
        return turn if known != layout else 0
    as_is, turned = _fits(entry, shape), _fits(entry, _turned(shape, turn))
    if as_is != turned:
        return turn if turned else 0
    channels = {"nchw": shape[-3], "nhwc": shape[-1]}[layout], {"nchw": shape[-1], "nhwc": shape[-3]}[layout]
    if (channels[0] in _COLOURS) == (channels[1] in _COLOURS) and as_is:
        raise UsageError(
            f"{where}: the layout of '{entry.name}' cannot be told from its shape {list(shape)}",
            hint="Transpose the array yourself, and leave layout= out.",
        )
    return turn if channels[1] in _COLOURS else 0


def _by_channel(
    values: Sequence[float], key: str, entry: Input, shape: Sequence[int], options: Options, where: str
) -> Array:
    """``values`` in a shape that puts them along the channels: the last axis of what is no image."""
    if len(values) == 1:
        return np.array(values[0])
    axes = (-1,)
    if _is_image(entry, shape):
        assert entry.shape is not None
        layout = options.layout or layout_of(entry.shape)
        axes = (-1,) if layout == "nhwc" else (-3,)
    for axis in axes:
        if len(shape) >= -axis and shape[axis] == len(values):
            return np.array(values).reshape(-1, *[1] * (-axis - 1))
    raise UsageError(
        f"{where}: {key} has {len(values)} values, and '{entry.name}' of the shape {list(shape)} has "
        f"{shape[axes[0]] if len(shape) >= -axes[0] else 'no'} channels",
        hint="Give one value, or one a channel; layout= says where the channels are.",
    )


def check_dtype(entry: Input, column: Column, options: Options, where: str) -> None:
    wanted, given = entry.dtype.numpy(), column.dtype
    floats = entry.dtype.is_floating_point()
    if options.is_numeric:
        if not floats:
            raise UsageError(
                f"{where}: input '{entry.name}' takes {wanted}, which scale, mean and std cannot give",
                hint="Leave them out.",
            )
        if given.kind in "fb" or (given.kind in "iu" and options.scale is not None):
            return
    if given == wanted or (given.name, wanted.name) in _SILENT or (wanted.kind == "O" and given.kind in "US"):
        return
    if column.derived and (floats if given.kind == "f" else wanted.kind in "iu" and given.kind in "iu"):
        return
    if given == np.uint8 and floats:
        raise ModelError(
            f"{where}: input '{entry.name}' takes {wanted}, and the data are pixels in {given}",
            hint="Say what to divide them by: scale=255 for inputs in [0, 1], scale=1 to leave them as they are.",
        )
    raise ModelError(
        f"{where}: input '{entry.name}' is {given}, the model takes {wanted}",
        hint=f"Convert it with array.astype('{wanted}').",
    )
