"""Data specs, ``PATH:key=value:key=value``, and what the keys mean.

A colon that no ``key=`` follows belongs to what stands before it: ``C:\\data:scale=255`` and ``module:function`` are
read as meant. What exists under the whole text is that file.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final

from graphopt.errors import UsageError
from graphopt.pipeline.spec import close_match

__all__ = ["KEYS", "Options", "parse_pairs", "parse_spec"]

_KEY: Final = re.compile(r"[A-Za-z][A-Za-z_-]*=")


@dataclass(frozen=True, slots=True)
class Options:
    """How samples become what the model takes: ``(value / scale - mean) / std``, then the layout.

    Attributes:
        scale: What values are divided by; needed where integers (pixels) go to an input of floats.
        mean: One for all, or one a channel; after the division.
        std: Likewise, not zero.
        layout: ``nchw`` or ``nhwc``, of the model; data in the other one are transposed.
        input: Name of the input that the arithmetic is for, where it could be several.
        split: ``train`` or ``test``, of sources that hold both.
        size: ``(height, width)`` of images; else the model's.
        crop: Cut to the size from the middle, after the shorter side is resized to it, instead of squeezing the image.
        resize: The shorter side before the crop; else that of the crop.
        channels: ``rgb``, ``bgr`` or ``gray``; else what the model's number of channels says.
        tokenizer: A ``tokenizer.json``.
        max_length: Tokens a sample, by padding and truncation; else the model's, else 128.
        text: Field of a JSON line that holds the text.
        label: Field of a JSON line that holds the label.
    """

    scale: float | None = None
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    layout: str = ""
    input: str = ""
    split: str = ""
    size: tuple[int, int] | None = None
    crop: bool = False
    resize: int | None = None
    channels: str = ""
    tokenizer: str = ""
    max_length: int | None = None
    text: str = "text"
    label: str = "label"

    @property
    def is_numeric(self) -> bool:
        """Whether there is arithmetic to do."""
        return self.scale is not None or bool(self.mean or self.std)

    @classmethod
    def of(cls, pairs: Mapping[str, str], where: str, known: Sequence[str] = ()) -> Options:
        """Reads the values.

        Args:
            pairs: Texts by key.
            where: The source, for messages.
            known: The keys that this kind of source has; all if empty.

        Raises:
            UsageError: An unknown key, one that this source does not use, or a value that is none.
        """
        names = [field.name for field in fields(cls)]
        read: dict[str, Any] = {}
        for key, text in pairs.items():
            if key not in (known or names):
                problem = "no such option for data" if key not in names else "this kind of data does not use the option"
                raise UsageError(
                    f"{where}: {problem} '{key.replace('_', '-')}'",
                    hint=close_match(key.replace("_", "-"), [name.replace("_", "-") for name in known or names]),
                )
            convert, takes = KEYS[key]
            try:
                read[key] = convert(text)
            except ValueError:
                raise UsageError(
                    f"{where}: option '{key.replace('_', '-')}' cannot be '{text}'", hint=f"It takes {takes}."
                ) from None
        return cls(**read)


def _number(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(text)
    return number


def _nonzero(text: str) -> float:
    number = _number(text)
    if number == 0:
        raise ValueError(text)
    return number


def _several(convert: Callable[[str], float]) -> Callable[[str], tuple[float, ...]]:
    return lambda text: tuple(convert(part) for part in text.split(","))


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def _size(text: str) -> tuple[int, int]:
    parts = [_positive(part) for part in re.split("[x,]", text)]
    if len(parts) > 2:
        raise ValueError(text)
    return parts[0], parts[-1]


def _choice(*choices: str) -> Callable[[str], str]:
    def convert(text: str) -> str:
        if text.lower() not in choices:
            raise ValueError(text)
        return text.lower()

    return convert


def _switch(text: str) -> bool:
    return _choice("true", "yes", "on", "1", "false", "no", "off", "0")(text) in ("true", "yes", "on", "1")


def _filled(text: str) -> str:
    if not text:
        raise ValueError(text)
    return text


KEYS: Final[Mapping[str, tuple[Callable[[str], Any], str]]] = {
    "scale": (_nonzero, "a number that is not 0"),
    "mean": (_several(_number), "a number, or one a channel: 0.485,0.456,0.406"),
    "std": (_several(_nonzero), "a number that is not 0, or one a channel: 0.229,0.224,0.225"),
    "layout": (_choice("nchw", "nhwc"), "nchw or nhwc"),
    "input": (_filled, "the name of an input"),
    "split": (_choice("train", "test"), "train or test"),
    "size": (_size, "224, or HEIGHTxWIDTH"),
    "crop": (_switch, "true or false"),
    "resize": (_positive, "a number of pixels"),
    "channels": (_choice("rgb", "bgr", "gray"), "rgb, bgr or gray"),
    "tokenizer": (_filled, "the path of a tokenizer.json"),
    "max_length": (_positive, "a number of tokens"),
    "text": (_filled, "the name of a field"),
    "label": (_filled, "the name of a field"),
}
"""How each option's text is read, and what to tell whoever wrote another one."""


def parse_spec(spec: str) -> tuple[str, dict[str, str]]:
    """Takes ``PATH:key=value`` apart.

    Raises:
        UsageError: No path, or a key twice.
    """
    parts = [spec] if _exists(spec) else spec.split(":")
    path = parts.pop(0)
    while parts and not _KEY.match(parts[0]):
        path = f"{path}:{parts.pop(0)}"
    if not path.strip() or _KEY.match(path):
        raise UsageError(f"the data spec '{spec}' names no data", hint="Write PATH, or PATH:key=value.")
    return path.strip(), parse_pairs(":".join(parts))


def parse_pairs(text: str) -> dict[str, str]:
    """Takes ``key=value:key=value`` apart; a part without ``key=`` goes on with the value before it.

    Raises:
        UsageError: It does not begin with a key, or has one twice.
    """
    pairs: dict[str, str] = {}
    last = ""
    for part in text.split(":") if text else ():
        if not _KEY.match(part):
            if not last:
                raise UsageError(f"'{part}' is no option for data", hint="Write key=value, for example scale=255.")
            pairs[last] += f":{part}"
            continue
        key, _, value = part.partition("=")
        last = key.lower().replace("-", "_")
        if last in pairs:
            raise UsageError(f"option '{key}' is given twice for the data")
        pairs[last] = value.strip()
    return pairs


def _exists(text: str) -> bool:
    try:
        return Path(text).exists()
    except (OSError, ValueError):  # too long, or with a zero byte: no file of that name
        return False
