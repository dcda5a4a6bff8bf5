"""Pass specs, ``name:option=value:option=value``: written so that no shell expands them."""

from __future__ import annotations

import dataclasses
import difflib
import enum
import re
import typing
from collections.abc import Iterable, Mapping
from typing import Any

from graphopt.errors import UsageError

if typing.TYPE_CHECKING:
    from graphopt.pipeline.base import Pass

__all__ = ["close_match", "describe", "options", "parse", "size", "split"]

_SIZE = re.compile(r"(?i)^([+-]?\d+)\s*([kmgt]?)(i?)b?$")
_POWER = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}
_BOOL = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


def split(specs: Iterable[str]) -> list[str]:
    """Takes ``["a,b:x=1", "c"]`` apart into one spec each; empty parts vanish."""
    return [part.strip() for spec in specs for part in spec.split(",") if part.strip()]


def parse(
    spec: str, *, what: str = "pass", example: str = "fold-constants:max-bytes=4096"
) -> tuple[str, dict[str, str]]:
    """Takes one spec apart into the name and its raw options (keys with underscores).

    Args:
        spec: The spec.
        what: What it is a spec of, for errors: augmentations and such are written like passes.
        example: A right one.

    Raises:
        UsageError: An option without ``=``, or given twice.
    """
    name, *parts = spec.split(":")
    raw: dict[str, str] = {}
    for part in parts:
        key, sign, text = part.partition("=")
        key = key.strip().replace("-", "_")
        if not sign or not key:
            raise UsageError(
                f"'{part}' in the {what} spec '{spec}' is no option",
                hint=f"Write name:option=value, for example {example}.",
            )
        if key in raw:
            raise UsageError(f"option '{key.replace('_', '-')}' is given twice in the {what} spec '{spec}'")
        raw[key] = text.strip()
    return name.strip(), raw


def options(pass_class: type[Pass], raw: Mapping[str, str]) -> dict[str, Any]:
    """Converts raw option texts to the types of the pass's fields.

    Raises:
        UsageError: An unknown option, or a text that is not of the field's type.
    """
    if not raw:
        return {}  # reading the types takes longer than most passes do
    types = typing.get_type_hints(pass_class)
    known = {field.name for field in dataclasses.fields(pass_class)}
    converted: dict[str, Any] = {}
    for key, text in raw.items():
        if key not in known:
            raise UsageError(
                f"pass '{pass_class.name}' has no option '{key.replace('_', '-')}'",
                hint=close_match(key.replace("_", "-"), [name.replace("_", "-") for name in known]),
            )
        try:
            converted[key] = _convert(text, types[key])
        except ValueError:
            raise UsageError(
                f"option '{key.replace('_', '-')}' of pass '{pass_class.name}' cannot be '{text}'",
                hint=f"It takes {_words(types[key])}.",
            ) from None
    return converted


def describe(pass_class: type[Pass]) -> list[tuple[str, str, str]]:
    """Option name (with dashes), its type in words, and its default, for the catalogue."""
    types = typing.get_type_hints(pass_class)
    return [
        (field.name.replace("_", "-"), _words(types[field.name]), str(field.default))
        for field in dataclasses.fields(pass_class)
    ]


def size(text: str) -> int:
    """``4096``, ``64k``, ``6GB`` or ``6GiB`` as a number; only units with an ``i`` count in powers of 1024.

    Raises:
        ValueError: It is no such text.
    """
    match = _SIZE.match(text)
    if match is None:
        raise ValueError(text)
    factor: int = (1024 if match[3] else 1000) ** _POWER[match[2].lower()]
    return int(match[1]) * factor


def close_match(name: str, known: Iterable[str]) -> str:
    """A hint for a mistyped name: the closest known one, else all of them."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1)
    if near:
        return f"Did you mean '{near[0]}'?"
    return f"Known: {', '.join(names)}." if names else "It has none."


def _convert(text: str, kind: Any) -> Any:
    if kind is bool:
        if text.lower() not in _BOOL:
            raise ValueError(text)
        return _BOOL[text.lower()]
    if kind is int:
        return size(text)
    if kind is float:
        return float(text)
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return kind(text)
    return text


def _words(kind: Any) -> str:
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return "one of " + ", ".join(str(member.value) for member in kind)
    return {bool: "true or false", int: "an integer (K, M, G allowed)", float: "a number"}.get(kind, "a text")
