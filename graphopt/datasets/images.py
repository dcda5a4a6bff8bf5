"""Folders of images, decoded when they are asked for."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from graphopt.datasets.arrays import KEYS
from graphopt.datasets.column import LABELS, Column, Dataset
from graphopt.datasets.extras import missing
from graphopt.datasets.options import Options
from graphopt.datasets.transform import image_axes, target
from graphopt.errors import ModelError, UsageError

if TYPE_CHECKING:
    from PIL import Image

    from graphopt.verify.feeds import Input

__all__ = ["open_images"]

_SUFFIXES: Final = frozenset(
    {".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
)  # fmt: skip
_DEEP: Final = ("I", "F")  # Pillow would cut their values off at 255


def open_images(folder: Path, pairs: Mapping[str, str]) -> Dataset:
    """Images of a folder, uint8 as decoded; those in subfolders are labelled with the number of theirs, sorted by name.

    Raises:
        ModelError: There are no images, or some beside folders of some.
        UsageError: Unknown options.
        EnvironmentProblem: Pillow is not installed.
    """
    options = Options.of(pairs, str(folder), (*KEYS, "size", "crop", "resize", "channels"))
    classes = [path for path in sorted(folder.iterdir()) if path.is_dir() and not path.name.startswith(".")]
    sorted_in = [(path, label) for label, name in enumerate(classes) for path in _images(name)]
    flat = _images(folder)
    if flat and sorted_in:
        raise ModelError(f"{folder}: images lie both in it and in its folders", hint="Name the folder of one kind.")
    if not flat and not sorted_in:
        raise ModelError(
            f"{folder}: there are no data in it",
            hint="It reads folders of images, of folders of images (one a class), of .npy, .npz or IDX files.",
        )
    try:
        importlib.import_module("PIL.Image")
    except ImportError as error:
        raise missing(str(folder), "Pillow", error) from error
    paths = flat or [path for path, _ in sorted_in]

    def columns(inputs: Sequence[Input]) -> Mapping[str, Column]:
        found = {"x": _column(paths, _Reading.of(options, target(inputs, options, str(folder)), str(folder)))}
        if sorted_in:
            found[LABELS] = Column.of(np.array([label for _, label in sorted_in]))
        return found

    return Dataset(folder.name, str(folder), columns, options)


def _images(folder: Path) -> list[Path]:
    found = (path for path in folder.iterdir() if path.suffix.lower() in _SUFFIXES)
    return sorted(path for path in found if path.is_file() and not path.name.startswith("."))


class _Reading:
    """How each image becomes an array of one size."""

    def __init__(self, size: tuple[int, int], channels: str, crop: bool, resize: int | None) -> None:
        self.size = size
        self.channels = channels
        self.crop = crop or resize is not None
        self.resize = resize

    @classmethod
    def of(cls, options: Options, entry: Input, where: str) -> _Reading:
        """What options leave open is what the model takes."""
        channel, height, width = image_axes(entry, options.layout)
        if options.size is not None:
            size = options.size
        elif isinstance(height, int) and isinstance(width, int):
            size = (height, width)
        else:
            raise UsageError(
                f"{where}: input '{entry.name}' takes images of any size, {entry.shown_shape}",
                hint="Say which with size=224, or size=HEIGHTxWIDTH.",
            )
        if not options.channels and isinstance(channel, int) and channel not in (1, 3):
            raise UsageError(
                f"{where}: input '{entry.name}' takes {channel} channels, {entry.shown_shape}, and images have 1 or 3",
                hint="Say where its channels are with layout=nhwc or layout=nchw, or prepare arrays.",
            )
        return cls(size, options.channels or ("gray" if channel == 1 else "rgb"), options.crop, options.resize)

    def __call__(self, path: Path) -> np.ndarray[Any, Any]:
        """The pixels, uint8, (height, width, channels)."""
        import PIL.Image
        import PIL.ImageOps

        try:
            with PIL.Image.open(path) as opened:
                if opened.mode.startswith(_DEEP):
                    raise ModelError(f"{path}: pixels of more than 8 bits are not read", hint="Prepare arrays.")
                upright = PIL.ImageOps.exif_transpose(opened)
                sized = self._resized(upright.convert("L" if self.channels == "gray" else "RGB"))
        except (OSError, ValueError, SyntaxError, PIL.Image.DecompressionBombError) as error:
            raise ModelError(f"{path}: cannot be read as an image: {error}") from error
        pixels = np.asarray(sized).reshape(*self.size, -1)
        return pixels[..., ::-1] if self.channels == "bgr" else pixels

    def _resized(self, image: Image.Image) -> Image.Image:
        import PIL.Image

        height, width = self.size
        if not self.crop:
            return image.resize((width, height), PIL.Image.Resampling.BILINEAR)
        # The part of the image that the crop shows, found first: one resampling instead of two.
        scale = (self.resize / min(image.size)) if self.resize else max(height / image.height, width / image.width)
        shown = (width / scale, height / scale)
        left, top = (image.width - shown[0]) / 2, (image.height - shown[1]) / 2
        if left < 0 or top < 0:
            image = image.resize(
                (round(image.width * scale), round(image.height * scale)), PIL.Image.Resampling.BILINEAR
            )
            left, top = round((image.width - width) / 2), round((image.height - height) / 2)
            return image.crop((left, top, left + width, top + height))
        return image.resize(
            (width, height), PIL.Image.Resampling.BILINEAR, (left, top, left + shown[0], top + shown[1])
        )


def _column(paths: Sequence[Path], reading: _Reading) -> Column:
    shape = (*reading.size, 1 if reading.channels == "gray" else 3)
    column = Column.each(len(paths), shape, np.uint8, lambda row: reading(paths[row]))
    return Column(column.shape, column.dtype, column.read, layout="nhwc")
